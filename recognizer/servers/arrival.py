"""One connection of a worker and what has been received on it; nothing in here ever waits for a client.

The request is read by gunicorn's own parser, from what has arrived in full: there is one opinion of where a request
ends. A chunked body is only measured here, and whatever is malformed is left to the parser, which refuses it.
"""

from __future__ import annotations

import enum
import io
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import ChunkMissingTerminator, NoMoreData
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import Unreader

HEAD_BYTES = 2**16
"""A longer head is refused while it arrives; gunicorn's own limits for lines and fields lie below."""

CHUNK_LINE_BYTES = 8190

PROBES = ("/health/live", "/health/ready")


class HeadTooLong(Exception):
    """The head of a request does not end within `HEAD_BYTES`."""


class Stage(enum.Enum):
    """What a connection is doing."""

    IDLE = enum.auto()  # nothing of a request has arrived yet
    ARRIVING = enum.auto()
    WAITING = enum.auto()  # complete, for a thread
    RUNNING = enum.auto()
    SENDING = enum.auto()  # answered, the client is slow to read
    STREAMING = enum.auto()  # answered without an end, from the main loop
    LEAVING = enum.auto()  # answered for the last time; what still arrives is thrown away
    CLOSED = enum.auto()


class ClientSocket(socket.socket):
    """A client's socket that keeps what the client does not take at once, so that no thread waits for it."""

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(fileno=accepted.detach())
        self.setblocking(False)
        self.unsent = bytearray()
        self.was_answered = False
        self.hand_over: Callable[[Any], None] | None = None

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Take all of it; `send_rest` goes on with what is left."""
        self.was_answered = True
        self.unsent += data
        self.send_rest()

    def send_rest(self) -> None:
        """Send what the client takes now."""
        while self.unsent:
            try:
                sent = self.send(self.unsent)
            except BlockingIOError:
                return
            del self.unsent[:sent]


class Arrivals(Unreader):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn's parser reads from: it ends where that ends what has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: deque[bytes] = deque()

    def add(self, piece: bytes) -> None:
        """Append what has arrived."""
        self._pieces.append(piece)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next piece; read ones are let go at once, so that a body is not held twice."""
        return self._pieces.popleft() if self._pieces else b""

    def rest(self) -> bytes:
        """Take what belongs to the next request."""
        pieces, self._pieces = self._pieces, deque()
        return bytes(self.take_buffered()) + b"".join(pieces)


class ChunkScanner:
    """Finds the end of a chunked body; also "ended" where it is malformed, so that the parser can refuse it."""

    def __init__(self) -> None:
        self.ended = False
        self._line = bytearray()
        self._skip_bytes = 0
        self._in_trailers = False

    def feed(self, data: bytes) -> None:
        """Go on with what has arrived."""
        at = 0
        while at < len(data) and not self.ended:
            if self._skip_bytes:
                step = min(self._skip_bytes, len(data) - at)
                self._skip_bytes -= step
                at += step
                continue
            newline = data.find(b"\n", at)
            end = newline + 1 or len(data)
            self._line += data[at:end]
            at = end
            if len(self._line) > CHUNK_LINE_BYTES:
                self.ended = True
            elif newline >= 0:
                self._take_line()

    def _take_line(self) -> None:
        line = bytes(self._line).strip()
        self._line.clear()
        if self._in_trailers:
            self.ended = not line
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            size = -1
        self.ended = size < 0
        self._skip_bytes = size + 2 if size > 0 else 0
        self._in_trailers = not size


