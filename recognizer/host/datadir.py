"""The data directory: who may enter it, and the lock that keeps a second service out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from recognizer.errors import StartupError
from recognizer.host.account import Account
from recognizer.partial_file import sync_folder

LOCK = "lock"
HOLDER = "running.json"
_OURS = {LOCK, HOLDER, "postgres", "models", "metrics", "database-password", "encryption-keys", "audit-head"}
"""What the service makes there. A folder that holds anything else is somebody's: it keeps its permissions."""

# The folder's owner, SYSTEM and the administrators, by the ids they have on every Windows in every language.
_WINDOWS_ACCESS = ("*S-1-3-4:(OI)(CI)F", "*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F")
_ICACLS_SECONDS = 30


class AlreadyRunning(StartupError):
    """Another process works on this data directory."""

    code: ClassVar[str] = "already_running"


def prepare(path: Path, account: Account | None = None) -> None:
    """Create the data directory, or check the one that is there; it is never opened to anybody else.

    It is ours alone (0700); with an `account`, root owns it and that account may pass through (0710). A folder
    that holds other things keeps its permissions, and so does everything above it. On Windows an empty folder is
    made ours alone, one that holds something keeps its permissions.

    Raises:
        StartupError: it cannot be made, or others own it or write to it.
    """
    try:
        _prepare(path, account)
    except OSError as error:
        reason = error.strerror or error
        raise StartupError(f"The data directory {path} cannot be used: {reason} ({error.filename}).") from error


def _prepare(path: Path, account: Account | None) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = os.listdir(path)
    if sys.platform == "win32":
        if not content:
            _restrict_on_windows(path)
    else:
        _check_owner(path)
        if set(content) <= _OURS:
            _restrict(path, account)
        elif path.stat().st_mode & 0o022:
            raise StartupError(f"Other users can write to {path}, which is not empty; choose another data directory.")


def _check_owner(path: Path) -> None:
    if sys.platform == "win32":
        return  # only the access list counts there
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise StartupError(
            f"The data directory {path} belongs to the user with id {owner}, this is the user with id "
            f"{os.geteuid()}. Start as its owner, or choose another one with --data-dir."
        )


def _restrict(path: Path, account: Account | None) -> None:
    if account is None:
        path.chmod(path.stat().st_mode & 0o700)
    elif sys.platform != "win32":
        os.chown(path, 0, account.gid)
        path.chmod(0o710)


def _restrict_on_windows(path: Path) -> None:
    """What a mode of 0700 means there; new versions of Python do the same to a folder they make with that mode."""
    command = ["icacls", str(path), "/inheritance:r", "/grant:r", *_WINDOWS_ACCESS, "/q"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ICACLS_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise StartupError(f"icacls did not finish within {_ICACLS_SECONDS} seconds for {path}.") from None
    if done.returncode != 0:
        raise StartupError(
            f"The data directory {path} cannot be closed to other users: {done.stderr.strip() or done.returncode}. "
            "Choose a folder on a disk with NTFS."
        )


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Replace `path` atomically and durably by a file with mode 0600 that belongs to `account` (default: us).

    Never follows a symbolic link at `path`: its folder may belong to a less trusted account.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if account is not None and sys.platform != "win32":
                os.fchown(file.fileno(), account.uid, account.gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextmanager
def locked(path: Path, address: str | None, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the data directory; `address` is where this process will listen, None for a command.

    Raises:
        AlreadyRunning: another process holds it; the message names its process and address.
        StartupError: the lock file cannot be made.
    """
    lock = FileLock(path / LOCK, timeout=wait_seconds, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise AlreadyRunning(_occupied(path)) from None
    except OSError as error:
        raise StartupError(f"The data directory {path} cannot be locked: {error.strerror}.") from error
    try:
        with suppress(OSError):  # the file only informs; the lock decides
            write_private(path / HOLDER, json.dumps({"pid": os.getpid(), "address": address}))
        yield
    finally:
        with suppress(OSError):
            (path / HOLDER).unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> tuple[int | None, str | None]:
    """Process id and address of whoever holds the lock, as far as it has said so."""
    try:
        content = json.loads((path / HOLDER).read_text(encoding="utf-8"))
        return content["pid"], content["address"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def _occupied(path: Path) -> str:
    pid, address = holder(path)
    process = f"process {pid}" if pid else "another process"
    where = f", listening on {address}" if address else ""
    return f"The data directory {path} is in use by {process}{where}. Stop it first, or use another --data-dir."
