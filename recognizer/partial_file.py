"""A file that is there as a whole or not at all: written beside its target, whose place it takes in the end."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_SUFFIX = ".partial"


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new file of this user alone (0600) that takes the target's place at the end of the block, or is gone.

    What a process that was killed has left of the same target is removed first; that of one at work is not.

    Raises:
        OSError: it cannot be written there.
    """
    _remove_leftovers(target)
    descriptor, path = _made(target)
    try:
        yield path
        if sys.platform == "win32":  # where an open file cannot be renamed; nobody removes one that is being written
            os.close(descriptor)
            descriptor = -1
        os.replace(path, target)
        sync_folder(target.parent)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder last through a power cut."""
    if os.name == "nt":
        return  # folders cannot be opened there; NTFS journals the rename
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _made(target: Path) -> tuple[int, Path]:
    """A new file, locked for as long as its descriptor is open, and its path."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-", suffix=_SUFFIX)
        try:
            locked = _lock(descriptor)
        except OSError:
            locked = True  # a disk without locks: nothing is taken for a leftover there either
        if locked and os.path.lexists(name):  # nobody has taken it for a leftover before it was locked
            return descriptor, Path(name)
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    ours = re.compile(re.escape(f".{target.name}-") + "[a-z0-9_]{8}" + re.escape(_SUFFIX))
    with suppress(OSError):  # a folder that we may write to, but not list
        for path in target.parent.iterdir():
            if ours.fullmatch(path.name):
                with suppress(OSError):  # somebody else's, or being written
                    _remove_leftover(path)


def _remove_leftover(path: Path) -> None:
    if sys.platform == "win32":
        path.unlink()  # fails as long as somebody has it open
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and _lock(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether nobody else has locked the file; the system forgets that when this process ends. Raises OSError."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
