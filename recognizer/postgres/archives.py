"""Dumps of a database: what pg_dump writes, byte by byte, and the SQL that pg_restore makes of it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Protocol

from recognizer.errors import BackupError
from recognizer.gallery.restore import Position, Rows
from recognizer.host.processes import KILL, spawn
from recognizer.postgres import programs
from recognizer.postgres.cluster import ENVIRONMENT, tail

STALL_SECONDS = 600.0
"""A program that moves no byte for so long has hung: killed."""

_CHUNK_BYTES = 2**20
_END_SECONDS = 60.0
_COPY = re.compile(rb'COPY \S+\."?(\w+)"? \((.+)\) FROM stdin;')
_SETVAL = re.compile(rb"""SELECT pg_catalog\.setval\('\S+\."?(\w+)"?', (\d+), (true|false)\);""")
_HOMES = ("HOME", "APPDATA")  # where libpq looks for certificates


def dump(dsn: str, password: str, schema: str, snapshot: str, write: Callable[[bytes], object]) -> None:
    """Hand a dump in pg_dump's custom format to `write`, piece by piece; whatever that raises ends it.

    Args:
        dsn: where to connect; no secret may be in it, for every user sees the command line.
        snapshot: the state of the database to dump, exported by an open transaction.

    Raises:
        BackupError: pg_dump failed, or hung; the message says what it said.
    """
    quoted = schema.replace('"', '""')
    options = ["--format=custom", "--compress=1", "--encoding=UTF8", "--no-owner", "--no-password"]
    options += [f'--schema="{quoted}"', f"--snapshot={snapshot}", "--lock-wait-timeout=60s", f"--dbname={dsn}"]
    connecting = {name: value for name, value in os.environ.items() if name.startswith("PG") or name in _HOMES}
    secret = {"PGPASSWORD": password} if password else {}
    with _running("pg_dump", options, {**connecting, **secret}) as (process, moved):
        assert process.stdout
        while chunk := process.stdout.read(_CHUNK_BYTES):
            moved()
            write(chunk)


@contextmanager
def as_sql(archive: Readable) -> Iterator[IO[bytes]]:
    """The data of a dump as lines of SQL, all of which the block has to read.

    Raises:
        BackupError: the dump is damaged, or made by a newer pg_dump.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    with _running("pg_restore", ["--data-only", "--file=-"], {}, stdin=subprocess.PIPE) as (process, moved):
        assert process.stdin and process.stdout
        wrong: list[Exception] = []
        feeder = threading.Thread(target=_feed, args=(archive, process.stdin, moved, wrong), daemon=True)
        feeder.start()
        try:
            yield process.stdout
        finally:
            process.stdout.close()  # where the block has failed, pg_restore and the feeder end by that
            feeder.join(_END_SECONDS)
            if wrong:
                raise wrong[0]


def parts(sql: IO[bytes]) -> Iterator[Rows | Position]:
    """What is in the lines of `as_sql`, in their order. The rows of a table have to be read before the next part."""
    while line := sql.readline():
        if found := _COPY.match(line):
            table, columns = found[1].decode(), found[2].decode().replace('"', "").split(", ")
            yield Rows(table, columns, _Block(sql))
        elif found := _SETVAL.match(line):
            yield Position(found[1].decode(), int(found[2]), found[3] == b"true")


class Readable(Protocol):
    """A file, as far as it is needed here."""

    def read(self, size: int = -1, /) -> bytes:
        """Some more of it; empty at the end."""


class _Block:
    """The lines of a COPY up to its end; `read` gives one at a time, whatever size is wanted."""

    def __init__(self, sql: IO[bytes]) -> None:
        self._sql, self._ended = sql, False

    def read(self, _size: int = -1, /) -> bytes:
        """The next row, empty after the last."""
        return self.readline()

    def readline(self, _size: int = -1, /) -> bytes:
        """The same."""
        line = b"" if self._ended else self._sql.readline()
        self._ended = not line or line.rstrip(b"\r\n") == b"\\."
        return b"" if self._ended else line


def _feed(archive: Readable, pipe: IO[bytes], moved: Callable[[], None], wrong: list[Exception]) -> None:
    """Give the whole archive to pg_restore, which may have enough before the end."""
    try:
        with suppress(BrokenPipeError), pipe:
            while chunk := archive.read(_CHUNK_BYTES):
                moved()
                pipe.write(chunk)
        while archive.read(_CHUNK_BYTES):  # to the end: what was read is checked there
            pass
    except (OSError, zipfile.BadZipFile) as error:
        wrong.append(error)


@contextmanager
def _running(
    program: str, options: list[str], environment: dict[str, str], stdin: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], None]]]:
    """A program of PostgreSQL and what to call whenever it has moved; it ends with the block, and must end well."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = spawn(
                [programs.find(None) / program, *options],
                death_signal=KILL,
                environment={**ENVIRONMENT, **environment},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=errors,
                own_console=True,
            )
        except OSError as error:
            raise BackupError(f"{program} cannot be run: {error}.") from error
        with process, _Watch(process) as watch:
            try:
                yield process, watch.moved
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                watch.stalled = True
            finally:
                process.kill()
        if watch.stalled:
            raise BackupError(f"{program} hung and was stopped. {tail(errors)}")
        if process.returncode:
            raise BackupError(f"{program} failed (exit code {process.returncode}). {tail(errors)}")


class _Watch:
    """Kills a process that nothing was read from or given to for a while."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._moved = self.stalled = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def moved(self) -> None:
        """It is alive."""
        self._moved = True

    def _look(self) -> None:
        while not self._over.wait(STALL_SECONDS):
            if not self._moved:
                self.stalled = True
                self._process.kill()
                return
            self._moved = False
