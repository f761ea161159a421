"""A whole database from a backup, in one transaction: whatever ends it half-way leaves what there was.

The tables are made by this program's own migrations, those that the backup's database had; only rows come from the
backup. So nothing in it is ever run as SQL, no extension has to be made or dropped, and PostgreSQL may be another
version. What was made by an older program is brought up to date at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple, Protocol

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Composed, Identifier

from recognizer.deadline import Deadline
from recognizer.errors import BackupError
from recognizer.gallery import audit
from recognizer.gallery.connection import is_unavailability
from recognizer.gallery.direct import direct_connection
from recognizer.gallery.inventory import count, tables_there
from recognizer.gallery.migrate import bring_up_to_date, known_migrations, take_turn

INDEX_MEMORY = "512MB"
"""What building an index may take: 64 MB, PostgreSQL's own, are too little from about 69,000 people on."""

ALWAYS_FILLED = ("schema_migrations", "audit_head")

OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
"""

# What slows the loading of rows, or keeps them out until all are there: statements that take it away and make it again.
LATER = """
    SELECT format('ALTER TABLE %%I DROP CONSTRAINT %%I', relname, conname),
           format('ALTER TABLE %%I ADD CONSTRAINT %%I %%s', relname, conname, pg_get_constraintdef(rule.oid)), 1
    FROM pg_constraint AS rule JOIN pg_class ON pg_class.oid = conrelid
    WHERE contype = 'f' AND relnamespace = current_schema()::regnamespace AND relname = ANY (%(tables)s)
    UNION ALL
    SELECT format('DROP INDEX %%s', indexrelid::regclass), pg_get_indexdef(indexrelid), 0
    FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
    WHERE relnamespace = current_schema()::regnamespace AND relname = ANY (%(tables)s)
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    ORDER BY 3
"""


class Lines(Protocol):
    """As much of a file as COPY needs."""

    def read(self, size: int = -1, /) -> bytes:
        """Some more of it; empty at the end."""

    def readline(self, size: int = -1, /) -> bytes:
        """The next line of it; empty at the end."""


class Rows(NamedTuple):
    """The rows of one table in a backup, in the text format of COPY."""

    table: str
    columns: Sequence[str]
    source: Lines


class Position(NamedTuple):
    """How far a sequence of numbers had come."""

    sequence: str
    last: int
    used: bool


class Plan(NamedTuple):
    """What a backup says that there is in it: migrations with their hashes, and rows in each table."""

    made_at: datetime
    migrations: Mapping[str, str]
    rows: Mapping[str, int]


def check_known(migrations: Mapping[str, str]) -> None:
    """See whether a database with these migrations is one that this program knows.

    Raises:
        BackupError: a newer program made it, or another one.
    """
    known = {migration.name: migration.sha256.hex() for migration in known_migrations()}
    if newer := migrations.keys() - known.keys():
        raise BackupError(
            f"The backup was made by a newer version of this program (it has {max(newer)}); restore it with that one."
        )
    for name, sha256 in migrations.items():
        if known[name] != sha256:
            raise BackupError(f"The backup was made with another {name} than this program has; use the program's own.")


def restore(
    url: str,
    plan: Plan,
    content: Iterator[Rows | Position],
    *,
    replace: bool,
    limit_seconds: float,
) -> list[str]:
    """Put the content of a backup into the database, and return the migrations that were applied to it.

    Args:
        replace: take the place of what is there.

    Raises:
        BackupError: there is something already, somebody else works with the database, or the backup's rows are not
            those that it tells of.
        DatabaseUnavailable: no answer, or not done within `limit_seconds`.
    """
    deadline = Deadline(limit_seconds)
    with direct_connection(url, deadline) as connection, connection.cursor() as cursor:
        connection.set_client_encoding("UTF8")
        _take_over(cursor, deadline)
        if not replace:
            _require_empty(cursor)
        try:
            _make_tables(cursor, plan.migrations)
            _load(cursor, plan.rows, content)
        except errors.DiskFull as error:
            raise BackupError(
                "The database's disk has no room for what is there and for the backup at once; nothing was changed."
            ) from error
        except psycopg2.Error as error:
            if is_unavailability(error):
                raise
            # not chained: its message may quote a row
            raise BackupError(f"The database does not take the backup ({type(error).__name__}).") from None
        applied = bring_up_to_date(cursor)
        for table in tables_there(cursor):
            cursor.execute(SQL("ANALYZE {}").format(Identifier(table)))
        audit.append(cursor, "restored", backup_of=plan.made_at.isoformat(timespec="seconds"))
    return applied


def _take_over(cursor: Cursor, deadline: Deadline) -> None:
    """Be alone with the database, and have what the work takes."""
    cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    take_turn(cursor, deadline)
    cursor.execute(OTHERS)
    ((others,),) = cursor.fetchall()
    if others:
        raise BackupError(
            f"The database is in use, by {others} connections of its user; stop the service on every machine first."
        )
    cursor.execute("SELECT set_config('maintenance_work_mem', %s, true)", (INDEX_MEMORY,))
    cursor.execute("SET LOCAL lock_timeout = '10s'")
    cursor.execute("SET LOCAL statement_timeout = 0")


def _require_empty(cursor: Cursor) -> None:
    found = {table: count(cursor, table) for table in tables_there(cursor) if table not in ALWAYS_FILLED}
    if "collections" in found:
        found["collections"] -= 1  # `default`
    filled = [f"{table} {rows:,}" for table, rows in found.items() if rows > 0]
    if filled:
        raise BackupError(
            f"The database is not empty ({', '.join(filled)}); with --replace the backup takes the place of all of it."
        )


def _make_tables(cursor: Cursor, migrations: Mapping[str, str]) -> None:
    """The tables as they were when the backup was made, with nothing in them."""
    cursor.execute("SELECT current_schema()")
    ((schema,),) = cursor.fetchall()
    if tables := [Identifier(schema, table) for table in tables_there(cursor)]:  # others' schemas may have the like
        cursor.execute(SQL("DROP TABLE {}").format(SQL(", ").join(tables)))
    bring_up_to_date(cursor, only=migrations)
    tables = [Identifier(table) for table in tables_there(cursor)]
    for table in tables:
        cursor.execute(SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table))
    cursor.execute(SQL("TRUNCATE {}").format(SQL(", ").join(tables)))


def _load(cursor: Cursor, rows: Mapping[str, int], content: Iterator[Rows | Position]) -> None:
    tables = tables_there(cursor)
    loaded = dict.fromkeys(tables, 0)
    with _without_indexes(cursor, tables):
        for part in content:
            if isinstance(part, Position):
                cursor.execute("SELECT setval(%s::regclass, %s, %s)", part)
            elif part.table in loaded:
                cursor.copy_expert(_copy(part), part.source)
                loaded[part.table] += cursor.rowcount
        if loaded != dict(rows):
            wrong = [table for table in {*loaded, *rows} if loaded.get(table) != rows.get(table)]
            raise BackupError(f"The backup has not the rows that it tells of ({', '.join(sorted(wrong))}).")
    for table in tables:
        cursor.execute(SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(Identifier(table)))


def _copy(part: Rows) -> Composed:
    columns = SQL(", ").join(map(Identifier, part.columns))
    return SQL("COPY {} ({}) FROM STDIN").format(Identifier(part.table), columns)


@contextmanager
def _without_indexes(cursor: Cursor, tables: list[str]) -> Iterator[None]:
    """Foreign keys and indexes are away during the block, and made at once for all rows afterwards."""
    cursor.execute(LATER, {"tables": tables})
    later = cursor.fetchall()
    for away, _, _ in reversed(later):
        cursor.execute(away)
    yield
    for _, again, _ in later:
        cursor.execute(again)
