"""The index of the templates: away while very many people come in, made anew when they are there.

Each template that comes into an HNSW index is searched for in it, one after the other, on one core and through
PostgreSQL's buffers; the whole index is made in memory and on several cores. While it is away, searches compare every
template: they are exact, and slower the more people there are. Whoever takes it away holds a lock of a session, which
ends with the process however it dies; then the next import or any worker's `IndexKeeper` makes the index.
docs/adr/0019-many-at-once.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import StartupError
from recognizer.gallery.connection import Connection
from recognizer.gallery.direct import autocommit_connection
from recognizer.gallery.search import INDEXED

LOCK_ID = 0x74656D706C617465

SESSION_SECONDS = 48 * 3600.0
"""The longest that an import with the index away may take."""
MAKING_SECONDS = 12 * 3600.0
REMOVAL_SECONDS = 60.0
"""How long to wait at first for whoever reads the templates, such as a backup; at the end it is until they are done."""
PATIENCE_SECONDS = 30.0
"""How long to wait for a database that is not there."""
LOOK_SECONDS = 0.5

MANY = 10_000
"""Fewer new templates come into the index one by one."""

BYTES_PER_TEMPLATE = 1_050
"""The memory that a template takes while the index is made: PostgreSQL says that 64 MB are full after 69,000."""
LEAST_BYTES, UNASKED_BYTES = 64 * 2**20, 512 * 2**20
"""Memory that is taken in any case, and the most where nobody knows how much the database's machine has."""

STATE = """
    SELECT to_regclass('templates') IS NOT NULL,
           EXISTS (SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                   WHERE indrelid = to_regclass('templates') AND relname = 'templates_embedding' AND indisvalid)
"""

# By its table: another schema of the search path may have one of the same name.
FIND = """
    SELECT format('%I.%I', nspname, relname)
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE indrelid = to_regclass('templates') AND relname = 'templates_embedding'
"""

REMOVE = "DROP INDEX CONCURRENTLY {name}"

MAKE = """
    CREATE INDEX CONCURRENTLY templates_embedding ON templates
        USING hnsw (embedding halfvec_l2_ops) WITH (m = 16, ef_construction = 128)
"""
"""As the migrations make it, and nobody who enrols has to wait."""

DONE = """
    SELECT coalesce(max(tuples_done), 0) FROM pg_stat_progress_create_index
    WHERE datname = current_database() AND relid = to_regclass('templates')
"""

KEEP_ALIVE = """
    SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false), set_config('idle_session_timeout', '0', false)
"""
"""A server that is far away finds out within a minute, not after two hours, that this machine is gone; as long as it is
there, nobody ends its session."""

NOT_OURS = (
    "The index that makes searches quick is missing, and only the owner of the table `templates` can make it: run "
    "`recognizer import` or the service with that role once."
)

NO_ROOM = (
    "Everybody is in, but the database's disk or memory has no room for the index that makes searches quick. Free "
    "some: a running service then makes it by itself, and so does the next import."
)


@dataclass(frozen=True, slots=True)
class Means:
    """What making the index may take: memory, and processes beside the first (None: as the server is set)."""

    memory_bytes: int = UNASKED_BYTES
    helpers: int | None = None


@dataclass(frozen=True, slots=True)
class TemplateIndex:
    """The index in the database of that URL."""

    url: str
    means: Means = Means()

    @contextmanager
    def apart(self, coming: int) -> Iterator[Making | None]:
        """Take the index away for the block if that pays for so many new templates.

        Returns:
            What makes it, for the end of the block; None where it stays, or where somebody else makes it.

        Raises:
            DatabaseUnavailable
        """
        with self.session(SESSION_SECONDS) as connection, connection.cursor() as cursor:
            if take_turn(cursor) and (is_missing(cursor) or _take_away(cursor, coming)):
                yield Making(self, connection)
            else:
                yield None

    def mend(self) -> bool:
        """Make the index if it is missing and nobody is at it; returns whether it was made; raises as `Making`."""
        with self.session(MAKING_SECONDS) as connection, connection.cursor() as cursor:
            if not take_turn(cursor) or not is_missing(cursor):
                return False
            _make(cursor, self.means)
            return True

    @contextmanager
    def session(self, seconds: float) -> Iterator[Connection]:
        """A connection for so long, without a transaction around."""
        with autocommit_connection(self.url, Deadline(seconds), patience_seconds=PATIENCE_SECONDS) as connection:
            with connection.cursor() as cursor:
                cursor.execute(KEEP_ALIVE)
            yield connection


