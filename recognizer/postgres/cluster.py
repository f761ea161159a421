"""The files of the bundled PostgreSQL: its folders, secret, database and access rules, made once and checked after.

<data-dir>/database-password   0600, ours: what the service connects with
<data-dir>/postgres/           0700, of the account PostgreSQL runs as, with
    granted  that the service's role has what `scrub` needs
    data/  PGDATA              run/  its socket              log/  its log, one file for each weekday
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from recognizer.errors import StartupError
from recognizer.host import datadir
from recognizer.host.account import Account, database_account
from recognizer.host.processes import KILL, spawn
from recognizer.partial_file import sync_folder
from recognizer.postgres import programs

ROLE = DATABASE = "recognizer"
_INITDB_SECONDS = 120
_SQL_SECONDS = 60  # may include the recovery after a crash
_HERE = Path("/proc/self/cwd")
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
if os.name == "nt":  # no program can open a socket, nor initdb call postgres, without these
    _needed = ("PATH", "SystemRoot", "SystemDrive", "ComSpec", "TEMP", "TMP")
    ENVIRONMENT |= {name: os.environ[name] for name in _needed if name in os.environ}

_INITDB = (
    "--username=postgres",
    "--encoding=UTF8",
    "--locale=C",
    "--data-checksums",
    "--auth=reject",
    "--no-instructions",
    # for a small machine; the operator may change them later in postgresql.conf
    *("-c", "shared_buffers=64MB", "-c", "maintenance_work_mem=64MB"),
    *("-c", "min_wal_size=32MB", "-c", "max_wal_size=256MB"),
    *("-c", "jit=off"),
    *("-c", "max_parallel_maintenance_workers=0"),  # containers have little /dev/shm
)
_INITDB_SINCE_18 = (
    "--locale-provider=builtin",  # sorts and folds case the same on every machine, without its locales
    "--builtin-locale=C.UTF-8",
    *("-c", "io_method=sync"),
)


_GRANTS = "".join(  # what `recognizer scrub` needs to empty the write-ahead log
    f"{grant} TO {ROLE};\n"
    for grant in (
        "GRANT pg_checkpoint",
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal()",
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir()",
    )
)


class Cluster:
    """One PGDATA and what belongs to it. Call `prepare()` before anything else."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._root = self._data_dir / "postgres"
        self._password_file = self._data_dir / "database-password"
        self._granted = self._root / "granted"
        self._programs = Path()
        self.account: Account | None = None
        self.data = self._root / "data"
        self.run = self._root / "run"
        self.log = self._root / "log"

    def prepare(self) -> None:
        """Make what is missing. An interrupted initialization is done again from the start.

        Raises:
            StartupError: it cannot be made, or was made by another user or another major version of PostgreSQL.
        """
        self.account = database_account()
        datadir.prepare(self._data_dir, self.account)
        self._programs = programs.find(self.account)
        try:
            for folder in (self._root, self.run, self.log):
                self._folder(folder)
            fresh_password = not self._password_file.exists()
            if fresh_password:
                datadir.write_private(self._password_file, secrets.token_urlsafe(32))
            made = not self.data.exists()
            if made:
                self._initialize()
            else:
                self._check_version()
            self._grant(made)
        except OSError as error:
            raise StartupError(
                f"The database below {self._root} cannot be prepared: {error.strerror or error}."
            ) from error
        if fresh_password and not made:
            self._sql(self.data, DATABASE, f"ALTER ROLE {ROLE} PASSWORD '{self.password()}';")

    def password(self) -> str:
        """The secret of the role the service uses.

        Raises:
            StartupError: it cannot be read.
        """
        try:
            return self._password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise StartupError(
                f"The database password {self._password_file} cannot be read: {error.strerror}."
            ) from error

    def program(self, name: str) -> Path:
        """The path of `postgres`, `initdb`, `pg_dump` or `pg_restore`."""
        return self._programs / name

    def as_named_to_postgres(self, data: Path) -> Path:
        """What to call PGDATA on the command line of a program that is started in it.

        Its account may not be able to pass through the folders above (a data directory below /root, say): it is
        put there by us and goes on from where it is, and nobody's permissions have to be changed.
        """
        return _HERE if self.account else data

    def write_access_rules(self, over_tcp: bool) -> None:
        """Admit the service's role to its database with its password, and nobody else, the superuser included.

        Raises:
            StartupError: the rules cannot be written.
        """
        connection = "host" if over_tcp else "local"
        address = "127.0.0.1/32" if over_tcp else ""
        rule = f"{connection} {DATABASE} {ROLE} {address} scram-sha-256\n"
        rules = self.data / "pg_hba.conf"
        try:
            datadir.write_private(rules, rule, self.account)
        except OSError as error:
            raise StartupError(f"{rules} cannot be written: {error.strerror}.") from error

    def _folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.account is None or sys.platform == "win32":
            return
        owner = folder.lstat().st_uid
        if owner == 0:
            os.chown(folder, self.account.uid, self.account.gid, follow_symlinks=False)
        elif owner != self.account.uid:
            raise StartupError(
                f"{folder} belongs to the user with id {owner}, not to `{self.account.name}` "
                f"(id {self.account.uid}); give it back with chown -R, or choose another data directory."
            )

    def _check_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != str(programs.MAJOR):
            raise StartupError(
                f"The database in {self.data} was written by PostgreSQL {found}, this release brings "
                f"{programs.MAJOR}. Dump it with the release that wrote it and restore it here, "
                "or choose another data directory."
            )

    def _grant(self, made: bool) -> None:
        """Give the service's role what a later version came to need, once; a file remembers it."""
        if not made and not self._granted.exists():
            self._sql(self.data, DATABASE, _GRANTS)
        if not self._granted.exists():
            datadir.write_private(self._granted, "pg_checkpoint, pg_switch_wal, pg_ls_waldir\n", self.account)

    def _initialize(self) -> None:
        """Build a whole cluster under a passing name and rename it: `data` exists complete or not at all."""
        for leftover in self._root.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=self._root))
        self._folder(fresh)
        options = [*_INITDB, *(_INITDB_SINCE_18 if programs.MAJOR >= 18 else ())]
        self._tool("initdb", fresh, ["--pgdata", self.as_named_to_postgres(fresh), *options], b"", _INITDB_SECONDS)
        self._sql(
            fresh,
            "template1",
            f"CREATE ROLE {ROLE} LOGIN PASSWORD '{self.password()}';\n"
            f"CREATE DATABASE {DATABASE} OWNER {ROLE};\n"
            "ALTER ROLE postgres NOLOGIN;\n",
        )
        self._sql(fresh, DATABASE, f"CREATE EXTENSION vector;\n{_GRANTS}")
        fresh.rename(self.data)
        sync_folder(self._root)

    def _sql(self, data: Path, database: str, statements: str) -> None:
        """Run statements, one on each line, in a single-user server: the only door the superuser has."""
        quiet = ["-c", "log_min_error_statement=panic", "-c", "log_min_messages=error"]
        named = self.as_named_to_postgres(data)
        arguments: list[str | Path] = ["--single", "-D", named, "-c", "exit_on_error=on", *quiet, database]
        self._tool("postgres", data, arguments, statements.encode(), _SQL_SECONDS)

    def _tool(self, name: str, data: Path, arguments: list[str | Path], stdin: bytes, seconds: float) -> None:
        with tempfile.TemporaryFile() as errors:
            try:
                process = spawn(
                    [self.program(name), *arguments],
                    death_signal=KILL,  # a half-made cluster is thrown away, a crashed one recovers
                    environment=ENVIRONMENT,
                    account=self.account,
                    folder=data,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    own_console=True,
                )
            except OSError as error:
                raise StartupError(f"{name} cannot be run: {error}.") from error
            try:
                process.communicate(stdin, timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)
                raise StartupError(f"{name} did not finish within {seconds:g} seconds. {tail(errors)}") from None
            if process.returncode != 0:
                raise StartupError(f"{name} failed (exit code {process.returncode}). {tail(errors)}")


def tail(file: IO[bytes], lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 4096))
    text = file.read().decode("utf-8", "replace").strip().splitlines()
    return "It said:\n" + "\n".join(text[-lines:]) if text else "It said nothing."
