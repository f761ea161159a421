"""Takes what was erased out of PostgreSQL's files too: dead rows, indexes, statistics, messages, the log of writes.

An erased row stays in the files until something is written over it. So each table is written anew (VACUUM FULL), which
also makes its indexes anew; then what PostgreSQL had learned of it, in which there are names, ids and embeddings; and
then the write-ahead log goes on in files that were never used, and the old ones are deleted. The service goes on, but
nobody can use a table while it is being written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Composable, Identifier

from recognizer.deadline import Deadline
from recognizer.errors import StartupError
from recognizer.gallery import audit, template_index
from recognizer.gallery.direct import autocommit_connection, direct_connection
from recognizer.gallery.inventory import tables_there
from recognizer.gallery.restore import INDEX_MEMORY

TURN_SECONDS = 600.0
"""How long to try to get a table, or to wait for older transactions."""

LOCK_MILLISECONDS = 1500
"""How long everybody may have to wait behind us while we wait for one table."""

ONLY_ADDED_TO = ("audit", "schema_migrations")
"""Nothing is ever deleted from these, and they hold nothing of anybody."""

STATISTICS = SQL("pg_catalog.pg_statistic")

OLDER = """
    SELECT count(*) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
      AND age(backend_xmin) >= age(%s::text::xid)
"""

# ANALYZE leaves what it knows of a table that has become empty
REMEMBERED = """
    SELECT stats.attname, format_type(atttypid, atttypmod)
    FROM pg_stats AS stats JOIN pg_attribute AS att ON att.attrelid = %s::text::regclass AND att.attname = stats.attname
    WHERE schemaname = current_schema() AND tablename = %s AND attgenerated = ''
      AND (most_common_vals IS NOT NULL OR histogram_bounds IS NOT NULL)
"""

MESSAGE_CHANNEL = "recognizer_scrub"
MESSAGES = 80
"""So many of 7,900 bytes fill more than two files of 256 KB, after which PostgreSQL deletes those before."""

STILL_THERE = re.compile(r"(\d+) dead row versions cannot be removed yet")

LATER_FILES = """
    SELECT count(*) FROM pg_ls_waldir()
    WHERE name > pg_walfile_name(pg_current_wal_lsn()) AND name ~ '^[0-9A-F]{24}$'
"""


class Rewritten(NamedTuple):
    """A table that was written anew, and what is left in it that should not be."""

    table: str
    bytes_before: int
    bytes_after: int
    seconds: float
    dead_rows: int


class Report(NamedTuple):
    """What was done; `remaining` says in sentences what was not."""

    tables: list[Rewritten]
    remaining: list[str]


def scrub(url: str, limit_seconds: float, tell: Callable[[Rewritten], object]) -> Report:
    """Write everything anew that may still have something of erased people in it; `tell` hears of each table.

    Raises:
        StartupError: somebody kept a table, or an old state of the database, for ten minutes.
        DatabaseUnavailable: no answer, or not done within `limit_seconds`.
    """
    deadline = Deadline(limit_seconds)
    remaining: list[str] = []
    with autocommit_connection(url, deadline) as connection, connection.cursor() as cursor:
        for name, value in (("statement_timeout", "0"), ("maintenance_work_mem", INDEX_MEMORY)):
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", (str(LOCK_MILLISECONDS),))
        if not template_index.take_turn(cursor):
            raise StartupError(
                "An import is bringing very many people in, or the index of the templates is being made; run "
                "`recognizer scrub` when that is over."
            )
        _wait_for_older_states(cursor)
        tables = []
        for table in tables_there(cursor):
            if table not in ONLY_ADDED_TO:
                tables.append(_rewritten(cursor, table))
                tell(tables[-1])
        remaining += [_kept(each) for each in tables if each.dead_rows]
        if not _rewrite(cursor, STATISTICS):
            remaining.append("PostgreSQL's statistics: only the owner of the database may write them anew.")
        _push_messages_out(cursor)
        remaining += _renew_log(cursor)
    with direct_connection(url, deadline) as connection, connection.cursor() as cursor:
        audit.append(cursor, "scrubbed", complete=not remaining)
    return Report(tables, remaining)


def _wait_for_older_states(cursor: Cursor) -> None:
    """Whoever sees the database as it was before the erasures keeps what was erased; such as a backup being made."""
    cursor.execute("SELECT pg_current_xact_id()::text")
    ((now,),) = cursor.fetchall()
    patience = Deadline(TURN_SECONDS)
    while True:
        cursor.execute(OLDER, (str(int(now) % 2**32),))
        if cursor.fetchall() == [(0,)]:
            return
        if not patience.remaining_seconds():
            raise StartupError(
                "Somebody works with an old state of the database, such as a backup; scrub again when that is done."
            )
        time.sleep(0.2)


def _rewritten(cursor: Cursor, table: str) -> Rewritten:
    name = Identifier(table)
    began, before = time.monotonic(), _size(cursor, table)
    cursor.connection.notices.clear()
    _rewrite(cursor, name)
    found = STILL_THERE.search("".join(cursor.connection.notices))
    cursor.execute(SQL("SELECT EXISTS (SELECT FROM {})").format(name))
    if cursor.fetchall() == [(True,)]:
        _patiently(cursor, SQL("ANALYZE {}").format(name), table)
    else:
        _forget(cursor, table)
    dead_rows = int(found[1]) if found else 0
    return Rewritten(table, before, _size(cursor, table), time.monotonic() - began, dead_rows)


def _kept(table: Rewritten) -> str:
    return f"{table.dead_rows:,} erased rows of {table.table}: an older transaction keeps them; try again later."


def _rewrite(cursor: Cursor, table: Composable) -> bool:
    """Write a table and its indexes anew; False where the role may not, which is only a warning of PostgreSQL's."""
    cursor.connection.notices.clear()
    _patiently(cursor, SQL("VACUUM (FULL, VERBOSE) {}").format(table), table.as_string(cursor))
    return not any(notice.startswith("WARNING") for notice in cursor.connection.notices)


