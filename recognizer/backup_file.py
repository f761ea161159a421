"""The file of a backup: a ZIP with `database.dump`, as pg_dump writes it, and `manifest.json`, which tells of it.

The manifest stands at the end, so a file that was cut off has none. What the SHA-256 in it proves is that the dump is
as it was written, not who has written it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recognizer.errors import BackupError
from recognizer.partial_file import replacing

FORMAT = 1
DUMP, MANIFEST = "database.dump", "manifest.json"
_MOST_MANIFEST_BYTES = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Manifest(BaseModel):
    """What a backup says about itself; `encryption_keys` are the ids of those that it needs, never the keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    program: str
    created_at: datetime
    postgresql: int = Field(description="the server's version number, such as 180004")
    migrations: dict[str, str]
    rows: dict[str, int]
    encryption_keys: list[str]
    dump_bytes: int
    dump_sha256: str


class Hashed:
    """A file that is read or written through: its bytes are counted and hashed."""

    def __init__(self, file: IO[bytes], moved: Callable[[int], object] = lambda _: None) -> None:
        self._file, self._moved = file, moved
        self._sha256 = hashlib.sha256()
        self.count = 0

    @property
    def sha256(self) -> str:
        """Of everything up to now, as hexadecimal digits."""
        return self._sha256.hexdigest()

    def read(self, size: int = -1, /) -> bytes:
        """Read on."""
        return self._seen(self._file.read(size))

    def write(self, data: bytes) -> int:
        """Write on."""
        return self._file.write(self._seen(data))

    def _seen(self, data: bytes) -> bytes:
        self._sha256.update(data)
        self.count += len(data)
        self._moved(len(data))
        return data


@contextmanager
def written(target: Path, expected_bytes: int, force: bool) -> Iterator[Path]:
    """A file beside the target, private (0600), that takes its place at the end of the block, or is gone.

    Raises:
        BackupError: there is something already, or it cannot be written; where the disk is full the message says how
            much is needed.
    """
    if not force and os.path.lexists(target):
        raise BackupError(f"{target} is there already; choose another name, or --force to replace it.")
    try:
        with replacing(target) as path:
            yield path
    except OSError as error:
        if error.errno in _FULL:
            raise BackupError(
                f"There is no room for {target}: about {expected_bytes:,} bytes are needed. Nothing was left behind."
            ) from error
        raise BackupError(f"{target} cannot be written: {error.strerror or error}.") from error


def write(path: Path, dump: Callable[[Hashed], object], about: dict[str, Any], moved: Callable[[int], object]) -> None:
    """Write a backup: what `dump` writes, then the manifest; on the disk when it returns. Raises OSError."""
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w") as archive:  # not compressed: the dump is already
            with archive.open(DUMP, "w", force_zip64=True) as member:
                hashed = Hashed(member, moved)
                dump(hashed)
            manifest = Manifest(**about, dump_bytes=hashed.count, dump_sha256=hashed.sha256)
            archive.writestr(MANIFEST, manifest.model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())


def manifest_of(path: Path) -> Manifest:
    """What a backup says about itself.

    Raises:
        BackupError: it is no backup, was cut off, or a newer program made it.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        if archive.getinfo(MANIFEST).file_size > _MOST_MANIFEST_BYTES:
            raise BackupError(f"{path} is no backup of the recognizer.")
        text = archive.read(MANIFEST)
    try:
        found = _Format.model_validate_json(text).format
        if found > FORMAT:
            raise BackupError(f"{path} was made by a newer version of this program; restore it with that one.")
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BackupError(f"{path} is no backup of the recognizer, or is damaged.") from error


@contextmanager
def dump_in(path: Path, manifest: Manifest, moved: Callable[[int], object]) -> Iterator[Hashed]:
    """The dump in a backup, to be read to its end: only then the block ends without an error.

    Raises:
        BackupError: it is not as it was written, or cannot be read.
    """
    with _reading(path), zipfile.ZipFile(path) as archive, archive.open(DUMP) as member:
        hashed = Hashed(member, moved)
        yield hashed
        if (hashed.count, hashed.sha256) != (manifest.dump_bytes, manifest.dump_sha256):
            raise BackupError(f"{path} is damaged: the dump in it is not as it was written. Take another backup.")


class _Format(BaseModel):
    format: int


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BackupError(f"There is no file {path}.") from error
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise BackupError(f"{path} is no backup of the recognizer, or is damaged or cut off.") from error