class Connection:
    """A client, its socket and the request that is arriving or being answered."""

    def __init__(self, cfg: Any, sock: ClientSocket, client: Any, server: Any) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.arrivals = Arrivals()
        self.parser = RequestParser(cfg, (), client)
        self.parser.unreader = self.arrivals
        self.request: Any = None
        self.received_bytes = 0
        self.stage = Stage.IDLE
        self.until = 0.0
        self.watched = 0
        self.thread_id: int | None = None
        self.is_kept = False
        self.stream: Any = None
        self._head = bytearray()
        self._body_bytes = 0
        self._missing_bytes = 0
        self._scanner: ChunkScanner | None = None

    def enter(self, stage: Stage, seconds: float) -> None:
        """Go on to a stage, which may take so long."""
        self.stage = stage
        self.until = time.monotonic() + seconds

    def take(self, data: bytes) -> None:
        """Take what has arrived; reads the head as soon as it is complete.

        Raises:
            HeadTooLong: it does not come to an end.
            Exception: gunicorn's, for a head that is malformed.
        """
        self.received_bytes += len(data)
        if self.request is not None:
            self._take_body(data)
            return
        searched = max(0, len(self._head) - 3)
        self._head += data
        if self._head.find(b"\r\n\r\n", searched) < 0 and self._head.find(b"\n\n", searched) < 0:
            if len(self._head) > HEAD_BYTES:
                raise HeadTooLong
            return
        self.arrivals.add(bytes(self._head))
        self._head.clear()
        self.request = next(self.parser)
        self._measure_body()

    @property
    def is_complete(self) -> bool:
        """Whether a request has arrived in full."""
        if self.request is None:
            return False
        return self._scanner.ended if self._scanner else self._missing_bytes <= 0

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits to be asked for the body."""
        return bool(self.request is not None and self.request._expected_100_continue)

    def ask_for_body(self) -> None:
        """Say that the body is welcome; gunicorn shall not say so again."""
        self.request._expected_100_continue = False
        if not self.is_complete:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.sock.was_answered = False

    @property
    def announced_bytes(self) -> int:
        """How long the body will be at least."""
        if self.request is None:
            return 0
        return self._body_bytes + max(0, self._missing_bytes)

    def was_reset(self) -> bool:
        """Whether the client has gone for good; one that only closed its sending side may wait for the answer."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    @property
    def probe(self) -> str | None:
        """The path, when it is a health check."""
        is_probe = self.request.path in PROBES and self.request.method in ("GET", "HEAD")
        return self.request.path if is_probe else None

    def hand_over(self, stream: Any) -> None:
        """Go on with `stream` after the answer that the app begins now, which ends with the connection.

        Args:
            stream: has `take()`, what is to be sent now (None: nothing any more), `on_news(wake)` and `close()`;
                and `has_end`, true, if it shall go on while the worker leaves.
        """
        self.stream = stream
        self.request.version = (1, 0)  # in HTTP/1.1, gunicorn would write the end of the answer
        self.request.force_close()

    def unchunk(self) -> None:
        """Decode a chunked body; in a thread, before the app reads it and takes our error for its own.

        Raises:
            Exception: gunicorn's, where it is malformed.
        """
        if self._scanner:
            try:
                self.request.body = io.BytesIO(self.request.body.read())
            except NoMoreData:
                raise ChunkMissingTerminator(b"") from None

    def begin_anew(self) -> bytes:
        """Forget the answered request; returns what has arrived of the next one."""
        self.request = self._scanner = self.thread_id = None
        self.received_bytes = self._body_bytes = self._missing_bytes = 0
        self.sock.was_answered = False
        return self.arrivals.rest()

    def _measure_body(self) -> None:
        arrived = self.arrivals.buf.getvalue()
        reader = self.request.body.reader
        if isinstance(reader, ChunkedReader):
            self._scanner = ChunkScanner()
            self._scanner.feed(arrived)
        else:
            self._missing_bytes = reader.length - len(arrived)
            arrived = arrived[: reader.length]  # the rest is the next request's
        self._body_bytes = len(arrived)

    def _take_body(self, data: bytes) -> None:
        self.arrivals.add(data)
        self._body_bytes += len(data)
        if self._scanner:
            self._scanner.feed(data)
        else:
            self._missing_bytes -= len(data)