def _patiently(cursor: Cursor, statement: Composable, table: str) -> None:
    """Run what needs a table for itself; never let others wait long behind us while it is in use."""
    patience = Deadline(TURN_SECONDS)
    while True:
        try:
            cursor.execute(statement)
            return
        except errors.LockNotAvailable as error:
            if not patience.remaining_seconds():
                raise StartupError(
                    f"{table} was in use for {TURN_SECONDS:.0f} seconds; scrub again at a quieter time."
                ) from error
        time.sleep(1.0)  # so that those who waited behind us come first


def _forget(cursor: Cursor, table: str) -> None:
    """Remove what PostgreSQL knows of a table without rows, by giving its columns the type that they have."""
    cursor.execute(REMEMBERED, (f'"{table}"', table))
    for column, type_name in cursor.fetchall():
        change = SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}")
        _patiently(cursor, change.format(Identifier(table), Identifier(column), SQL(type_name)), table)


def _size(cursor: Cursor, table: str) -> int:
    cursor.execute("SELECT pg_total_relation_size(%s::text::regclass)", (f'"{table}"',))
    return int(cursor.fetchall()[0][0])


def _push_messages_out(cursor: Cursor) -> None:
    """News that went to listeners, names among them, stays in PostgreSQL's queue until others follow."""
    fill = "SELECT pg_notify(%s, lpad(number::text, 7900, '.')) FROM generate_series(1, %s) AS number"
    for _ in range(2):  # the second time it finds the first ones done with
        cursor.execute(fill, (MESSAGE_CHANNEL, MESSAGES))


def _renew_log(cursor: Cursor) -> list[str]:
    """Go on with the log of writes in a fresh file, and delete those before; what is in the way, in a sentence."""
    try:
        _next_file(cursor)
        cursor.execute("CHECKPOINT")
        cursor.execute(LATER_FILES)  # files of before that wait to be used once more
        ((waiting,),) = cursor.fetchall()
        for _ in range(waiting + 1):
            _next_file(cursor)
        cursor.execute("CHECKPOINT")
    except errors.InsufficientPrivilege:
        return [
            "The write-ahead log, until PostgreSQL has used its files again: the role may not change files or make a "
            "checkpoint. docs/operations.md says what to grant it."
        ]
    return []


def _next_file(cursor: Cursor) -> None:
    cursor.execute("SELECT pg_logical_emit_message(false, 'recognizer', 'scrub')")  # an empty file is not left
    cursor.execute("SELECT pg_switch_wal()")
