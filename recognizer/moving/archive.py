"""The ZIP of an export: written to a temporary name and checked, read without trusting anything it says.

Members are stored, not compressed: a declared size can then be no larger than the file is, and arrays can be mapped.
Nothing is ever unpacked to a file, and no name in the ZIP becomes a path.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from recognizer.errors import FileNotWritten, FileRefused
from recognizer.gallery.transfer import Member, PhotoRecord, Vectors
from recognizer.moving.manifest import (
    MANIFEST,
    MAX_LINE_BYTES,
    MAX_MANIFEST_BYTES,
    PHOTOS,
    VERSION,
    Manifest,
    Version,
    parsed,
    picture,
)
from recognizer.moving.progress import Advance
from recognizer.partial_file import replacing

CHUNK_BYTES = 2**20
ROWS_AT_ONCE = 2048
ROW_BYTES = 4 * 128
MAX_HEADER_BYTES = 4096

DAMAGED = "copy it again from where it was made, or export it anew."


class Writer:
    """Writes members one after the other and knows their sizes and checksums."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.members: dict[str, Member] = {}

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Add a member made of these bytes, and to `members`."""
        self.members[name] = self.add(name, chunks)

    def add(self, name: str, chunks: Iterable[bytes]) -> Member:
        """Add a member made of these bytes; who adds it keeps what is returned."""
        digest, size = hashlib.sha256(), 0
        with self._archive.open(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as member:
            for chunk in chunks:
                member.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return Member(bytes=size, sha256=digest.hexdigest())


@contextlib.contextmanager
def written(path: Path, *, force: bool) -> Iterator[Writer]:
    """A new file at `path`, readable by its owner only, which is there as a whole or not at all.

    Raises:
        FileNotWritten: it is there already (without `force`), or the disk does not take it.
    """
    if not force and os.path.lexists(path):
        raise FileNotWritten(f"{path} is there already; choose another name, or say --force to replace it.")
    try:
        with replacing(path) as temporary:
            with temporary.open("w+b") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    yield Writer(archive)
                file.flush()
                os.fsync(file.fileno())
            verify(temporary)
    except OSError as error:
        raise FileNotWritten(_unwritable(path, error)) from error


def verify(path: Path, advance: Advance = lambda _: None) -> Manifest:
    """Read a whole export and compare it with its checksums.

    Raises:
        FileRefused: it is damaged or no export.
    """
    with opened(path) as archive:
        archive.verify(advance)
        return archive.manifest


def _unwritable(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"There is no room for {path}; nothing was left behind. Free some, or write to another disk."
    return f"{path} cannot be written: {error.strerror or error}; nothing was left behind."


class Archive:
    """An export that is open for reading. Whatever is wrong with it raises FileRefused."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self._infos = _plain_members(path, archive)
        self.manifest = self._read_manifest()
        self._one_picture = threading.Lock()
        for name, member in self.manifest.members.items():
            self._require_size(name, member)

    @property
    def size_bytes(self) -> int:
        """How much there is to verify."""
        return sum(info.file_size for info in self._infos.values())

    def verify(self, advance: Advance) -> None:
        """Compare each member with its checksum; `advance` is told of bytes."""
        for name, member in self.manifest.members.items():
            self._verify(name, member, advance)
        for _, record in self.photos():
            self._verify(picture("photo", record.face_id), record.photo, advance)
            self._verify(picture("chip", record.face_id), record.chip, advance)

    def photos(self) -> Iterator[tuple[str, PhotoRecord]]:
        """What the file says of the photos that are in it, each with its place for messages."""
        if count := self.manifest.collection.photos:
            for place, line in self.lines(PHOTOS, count):
                yield place, parsed(PhotoRecord, place, line)

    def picture(self, name: str, member: Member) -> bytes:
        """A photo or a chip as a whole; called by several threads."""
        self._require_size(name, member)
        with self._one_picture, self.open(name) as stream:
            return stream.read()

    def _require_size(self, name: str, member: Member) -> None:
        info = self._infos.get(name)
        if info is None or info.file_size != member.bytes:
            there = "not there" if info is None else f"{info.file_size:,} bytes long, not {member.bytes:,}"
            raise FileRefused(f"{self._path}, member {name}: it is {there}; {DAMAGED}")

    def _verify(self, name: str, member: Member, advance: Advance) -> None:
        self._require_size(name, member)
        digest = hashlib.sha256()
        with self.open(name) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                advance(len(chunk))
        if digest.hexdigest() != member.sha256:
            raise FileRefused(f"{self._path}, member {name}: its checksum is wrong; {DAMAGED}")

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A member to be read."""
        if name not in self._infos:
            raise FileRefused(f"{self._path}, member {name}: it is not there; {DAMAGED}")
        try:
            with self._archive.open(self._infos[name]) as stream:
                yield stream
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
            raise FileRefused(f"{self._path}, member {name}: it cannot be read ({error}); {DAMAGED}") from error

    def lines(self, name: str, count: int) -> Iterator[tuple[str, bytes]]:
        """Each line of a member that has to have `count`, with its place for messages."""
        with self.open(name) as stream:
            number = 0
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                place = f"{self._path}, {name}, line {number}"
                if len(line) > MAX_LINE_BYTES:
                    raise FileRefused(f"{place}: it is longer than {MAX_LINE_BYTES:,} bytes; shorten the metadata.")
                if number > count:
                    break
                yield place, line
        if number != count:
            raise FileRefused(f"{self._path}, {name}: it has not the {count:,} lines that the manifest says.")

    def vectors(self, name: str, count: int) -> Iterator[Vectors]:
        """The rows of a float32 array of shape (count, 128), some thousand at a time."""
        with self.open(name) as stream:
            header = self._header(name, stream)
            ends = stream.tell() + count * ROW_BYTES
            if header != ((count, 128), False, np.dtype("<f4")) or ends != self._infos[name].file_size:
                raise FileRefused(f"{self._path}, {name}: it must be an array of float32 of shape ({count}, 128).")
            for first in range(0, count, ROWS_AT_ONCE):
                size = min(ROWS_AT_ONCE, count - first) * ROW_BYTES
                rows = stream.read(size)
                if len(rows) != size:
                    raise FileRefused(f"{self._path}, {name}: it ends in the midst of row {first}; {DAMAGED}")
                yield np.frombuffer(rows, "<f4").reshape(-1, 128)

    def _header(self, name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.float32]]:
        try:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("another version of the format")
            return np.lib.format.read_array_header_1_0(stream, MAX_HEADER_BYTES)
        except ValueError as error:
            raise FileRefused(f"{self._path}, {name}: it is no array in NumPy's format 1.0.") from error

    def _read_manifest(self) -> Manifest:
        info = self._infos.get(MANIFEST)
        if info is None or info.file_size > MAX_MANIFEST_BYTES:
            raise FileRefused(
                f"{self._path}: it has no {MANIFEST}, so it is no export; give a file that `recognizer export` wrote."
            )
        with self.open(MANIFEST) as stream:
            text = stream.read()
        return _manifest(f"{self._path}, {MANIFEST}", text)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """An export, open for reading.

    Raises:
        FileRefused: it cannot be read, is damaged or no export, or of a version that this program does not know.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is cut off or no ZIP"
        raise FileRefused(f"{path} cannot be read: {reason}; {DAMAGED}") from error
    with archive:
        yield Archive(path, archive)


def _plain_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by name: each once, stored as it is, in clear."""
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        shown = info.filename[:100]
        if info.filename in infos:
            raise FileRefused(f"{path}: the member {shown} is there twice; {DAMAGED}")
        if info.flag_bits & 1 or info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise FileRefused(f"{path}, member {shown}: it is compressed or encrypted; members have to be stored.")
        infos[info.filename] = info
    if sum(info.file_size for info in infos.values()) > path.stat().st_size:
        raise FileRefused(f"{path}: its members lie in each other; {DAMAGED}")
    return infos


def _manifest(place: str, text: bytes) -> Manifest:
    """The manifest, of a version that can be read."""
    version = parsed(Version, place, text).format_version
    if version[0] != VERSION[0]:
        raise FileRefused(
            f"{place}: version {version[0]}.{version[1]} of the format, this program reads {VERSION[0]}; "
            "import it with the version of recognizer that wrote it, or a later one."
        )
    return parsed(Manifest, place, text)
