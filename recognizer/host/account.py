"""The system user the bundled PostgreSQL runs as when the service is started by root.

PostgreSQL refuses to run as root. An ordinary user needs no second account: `database_account()` is None.
It refuses an administrator of Windows as well, and there nobody can be put in his place.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from recognizer.errors import StartupError

USER = "recognizer"
_USERADD_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system without a login."""

    name: str
    uid: int
    gid: int

    def may(self, path: Path, wanted: int) -> bool:
        """Whether the permission bits of `path` grant `wanted` (4 read, 2 write, 1 enter or run); ignores ACLs."""
        info = path.stat()
        if info.st_uid == self.uid:
            granted = info.st_mode >> 6
        elif info.st_gid == self.gid:
            granted = info.st_mode >> 3
        else:
            granted = info.st_mode
        return granted & wanted == wanted

    def blocked_by(self, path: Path) -> Path | None:
        """The first folder on the way to `path`, as written or behind symbolic links, that it cannot enter."""
        way = [*reversed(path.absolute().parents), *reversed(path.resolve().parents)]
        return next((folder for folder in way if not self.may(folder, stat.S_IXOTH)), None)


def database_account() -> Account | None:
    """The account PostgreSQL needs, made when it is missing; None when it can run as we do.

    Raises:
        StartupError: root, and the account is missing and cannot be made; or an administrator of Windows.
    """
    if sys.platform == "win32":
        _refuse_administrator()
        return None
    if os.geteuid() != 0:
        return None
    account = _find() or _create()
    if account.uid == 0:
        raise StartupError(f"The system user `{USER}` has user id 0; PostgreSQL refuses to run as root.")
    return account


def _refuse_administrator() -> None:
    if sys.platform == "win32" and ctypes.windll.shell32.IsUserAnAdmin():
        raise StartupError(
            "PostgreSQL refuses to run with the rights of an administrator. Start the service without "
            "`Run as administrator`, as an ordinary user, or set RECOGNIZER_DATABASE_URL to a PostgreSQL of your own."
        )


def existing_account() -> Account | None:
    """The same account where root may use it and need not: None when it is missing."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    return _find()


def _find() -> Account | None:
    if sys.platform == "win32":
        return None
    import pwd

    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        return None
    return Account(USER, entry.pw_uid, entry.pw_gid)


def _create() -> Account:
    advice = (
        f"Make a system user `{USER}`, or start the service as an ordinary user, "
        "or set RECOGNIZER_DATABASE_URL to a PostgreSQL of your own."
    )
    program = shutil.which("useradd", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if program is None:
        raise StartupError(f"PostgreSQL refuses to run as root, and there is no useradd here. {advice}")
    command = [program, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    command += ["--shell", "/usr/sbin/nologin", USER]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_USERADD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartupError(f"useradd could not be run: {error}. {advice}") from error
    account = _find()  # also found when another start made it in the meantime
    if account is None:
        raise StartupError(f"useradd failed: {done.stderr.strip() or done.returncode}. {advice}")
    return account
