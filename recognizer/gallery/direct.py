"""One connection outside the pool, for what is done once before the service starts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2

from recognizer.deadline import Deadline
from recognizer.errors import DatabaseUnavailable, StartupError
from recognizer.gallery.connection import (
    NO_ANSWER,
    Connection,
    cause_of,
    connect,
    connection_arguments,
    is_unavailability,
)
from recognizer.gallery.watchdog import Watchdog

ATTEMPT_SECONDS = 5.0
RETRY_SECONDS = 0.2

LOGGER = logging.getLogger(__name__)


@contextmanager
def direct_connection(url: str, deadline: Deadline) -> Iterator[Connection]:
    """Connect, waiting for a database that is not there yet; commit when the block succeeds, then close.

    Raises:
        ConfigError: the URL cannot be understood.
        DatabaseUnavailable: no answer before the deadline.
    """
    with closing(_connected(url, deadline)) as connection, _watched(connection, deadline), connection:
        yield connection


@contextmanager
def autocommit_connection(url: str, deadline: Deadline, *, patience_seconds: float = math.inf) -> Iterator[Connection]:
    """The same without a transaction around the block: each statement is one, as VACUUM wants it; raises the same.

    A database that is not there is waited for until the deadline, and no longer than `patience_seconds`.
    """
    patience = Deadline(min(patience_seconds, deadline.remaining_seconds()))
    with closing(_connected(url, patience)) as connection, _watched(connection, deadline):
        connection.autocommit = True
        yield connection


@contextmanager
def _watched(connection: Connection, deadline: Deadline) -> Iterator[None]:
    with closing(Watchdog()) as watchdog:
        try:
            with watchdog.watching(connection, time.monotonic() + deadline.remaining_seconds()) as watch:
                yield
        except psycopg2.Error as error:
            if watch.fired or connection.closed or is_unavailability(error):
                raise DatabaseUnavailable(NO_ANSWER) from error
            raise
        finally:
            connection.cut()


def connections_of_worker(pool_max: int) -> int:
    """The most that one worker has: its pool's, one to look whether the database is back, one to hear news."""
    return pool_max + 2


def check_connection_limit(url: str, *, workers: int, pool_max: int, deadline_seconds: float) -> None:
    """See whether the server grants as many connections as all workers together may want.

    Raises:
        StartupError: it does not; the message names the numbers.
        ConfigError: the URL cannot be understood.
        DatabaseUnavailable: no answer within `deadline_seconds`.
    """
    needed = workers * connections_of_worker(pool_max)
    with direct_connection(url, Deadline(deadline_seconds)) as connection, connection.cursor() as cursor:
        cursor.execute("""
            SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                       - coalesce(current_setting('reserved_connections', true)::int, 0),
                   (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
                   (SELECT datconnlimit FROM pg_database WHERE datname = current_database())
        """)
        granted = min(limit for limit in cursor.fetchall()[0] if limit >= 0)  # -1: no limit of its own
    if needed > granted:
        raise StartupError(
            f"{workers} workers with pool_max {pool_max} may need {needed} database connections, but the server "
            f"grants {granted}; lower `workers` or `pool_max`, or raise max_connections in PostgreSQL."
        )


def _connected(url: str, deadline: Deadline) -> Connection:
    arguments = connection_arguments(url)
    waiting = False
    while True:
        try:
            return connect(arguments, min(ATTEMPT_SECONDS, deadline.remaining_seconds()))
        except DatabaseUnavailable as error:
            if deadline.remaining_seconds() <= RETRY_SECONDS:
                raise
            if not waiting:
                LOGGER.warning("Waiting for the database: %s", cause_of(error))
            waiting = True
            time.sleep(RETRY_SECONDS)
