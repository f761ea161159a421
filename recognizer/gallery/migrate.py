"""Brings the database's schema up to date: numbered SQL files, each applied once, by one process at a time.

docs/adr/0003-migrations.md says why this is not done by a library.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Collection
from importlib import resources
from typing import NamedTuple

from psycopg2 import errors
from psycopg2.extensions import connection as PlainConnection
from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import DatabaseUnavailable, StartupError
from recognizer.gallery.direct import direct_connection

MIN_POSTGRESQL = 15
MIN_PGVECTOR = (0, 8)

LOCK_ID = 0x7265636F676E697A  # any number, as long as it stays the same
TURN_PAUSE_SECONDS = 0.1

TABLES = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)

TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        name       text PRIMARY KEY,
        sha256     bytea NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""


class Migration(NamedTuple):
    """One SQL file: its name without `.sql`, and its text with plain line ends."""

    name: str
    sql: str

    @property
    def sha256(self) -> bytes:
        """What tells whether the file was changed after it had been applied."""
        return hashlib.sha256(self.sql.encode()).digest()


def migrate(url: str, deadline_seconds: float) -> list[str]:
    """Apply what is missing, all of it or nothing, and return the names of what was applied.

    Processes that start at once take turns; one that is killed leaves nothing behind. A database that
    is not there yet is waited for.

    Raises:
        StartupError: PostgreSQL or pgvector is missing or too old, or the schema is not this program's.
        ConfigError: the URL cannot be understood.
        DatabaseUnavailable: no answer, or no turn, within `deadline_seconds`.
    """
    deadline = Deadline(deadline_seconds)
    with direct_connection(url, deadline) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")  # after a wait, see what others have done
        take_turn(cursor, deadline)
        return bring_up_to_date(cursor)


def take_turn(cursor: Cursor, deadline: Deadline) -> None:
    """Look at the server, and wait until nobody else changes the schema; the turn ends with the transaction.

    Raises:
        StartupError: PostgreSQL or pgvector is missing or too old.
        DatabaseUnavailable: somebody else had the turn until the deadline.
    """
    _check_server(cursor)
    _wait_for_turn(cursor, deadline)


def bring_up_to_date(cursor: Cursor, only: Collection[str] | None = None) -> list[str]:
    """Apply what is missing, or those of it that are named, and return the names of what was applied.

    The caller has the turn. Raises StartupError as `migrate` does.
    """
    cursor.execute(TABLE)
    missing = [each for each in _missing(cursor, known_migrations()) if only is None or each.name in only]
    for migration in missing:
        _apply(cursor, migration)
    return [migration.name for migration in missing]


def known_tables() -> list[str]:
    """The names of all tables that this program's migrations make, whether or not they are there now."""
    made = (name for migration in known_migrations() for name in TABLES.findall(migration.sql))
    return ["schema_migrations", *dict.fromkeys(made)]


def pending(connection: PlainConnection) -> list[str]:
    """The names of the migrations that the database lacks; cheap enough for a readiness check.

    A newer schema lacks nothing: while a new version is being rolled out, the old one goes on working.
    """
    names = [migration.name for migration in known_migrations()]
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
        if cursor.fetchone() == (False,):
            return names
        cursor.execute("SELECT name FROM schema_migrations")
        applied = {name for (name,) in cursor.fetchall()}
    return [name for name in names if name not in applied]


def known_migrations() -> list[Migration]:
    """The migrations that came with this program, in their order."""
    folder = resources.files("recognizer.gallery") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")) for file in files]


def _missing(cursor: Cursor, known: list[Migration]) -> list[Migration]:
    cursor.execute("SELECT name, sha256 FROM schema_migrations ORDER BY name")
    applied = {name: bytes(sha256) for name, sha256 in cursor.fetchall()}
    if newer := applied.keys() - {migration.name for migration in known}:
        raise StartupError(
            f"The database was made by a newer version of this program (it has {max(newer)}); start that version."
        )
    for migration in known:
        if applied.get(migration.name, migration.sha256) != migration.sha256:
            raise StartupError(
                f"Migration {migration.name} was changed after the database had been made with it; "
                "restore the file and put the change into a new migration."
            )
    return [migration for migration in known if migration.name not in applied]


def _apply(cursor: Cursor, migration: Migration) -> None:
    try:
        cursor.execute(migration.sql)
    except errors.InsufficientPrivilege as error:
        raise StartupError(
            f"The database's user may not apply {migration.name}: it must own the database, and the extension "
            "must be there (as a superuser: CREATE EXTENSION vector)."
        ) from error
    cursor.execute("INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)", (migration.name, migration.sha256))


def _wait_for_turn(cursor: Cursor, deadline: Deadline) -> None:
    """Take the lock; it ends with the transaction, and so with this process, however it dies."""
    while True:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK_ID,))
        if cursor.fetchone() == (True,):
            return
        if deadline.remaining_seconds() <= TURN_PAUSE_SECONDS:
            raise DatabaseUnavailable("Another process is changing the database's schema; try again when it is done.")
        time.sleep(TURN_PAUSE_SECONDS)


def _check_server(cursor: Cursor) -> None:
    version = cursor.connection.server_version // 10000
    if version < MIN_POSTGRESQL:
        raise StartupError(f"PostgreSQL {version} is too old; version {MIN_POSTGRESQL} or later is needed.")
    cursor.execute("SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'vector'")
    versions = cursor.fetchone()
    if versions is None:
        raise StartupError("The PostgreSQL server lacks pgvector; install version 0.8 or later on it.")
    installed, available = versions
    if _numbers(installed or available) < MIN_PGVECTOR:
        update = _numbers(available) >= MIN_PGVECTOR
        remedy = "run ALTER EXTENSION vector UPDATE in it" if update else "install version 0.8 or later on its server"
        raise StartupError(f"The database has pgvector {installed or available}, which is too old; {remedy}.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
