"""The pool: every statement of the service runs inside `with pool.connection(deadline) as connection:`.

psycopg2's `ThreadedConnectionPool` keeps the books of what is open; around it stands what it lacks:
bounded waits for a slot, for opening and for every call, liveness checks, renewal, a breaker that
refuses callers at once while the database is away, and statistics.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import ConfigError, DatabaseUnavailable, DeadlineExceeded, RecognizerError
from recognizer.gallery.breaker import Breaker
from recognizer.gallery.connection import (
    NO_ANSWER,
    Connection,
    allow,
    connection_arguments,
    is_unavailability,
)
from recognizer.gallery.supply import Supply
from recognizer.gallery.watchdog import Watch, Watchdog
from recognizer.keyring import Keyring

GRACE_SECONDS = 1.0
"""What the server gets beyond `statement_timeout` to end a statement itself before it is cut off."""

REPEAT_SECONDS = 10.0
"""So often is the same trouble told in the log."""

LOGGER = logging.getLogger(__name__)

NOT_NOW = "The database cannot do this now; try again in a few seconds."
ALL_IN_USE = "All connections to the database are in use; try again in a few seconds."
TOO_LATE = "The database did not answer before the request's deadline; try again later."


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What the pool is doing now and, from `opened` on, has done since it was opened."""

    maximum: int
    in_use: int
    idle: int
    waiting: int
    away: bool
    opened: int
    broken: int
    cut_off: int
    timeouts: int
    refused: int


