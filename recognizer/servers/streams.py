"""Connections that are sent news as it comes: they hold no thread, and have places of their own."""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable
from typing import Any

from recognizer.servers.arrival import Connection, Stage
from recognizer.servers.limits import Limits

RECEIVE_BYTES = 2**16


class Streams:
    """Sends what streams have, from the worker's main loop. How many there may be is up to the app.

    Args:
        worker: gunicorn's; when it is not `alive`, a stream ends at once, but for one that has an end of its own.
        watch: tells the loop what to wait for on a connection.
        close: closes a connection.
    """

    def __init__(
        self,
        worker: Any,
        limits: Limits,
        watch: Callable[[Connection, int], None],
        close: Callable[[Connection], None],
    ) -> None:
        self._worker = worker
        self._limits = limits
        self._watch = watch
        self._close = close
        self._held: set[Connection] = set()

    def hold(self, connection: Connection) -> None:
        """Go on with an answer that the app has begun and handed over; the connection may be closed meanwhile."""
        if connection.stage is Stage.CLOSED:
            self.forget(connection)
            return
        self._held.add(connection)
        connection.enter(Stage.STREAMING, math.inf)
        connection.stream.on_news(lambda: self._worker.method_queue.defer(self._send, connection))
        self._send(connection)

    def turn(self) -> None:
        """Send heartbeats; end all when the worker goes."""
        for connection in list(self._held):
            self._send(connection)

    def on_event(self, connection: Connection) -> None:
        """The client can be sent more, or has gone: what it sends is thrown away."""
        try:
            if not connection.sock.recv(RECEIVE_BYTES):
                self._close(connection)
                return
        except BlockingIOError:
            pass
        except OSError:  # reset
            self._close(connection)
            return
        self._send(connection)

    def forget(self, connection: Connection) -> None:
        """Let go of one that is closed."""
        if connection.stream is not None:
            self._held.discard(connection)
            connection.stream.close()

    def _send(self, connection: Connection) -> None:
        """Send what the client takes. What it does not take stays with us once; news waits and gets lost meanwhile."""
        if connection.stage is not Stage.STREAMING:
            return
        is_over = not self._worker.alive and not getattr(connection.stream, "has_end", False)
        piece = None if is_over else b"" if connection.sock.unsent else connection.stream.take()
        if piece is None:
            self._close(connection)
            return
        try:
            if piece:
                connection.sock.sendall(piece)
            else:
                connection.sock.send_rest()
        except OSError:  # the client has gone
            self._close(connection)
            return
        is_slow = bool(connection.sock.unsent)
        if not is_slow:
            connection.until = math.inf
        elif connection.until == math.inf:
            connection.until = time.monotonic() + self._limits.send_seconds
        self._watch(connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if is_slow else 0))
