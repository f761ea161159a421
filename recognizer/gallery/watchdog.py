"""The client's own limit for calls to the database.

`statement_timeout` and keepalives do not bound a server that is frozen, least of all on a Unix socket.
What does is shutting the socket down from another thread, which ends the call in libpq at once.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from recognizer.gallery.connection import Connection


@dataclass(slots=True, eq=False)
class Watch:
    """One call that is watched: the connection it uses and the moment by which it must be over."""

    connection: Connection
    until: float
    fired: bool = False


class Watchdog:
    """A thread that cuts off every watched connection whose moment has passed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: set[Watch] = set()
        self._wakes_at = math.inf
        self._closed = False
        threading.Thread(target=self._run, name="database-watchdog", daemon=True).start()

    @contextlib.contextmanager
    def watching(self, connection: Connection, until: float) -> Iterator[Watch]:
        """Cut `connection` off at `until` (monotonic clock) unless the block is left before."""
        watch = Watch(connection, until)
        with self._changed:
            self._watches.add(watch)
            if until < self._wakes_at:
                self._changed.notify()
        try:
            yield watch
        finally:
            with self._changed:  # from here on the watchdog cannot touch the connection
                self._watches.discard(watch)
                if self._closed:
                    self._changed.notify()

    def close(self) -> None:
        """Let the thread end as soon as nothing is watched."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while self._watches or not self._closed:
                now = time.monotonic()
                for watch in [watch for watch in self._watches if watch.until <= now]:
                    watch.fired = True
                    watch.connection.cut()
                    self._watches.remove(watch)
                self._wakes_at = min((watch.until for watch in self._watches), default=math.inf)
                self._changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)
