"""One state of the whole database, held while pg_dump reads it, and what a backup has to say about itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import make_dsn
from psycopg2.sql import SQL, Identifier

from recognizer.deadline import Deadline
from recognizer.errors import StartupError
from recognizer.gallery import audit
from recognizer.gallery.connection import connection_arguments
from recognizer.gallery.direct import direct_connection
from recognizer.gallery.migrate import known_tables
from recognizer.gallery.resealing import SEALED

THERE = """
    SELECT relname FROM pg_class
    WHERE relname = ANY (%s) AND relnamespace = current_schema()::regnamespace AND relkind = 'r'
    ORDER BY relname
"""


class Snapshot(NamedTuple):
    """What is in the database in one state; `name` lets another connection see the same state."""

    name: str
    at: datetime
    schema: str
    server_version: int
    database_bytes: int
    migrations: dict[str, str]
    rows: dict[str, int]
    encryption_keys: list[str]


class Target(NamedTuple):
    """How a program of PostgreSQL is told where to connect: on its command line, and in its environment."""

    dsn: str
    password: str


@contextmanager
def snapshot(url: str, deadline: Deadline) -> Iterator[Snapshot]:
    """Hold a state of the database for as long as the block lasts.

    Raises:
        DatabaseUnavailable: no answer, or the block outlasted the deadline.
    """
    with direct_connection(url, deadline) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("SELECT pg_export_snapshot(), now(), current_schema(), pg_database_size(current_database())")
        ((name, at, schema, size),) = cursor.fetchall()
        cursor.execute("SELECT name, encode(sha256, 'hex') FROM schema_migrations ORDER BY name")
        migrations = dict(cursor.fetchall())
        rows = {table: count(cursor, table) for table in tables_there(cursor)}
        keys = _key_ids(cursor, rows)
        yield Snapshot(name, at, schema, connection.server_version, size, migrations, rows, keys)


def tables_there(cursor: Cursor) -> list[str]:
    """Those of the program's tables that the database has."""
    cursor.execute(THERE, (known_tables(),))
    return [table for (table,) in cursor.fetchall()]


def count(cursor: Cursor, table: str) -> int:
    """How many rows a table has."""
    cursor.execute(SQL("SELECT count(*) FROM {}").format(Identifier(table)))
    return int(cursor.fetchall()[0][0])


def _key_ids(cursor: Cursor, rows: dict[str, int]) -> list[str]:
    found: set[str] = set()
    for sealed in SEALED:
        if rows.get(sealed.table):
            find = SQL("SELECT DISTINCT {id} FROM {table} WHERE {id} IS NOT NULL")
            cursor.execute(find.format(id=SQL(sealed.key_id), table=Identifier(sealed.table)))
            found |= {key_id for (key_id,) in cursor.fetchall()}
    return sorted(found)


def target(url: str) -> Target:
    """The database's URL without its password, which no other user of this machine may see, and the password."""
    arguments = connection_arguments(url)
    password = arguments.pop("password", "")
    if "sslpassword" in arguments:
        raise StartupError("pg_dump takes no sslpassword; name a key file without a password in `database_url`.")
    return Target(make_dsn(**arguments), password)


def note(url: str, deadline: Deadline, people: int) -> None:
    """Tell the audit trail that everything was copied; raises DatabaseUnavailable."""
    with direct_connection(url, deadline) as connection, connection.cursor() as cursor:
        audit.append(cursor, "backed_up", people=people)