@dataclass(frozen=True, slots=True)
class Making:
    """The index while it is away; nobody else makes it until the block of `TemplateIndex.apart` ends."""

    index: TemplateIndex
    connection: Connection

    def people(self) -> int:
        """How many templates the index will have."""
        with self.connection.cursor() as cursor:
            return _people(cursor)

    def steps(self) -> Iterator[int]:
        """Make it, and tell twice a second how many templates more are in it.

        Whoever stops asking leaves it to the database, which goes on by itself if it is not stopped too.

        Raises:
            StartupError: the disk is full.
            DatabaseUnavailable
        """
        told = 0
        with (
            self.connection.cursor() as cursor,
            self.index.session(MAKING_SECONDS) as beside,
            beside.cursor() as looking,
            ThreadPoolExecutor(1) as thread,
        ):
            making = thread.submit(_make, cursor, self.index.means)
            try:
                while not wait([making], LOOK_SECONDS).done:
                    looking.execute(DONE)
                    ((done,),) = looking.fetchall()
                    yield max(0, done - told)
                    told = max(told, done)
            finally:
                if not making.done():
                    self.connection.cut()  # the thread is not waited for
            making.result()


def is_missing(cursor: Cursor) -> bool:
    """Whether there are templates, and no index of them that is whole."""
    cursor.execute(STATE)
    ((has_templates, has_index),) = cursor.fetchall()
    return has_templates and not has_index


def take_turn(cursor: Cursor) -> bool:
    """Whether nobody else is at the index; then nobody else comes to be until this session ends."""
    cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_ID,))
    return bool(cursor.fetchall()[0][0])


def _take_away(cursor: Cursor, coming: int) -> bool:
    """Where it pays: where the index becomes at least twice as large, most of it is made anew anyway."""
    if coming < MANY or coming < _people(cursor):
        return False
    _set(cursor, "statement_timeout", f"{REMOVAL_SECONDS:.0f}s")
    try:
        _remove(cursor)
    except errors.InsufficientPrivilege:  # it belongs to somebody else: it stays
        return False
    except errors.QueryCanceled:
        pass  # it is out of use already, and goes at the end, when whoever reads the templates is done
    return True


def _remove(cursor: Cursor) -> None:
    cursor.execute(FIND)
    for (name,) in cursor.fetchall():
        cursor.execute(REMOVE.format(name=name))


def _make(cursor: Cursor, means: Means) -> None:
    """Make the index; what is left of an earlier attempt goes before."""
    wanted = max(LEAST_BYTES, _people(cursor) * BYTES_PER_TEMPLATE)
    _set(cursor, "maintenance_work_mem", f"{min(wanted, means.memory_bytes) // 1024}kB")
    _set(cursor, "statement_timeout", f"{MAKING_SECONDS:.0f}s")
    if means.helpers is not None:
        _set(cursor, "max_parallel_maintenance_workers", str(means.helpers))
    try:
        _make_anew(cursor)
    except (errors.DiskFull, errors.OutOfMemory) as error:
        cursor.execute("SHOW max_parallel_maintenance_workers")
        if cursor.fetchall() == [("0",)]:
            raise StartupError(NO_ROOM) from error
        # what processes share lies in /dev/shm, which is small in containers: one does it by itself, then
        _set(cursor, "max_parallel_maintenance_workers", "0")
        try:
            _make_anew(cursor)
        except (errors.DiskFull, errors.OutOfMemory) as again:
            raise StartupError(NO_ROOM) from again


def _make_anew(cursor: Cursor) -> None:
    try:
        _remove(cursor)
        cursor.execute(MAKE)
    except errors.InsufficientPrivilege as error:
        raise StartupError(NOT_OURS) from error


def _set(cursor: Cursor, setting: str, value: str) -> None:
    cursor.execute("SELECT set_config(%s, %s, false)", (setting, value))


def _people(cursor: Cursor) -> int:
    cursor.execute(INDEXED)
    return int(cursor.fetchall()[0][0])
