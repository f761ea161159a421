"""The reception of a worker: its main loop receives whole requests, and lets in as many as can be worked on.

Nobody holds a thread who has not sent all of a request or is slow to read the answer, and nobody waits for one who
would not get one in time: that is refused from here, at once. Health checks take none of them either.
"""

from __future__ import annotations

import logging
import selectors
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.sock import ssl_context

from recognizer.servers.arrival import ClientSocket, Connection, HeadTooLong, Stage
from recognizer.servers.door import Door
from recognizer.servers.limits import Limits
from recognizer.servers.refusal import message
from recognizer.servers.seats import Seats
from recognizer.servers.secure import SecureSocket
from recognizer.servers.streams import Streams

LOGGER = logging.getLogger(__name__)

RECEIVE_BYTES = 2**18

LOOK_SECONDS = 0.2  # how exactly limits of time are kept
LINGER_SECONDS = 2.0
REFUSED_LINGER_SECONDS = 10.0
"""How long a client that was refused may go on sending: a reset would keep it from reading the answer."""


class Reception:
    """All connections of one worker. Everything but the answering itself happens in the worker's main thread.

    Args:
        worker: gunicorn's; `serve` answers a request and says whether its connection is kept.
        count: told status and code of what is refused here.
        on_stuck: called when a request does not come back from its thread.
    """

    def __init__(
        self, worker: Any, limits: Limits, count: Callable[[int, str], None], on_stuck: Callable[[], None]
    ) -> None:
        self._worker = worker
        self._limits = limits
        self._count = count
        self._on_stuck = on_stuck
        self._tls = ssl_context(worker.cfg) if worker.cfg.is_ssl else None
        self._poller: selectors.BaseSelector = worker.poller
        self._connections: set[Connection] = set()
        self._guests: dict[Connection, None] = {}  # idle or arriving, the longest first: whoever has to make room
        self._seats = Seats(worker, limits, self._answered, self._close)
        self._streams = Streams(worker, limits, self._watch, self._close)
        self._door = Door(worker.sockets, self._poller, self._seats.free_places, self._welcome, self._make_room)
        self._look_at = 0.0
        self._held_bytes = 0

    # -- the loop --

    def open(self) -> None:
        """Begin to accept."""
        self._poller.register(self._worker.method_queue, selectors.EVENT_READ, self._worker.method_queue.run_callbacks)
        self._door.open()

    def turn(self) -> None:
        """One turn of the loop; at most `LOOK_SECONDS` long while nothing happens."""
        for key, _ in self._poller.select(min(LOOK_SECONDS, self._door.pause_seconds())):
            key.data(key.fileobj)
        self._door.turn()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            for connection in [each for each in self._connections if each.until <= now]:
                self._expire(connection)
            self._streams.turn()

    def close_doors(self) -> None:
        """Take in who has connected already, and nobody after; idle clients may still send what is on its way."""
        self._door.close()
        self._streams.turn()
        leave = time.monotonic() + LINGER_SECONDS
        for connection in self._connections:
            if connection.stage is Stage.IDLE:
                connection.until = min(connection.until, leave)

    def is_empty(self) -> bool:
        """Whether nobody is left whose request is arriving, is worked on or is being answered."""
        return not self._connections

    def close(self) -> bool:
        """Close every connection; whether all threads have come back."""
        for connection in list(self._connections):
            self._close(connection)
        return self._seats.close()

    # -- who comes --

    def _welcome(self, accepted: socket.socket, client: Any, server: Any) -> None:
        if len(self._connections) >= self._limits.connections:
            self._make_room()
        sock = SecureSocket(accepted, self._tls) if self._tls else ClientSocket(accepted)
        connection = Connection(self._worker.cfg, sock, client, server)
        self._connections.add(connection)
        self._await_request(connection)

    def _make_room(self) -> None:
        """Let the client go that has been here longest without a whole request."""
        if self._guests:
            self._close(next(iter(self._guests)))

    # -- what arrives --

    def _await_request(self, connection: Connection) -> None:
        idle = self._limits.idle_seconds if self._worker.alive else LINGER_SECONDS
        connection.enter(Stage.IDLE, idle)
        self._guests[connection] = None
        self._watch(connection, selectors.EVENT_READ)

    def _on_event(self, connection: Connection, _: Any) -> None:
        if connection.stage in (Stage.IDLE, Stage.ARRIVING):
            self._receive(connection)
        elif connection.stage is Stage.SENDING:
            self._go_on_sending(connection)
        elif connection.stage is Stage.STREAMING:
            self._streams.on_event(connection)
        elif connection.stage is Stage.LEAVING and not self._received(connection):
            self._close(connection)

    def _received(self, connection: Connection) -> bytes | None:
        """What has arrived; None: nothing after all; empty: nothing comes any more."""
        try:
            return connection.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:  # reset
            return b""

    def _receive(self, connection: Connection) -> None:
        data = self._received(connection)
        if data:
            self._take(connection, data)
        elif data is not None and connection.stage is Stage.ARRIVING:
            self._refuse(connection, 400)  # it broke off; who only closed the sending side reads the answer
        elif data is not None:
            self._close(connection)

    def _take(self, connection: Connection, data: bytes) -> None:
        if connection.stage is Stage.IDLE:
            connection.enter(Stage.ARRIVING, self._limits.receive_seconds)
        is_new = connection.request is None
        self._held_bytes += len(data)
        try:
            connection.take(data)
        except HeadTooLong:
            self._refuse(connection, 431)
            return
        except Exception as error:  # noqa: BLE001 - gunicorn's parser has many; each is answered and logged
            self._worker.handle_error(connection.request, connection.sock, connection.client, error)
            self._leave(connection, REFUSED_LINGER_SECONDS)
            return
        if connection.announced_bytes > self._limits.request_bytes:
            self._refuse(connection, 413)
        elif self._held_bytes > self._limits.held_bytes:
            self._refuse(connection, 503)
        elif connection.request is not None:
            self._consider(connection, is_new)

    def _consider(self, connection: Connection, is_new: bool) -> None:
        """Go on with a request whose head is known; one that could not be let in need not send its body."""
        if is_new and not connection.probe and self._seats.are_taken():
            self._refuse(connection, 503)
            return
        if connection.expects_continue:
            connection.ask_for_body()
        if connection.is_complete:
            self._admit(connection)

    def _admit(self, connection: Connection) -> None:
        self._guests.pop(connection, None)
        self._watch(connection, 0)
        if not self._seats.admit(connection):
            self._refuse(connection, 503)

    # -- who goes --

    def _answered(self, connection: Connection, keep: bool) -> None:
        self._let_go_of(connection)
        connection.is_kept = keep
        if connection.stream is not None:
            self._streams.hold(connection)
        elif connection.stage is Stage.CLOSED:
            return
        elif connection.sock.unsent:
            connection.enter(Stage.SENDING, self._limits.send_seconds)
            self._watch(connection, selectors.EVENT_WRITE)
        else:
            self._sent(connection)

    def _go_on_sending(self, connection: Connection) -> None:
        try:
            connection.sock.send_rest()
        except OSError:  # the client has gone
            self._close(connection)
            return
        if not connection.sock.unsent:
            self._sent(connection)

    def _sent(self, connection: Connection) -> None:
        if not connection.is_kept:
            self._leave(connection, LINGER_SECONDS)
            return
        more = connection.begin_anew()
        if more:  # in a later turn: who sends a thousand requests at once is one of many
            self._worker.method_queue.defer(self._take_next, connection, more)
        else:
            self._await_request(connection)

    def _take_next(self, connection: Connection, more: bytes) -> None:
        if connection.stage is not Stage.CLOSED:
            self._await_request(connection)
            self._take(connection, more)

    def _expire(self, connection: Connection) -> None:
        if connection.stage is Stage.ARRIVING:
            self._refuse(connection, 408)
        elif connection.stage is Stage.WAITING:
            self._seats.forget(connection)
            self._refuse(connection, 503)
        elif connection.stage is Stage.RUNNING:
            self._give_up(connection)
        else:
            self._close(connection)

    def _give_up(self, connection: Connection) -> None:
        """Answer for a thread that does not come back, and say where it is."""
        frame = sys._current_frames().get(connection.thread_id or 0)
        where = "".join(traceback.format_stack(frame)) if frame else "It never got a thread."
        LOGGER.critical(
            "A request has not come back for %d seconds; this worker is replaced. It is here:\n%s",
            self._limits.stuck_seconds,
            where,
        )
        if not connection.sock.was_answered:
            self._refuse(connection, 504)
        self._close(connection)
        self._on_stuck()

    def _refuse(self, connection: Connection, status: int) -> None:
        code, text = message(status)
        self._count(status, code)
        with suppress(OSError):  # the client has gone
            connection.sock.sendall(text)
        self._leave(connection, REFUSED_LINGER_SECONDS)

    def _leave(self, connection: Connection, seconds: float) -> None:
        """Say that nothing more comes, then wait for the client to close."""
        self._guests.pop(connection, None)
        self._let_go_of(connection)
        connection.enter(Stage.LEAVING, seconds)
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client has gone
            self._close(connection)
            return
        self._watch(connection, selectors.EVENT_READ)

    def _let_go_of(self, connection: Connection) -> None:
        """Forget the bytes of its request."""
        self._held_bytes -= connection.received_bytes
        connection.received_bytes = 0

    def _close(self, connection: Connection) -> None:
        if connection.stage is Stage.CLOSED:
            return
        self._guests.pop(connection, None)
        self._let_go_of(connection)
        self._watch(connection, 0)
        connection.stage = Stage.CLOSED
        self._connections.discard(connection)
        self._streams.forget(connection)
        connection.sock.close()

    def _watch(self, connection: Connection, events: int) -> None:
        if events == connection.watched:
            return
        if not events:
            self._poller.unregister(connection.sock)
        elif connection.watched:
            self._poller.modify(connection.sock, events, partial(self._on_event, connection))
        else:
            self._poller.register(connection.sock, events, partial(self._on_event, connection))
        connection.watched = events