class Pool:
    """At most `maximum` connections for the threads of this process; open it after the fork.

    Opening never fails because the database is down: connections are made in the background and on
    demand. While the pool makes sure whether the database is there, it may have one connection more.
    """

    def __init__(
        self,
        url: str,
        *,
        minimum: int,
        maximum: int,
        timeout_seconds: float,
        connect_timeout_seconds: float,
        statement_timeout_seconds: float,
        keyring: Keyring | None = None,
    ) -> None:
        arguments = connection_arguments(url)
        self._maximum = maximum
        self._timeout_seconds = timeout_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._statement_timeout_seconds = statement_timeout_seconds
        self.keyring = keyring or Keyring()
        self._pid = os.getpid()
        self._watchdog = Watchdog()
        self._supply = Supply(
            arguments,
            self._watchdog,
            minimum=minimum,
            maximum=maximum,
            statement_timeout_seconds=statement_timeout_seconds,
        )
        self._changed = threading.Condition()
        self._breaker = Breaker(self._supply, self._changed, minimum=minimum, timeout_seconds=connect_timeout_seconds)
        self._in_use = self._waiting = self._cut_off = self._timeouts = self._refused = 0
        self._closed = False
        self._told: dict[str | None, float] = {}
        if minimum:
            self._breaker.doubt()  # opens the first connections in the background

    @classmethod
    def open(cls, settings: Settings, url: str | None = None) -> Self:
        """Open a pool as the settings say; `url` goes before the settings' own.

        Raises:
            ConfigError: there is no URL, or it cannot be understood.
        """
        if url is None and settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        if url is None:
            raise ConfigError("The setting `database_url` is missing.")
        return cls(
            url,
            minimum=settings.pool_min,
            maximum=settings.pool_max,
            timeout_seconds=settings.pool_timeout_seconds,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            statement_timeout_seconds=settings.statement_timeout_seconds,
            keyring=settings.keyring,
        )

    @contextlib.contextmanager
    def connection(self, deadline: Deadline | None = None, *, is_long: bool = False) -> Iterator[Connection]:
        """Lend a connection; commits when the block succeeds, rolls back when it raises.

        A commit whose answer is lost raises, although the server may have carried it out.

        Args:
            is_long: so much is to be done that not the usual limit of a statement bounds it, but the deadline alone.

        Raises:
            DatabaseUnavailable: no slot in time, or the database is away, full, read-only or too slow.
            DeadlineExceeded: the deadline passed; a call under way was cut off.
            psycopg2.Error: mistakes in SQL and violated constraints, as they are.
        """
        if deadline is not None:
            deadline.check()
        with self._slot(deadline):
            connection = self._ready(deadline)
            connection.keyring = self.keyring
            seconds = self._statement_timeout_seconds
            if is_long and deadline is not None:
                seconds = max(seconds, deadline.remaining_seconds())
            until = self._limit(seconds + GRACE_SECONDS, deadline)
            failed = False
            try:
                with self._watchdog.watching(connection, until) as watch, connection:
                    if is_long:
                        allow(connection, seconds)
                    yield connection
                self._breaker.note_answer()
            except psycopg2.Error as error:
                failed = True
                if (reason := self._reason(error, connection, watch, deadline)) is None:
                    raise
                raise reason from error
            finally:
                self._take_back(connection, watch, failed)

    def has_answered(self, since: float, wait_seconds: float) -> bool:
        """Whether the database has answered anybody since that moment, on the monotonic clock, or does so in time."""
        breaker = self._breaker
        with self._changed:
            self._changed.wait_for(lambda: breaker.answered_at >= since or breaker.away or self._closed, wait_seconds)
            return breaker.answered_at >= since

    def statistics(self) -> PoolStatistics:
        """What the pool is doing and has done."""
        with self._changed:
            return PoolStatistics(
                maximum=self._maximum,
                in_use=self._in_use,
                idle=self._supply.idle,
                waiting=self._waiting,
                away=self._breaker.away is not None,
                opened=self._supply.opened,
                broken=self._supply.broken,
                cut_off=self._cut_off,
                timeouts=self._timeouts,
                refused=self._refused,
            )

    def close(self, wait_seconds: float = 5.0) -> None:
        """Refuse new callers, wait a while for the others, close everything; once is as good as twice.

        A connection still lent out after `wait_seconds` is closed when its block ends.
        """
        if os.getpid() != self._pid:
            return  # inherited through a fork: the connections are the parent's
        with self._changed:
            self._closed = True
            self._breaker.close()
            self._changed.wait_for(lambda: not self._in_use and self._breaker.is_idle, wait_seconds)
        self._supply.close()
        self._watchdog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- slots: how many callers may hold a connection --

    @contextlib.contextmanager
    def _slot(self, deadline: Deadline | None) -> Iterator[None]:
        if os.getpid() != self._pid:
            raise RuntimeError("This pool was opened before a fork; open one in each process.")
        with self._changed:
            self._wait_for_slot(deadline)
            self._in_use += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_use -= 1
                self._changed.notify_all()

    def _wait_for_slot(self, deadline: Deadline | None) -> None:
        self._waiting += 1
        try:
            patience = self._limit(self._timeout_seconds, deadline) - time.monotonic()
            free = self._changed.wait_for(
                lambda: self._closed or self._breaker.away or self._in_use < self._maximum, patience
            )
        finally:
            self._waiting -= 1
        if self._closed:
            raise DatabaseUnavailable("The service is shutting down.")
        if self._breaker.away:
            self._refused += 1
            self._breaker.doubt()
            raise DatabaseUnavailable(self._breaker.away)
        if not free:
            self._timeouts += 1
            self._breaker.doubt()  # the others may be waiting for a database that is frozen
            raise DatabaseUnavailable(ALL_IN_USE)

    # -- connections: where a caller's comes from, where it goes --

    def _ready(self, deadline: Deadline | None) -> Connection:
        """A connection that works: an idle one or, if there is none, a new one."""
        full_limit = self._limit(self._connect_timeout_seconds, None)
        try:
            return self._supply.ready(self._limit(self._connect_timeout_seconds, deadline))
        except DatabaseUnavailable as error:
            self._breaker.doubt(error if time.monotonic() >= full_limit else None)
            if deadline is not None and not deadline.remaining_seconds():
                raise DeadlineExceeded(TOO_LATE) from error
            raise

    def _reason(
        self, error: psycopg2.Error, connection: Connection, watch: Watch, deadline: Deadline | None
    ) -> RecognizerError | None:
        """What the caller is told; None: it is the caller's own mistake."""
        if not (watch.fired or connection.closed or is_unavailability(error)):
            return None
        self._breaker.doubt()
        if watch.fired and deadline is not None and not deadline.remaining_seconds():
            return DeadlineExceeded(TOO_LATE)
        if watch.fired or connection.closed:
            return DatabaseUnavailable(NO_ANSWER)
        self._tell(error)
        return DatabaseUnavailable(NOT_NOW)

    def _tell(self, error: psycopg2.Error) -> None:
        """Say in the log what the database lacks; not its whole message, which may quote a statement and so a name."""
        now = time.monotonic()
        if now - self._told.get(error.pgcode, -math.inf) >= REPEAT_SECONDS:
            self._told[error.pgcode] = now
            LOGGER.warning("The database cannot do this now: %s (%s)", error.diag.message_primary, error.pgcode)

    def _take_back(self, connection: Connection, watch: Watch, failed: bool) -> None:
        unfinished = connection.info.transaction_status != TRANSACTION_STATUS_IDLE
        if failed or watch.fired or unfinished:
            self._supply.discard(connection, broken=True)
            with self._changed:
                self._cut_off += watch.fired
        else:
            self._supply.put(connection)

    @staticmethod
    def _limit(seconds: float, deadline: Deadline | None) -> float:
        """The moment, on the monotonic clock, at which a wait of `seconds` within the deadline ends."""
        if deadline is not None:
            seconds = min(seconds, deadline.remaining_seconds())
        return time.monotonic() + seconds
