"""A folder whose subfolders are people: `Ada/1.jpg`, `Ada/2024/summer.jpg` and `Grace/1.jpg` are of Ada and Grace."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from recognizer.enrolling.items import NOT_A_PHOTO, Item, NoPhoto, Outcome, Row
from recognizer.errors import ImageTooLarge, StartupError

SUFFIXES = frozenset(
    {"", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)
"""What a photo's name ends with, without regard to case; whether it is one its bytes say."""

ONLY_FILES = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Whatever a file has become since it was seen: no link is followed, and no pipe waited for."""

OUTSIDE = Outcome("skipped", ("link_outside",), "A symbolic link that leads out of the folder; copy the photo itself.")
TO_FOLDER = Outcome("skipped", ("link_to_folder",), "A symbolic link to a folder; links to folders are not followed.")
BROKEN = Outcome("skipped", ("broken_link",), "A symbolic link to nothing.")
SPECIAL = Outcome("skipped", (NOT_A_PHOTO,), "No file, but a device, a pipe or a socket.")
HIDDEN = Outcome("skipped", (NOT_A_PHOTO,), "Hidden; names that begin with a dot are left alone.")
OTHER = Outcome("skipped", (NOT_A_PHOTO,), "No photo by its name; unpack archives, and give photos their suffix.")
NOBODYS = Outcome(
    "skipped", ("no_person",), "It lies in no subfolder, so whose photo is it? Put it into a folder with the name."
)


class Folder:
    """The photos below a folder, in the order of their paths."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        """`most_bytes`: larger files are not read.

        Raises:
            StartupError: there is no such folder.
        """
        try:
            self._root = path.resolve(strict=True)
            os.scandir(self._root).close()
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartupError(f"The folder {path} cannot be read: {reason}.") from error
        self._most_bytes = most_bytes

    def count(self) -> int:
        """How many files there are.

        Raises:
            StartupError: there are none.
        """
        count = sum(1 for _ in self)
        if not count:
            raise StartupError("There are no photos in this folder; it needs a subfolder for each person.")
        return count

    def __iter__(self) -> Iterator[Item | Row]:
        yield from self._below(self._root, None)

    def _below(self, folder: Path, person: str | None) -> Iterator[Item | Row]:
        """What is in a folder of `person`; None: in the uppermost, whose subfolders are people."""
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            yield self._row(folder, person, _unreadable(error))
            return
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from self._below(path, person or entry.name)
            else:
                yield self._one(path, person)

    def _one(self, path: Path, person: str | None) -> Item | Row:
        problem, target = self._problem(path)
        if problem is None and person is None:
            problem = NOBODYS
        if problem is not None:
            return self._row(path, person, problem)
        return Item(self._label(path), person or "", partial(self._read, target))

    def _problem(self, path: Path) -> tuple[Outcome | None, Path]:
        """Why a path is no photo to enrol, if it is none, and where its bytes are."""
        if path.name.startswith("."):
            return HIDDEN, path
        target = path
        if path.is_symlink():
            try:
                target = path.resolve(strict=True)
            except (OSError, RuntimeError):  # RuntimeError: a link that leads to itself
                return BROKEN, path
            if not target.is_relative_to(self._root):
                return OUTSIDE, path
            if target.is_dir():
                return TO_FOLDER, path
        if not target.is_file():
            return SPECIAL, path
        return (None if path.suffix.lower() in SUFFIXES else OTHER), target

    def _read(self, path: Path) -> bytes:
        try:
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | ONLY_FILES)) as file:
                facts = os.fstat(file.fileno())
                if not stat.S_ISREG(facts.st_mode):
                    raise NoPhoto(SPECIAL)
                if facts.st_size > self._most_bytes:
                    raise NoPhoto(self._too_large(facts.st_size))
                return file.read(self._most_bytes)
        except OSError as error:
            raise NoPhoto(_unreadable(error)) from error

    def _too_large(self, size: int) -> Outcome:
        detail = f"The file has {size:,} bytes, more than the {self._most_bytes:,} that are read; make it smaller."
        return Outcome("refused", (ImageTooLarge.code,), detail)

    def _row(self, path: Path, person: str | None, outcome: Outcome) -> Row:
        return Row(self._label(path), person or "", outcome)

    def _label(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _unreadable(error: OSError) -> Outcome:
    return Outcome("failed", ("unreadable",), f"It cannot be read: {error.strerror}.")
