"""Where the pool's connections come from: idle ones that still work, and new ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg2
from psycopg2.pool import ThreadedConnectionPool

from recognizer.errors import DatabaseUnavailable
from recognizer.gallery.connection import NO_ANSWER, Connection, connect, set_up
from recognizer.gallery.watchdog import Watchdog
from recognizer.keyring import Keyring

IDLE_CHECK_SECONDS = 30.0
"""A connection that was idle for longer is asked whether it works before it is lent."""

MAX_IDLE_SECONDS = 600.0
"""What is open beyond the minimum is closed when it was not needed for so long."""

NO_PGVECTOR = "The database is not prepared: the extension pgvector is missing; run `recognizer migrate`."


class Supply(ThreadedConnectionPool):
    """psycopg2's pool, kept as the book of what is idle (the latest on top) and what is lent.

    By itself it connects while it holds its lock, hands out connections without a look at them, and
    closes whatever comes back beyond `minconn`. Here connections are opened outside the lock and then
    entered, and `minconn` is what may stay idle. How many are lent is up to the caller.
    """

    # psycopg2's own, which its stubs leave out
    _lock: threading.Lock
    _pool: list[Connection]
    _used: dict[int, Connection]
    _rused: dict[int, int]
    _getkey: Callable[[], int]
    _getconn: Callable[[], Connection]

    def __init__(
        self,
        arguments: Mapping[str, Any],
        watchdog: Watchdog,
        *,
        minimum: int,
        maximum: int,
        statement_timeout_seconds: float,
        keyring: Keyring,
    ) -> None:
        super().__init__(0, maximum)  # opens none
        self.minconn = maximum
        self._arguments = arguments
        self._watchdog = watchdog
        self._minimum = minimum
        self._statement_timeout_seconds = statement_timeout_seconds
        self._keyring = keyring
        self._opening = 0
        self.opened = self.broken = 0

    @property
    def idle(self) -> int:
        """How many connections wait to be lent."""
        return len(self._pool)

    @property
    def total(self) -> int:
        """How many connections are open, or about to be."""
        with self._lock:
            return len(self._pool) + len(self._used) + self._opening

    def ready(self, until: float, *, ask: bool = False) -> Connection:
        """Lend a connection that works by the moment `until`; with `ask`, the server itself has said so.

        Raises:
            DatabaseUnavailable: none is idle, and none can be opened in time.
        """
        while (connection := self._take()) is not None:
            now = time.monotonic()
            rested = now - connection.returned_at > IDLE_CHECK_SECONDS
            if now > connection.expires_at:
                self.discard(connection)
            elif (connection.is_quiet() and not ask and not rested) or self._answers(connection, until):
                return connection
            else:
                self.discard(connection, broken=True)
        return self.open(until)

    def open(self, until: float) -> Connection:
        """Open a connection by the moment `until` and lend it.

        Raises:
            DatabaseUnavailable: it cannot be opened in time, or the database lacks pgvector.
        """
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise DatabaseUnavailable(NO_ANSWER)
        connection = self._connected(remaining)
        try:
            with self._watchdog.watching(connection, until):
                set_up(connection, self._statement_timeout_seconds)
        except psycopg2.Error as error:
            self.discard(connection)
            unprepared = isinstance(error, psycopg2.ProgrammingError)
            raise DatabaseUnavailable(NO_PGVECTOR if unprepared else NO_ANSWER) from error
        return connection

    def put(self, connection: Connection) -> None:
        """Take back a connection that is in order; close the one at the bottom if it is not needed."""
        connection.returned_at = now = time.monotonic()
        self.putconn(connection)
        with self._lock:
            surplus = len(self._pool) > self._minimum and now - self._pool[0].returned_at > MAX_IDLE_SECONDS
            unneeded = self._pool.pop(0) if surplus else None
        if unneeded is not None:
            unneeded.close()

    def discard(self, connection: Connection, *, broken: bool = False) -> None:
        """Take back and close a connection, whatever its state, without waiting for the server."""
        connection.cut()  # or saying goodbye might block on a full socket
        self.putconn(connection, close=True)
        with self._lock:
            self.broken += broken

    def close(self) -> None:
        """Close what is idle, and from now on whatever comes back."""
        self.minconn = 0
        while (connection := self._take()) is not None:
            self.putconn(connection, close=True)

    def _take(self) -> Connection | None:
        with self._lock:
            return self._getconn() if self._pool else None

    def _connected(self, timeout_seconds: float) -> Connection:
        with self._lock:
            self._opening += 1
        connection = None
        try:
            connection = connect(self._arguments, timeout_seconds)
            connection.keyring = self._keyring
        finally:
            with self._lock:
                self._opening -= 1
                if connection is not None:
                    key = self._getkey()
                    self._used[key] = connection
                    self._rused[id(connection)] = key
                    self.opened += 1
        return connection

    def _answers(self, connection: Connection, until: float) -> bool:
        try:
            with self._watchdog.watching(connection, until) as watch, connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return not watch.fired
