"""waitress's connection, with what this service promises: one error shape, an answer that arrives, limits, an end."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask, WSGITask

from recognizer.servers.refusal import refusal

LINGER_SECONDS = 30.0
"""How long a client that was refused may go on sending before it is cut off."""


class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """A request being received."""

    def __init__(self, adjustments: Any) -> None:
        super().__init__(adjustments)
        self.began = time.monotonic()

    def received(self, data: bytes) -> int:
        """Take what has arrived; a body that is refused is not asked for."""
        consumed: int = super().received(data)
        if self.error:
            self.expect_continue = False
        return consumed

    def parse_header(self, header: bytes) -> None:
        """Read the head; waitress itself takes an unknown version of HTTP for 1.0."""
        super().parse_header(header)
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("Unknown version of HTTP")


class Task(WSGITask):  # type: ignore[misc]  # waitress has no types
    """A request to the app; while the server stops, its connection ends with the answer."""

    def build_response_header(self) -> bytes:
        if not self.channel.server.accepting:
            self.set_close_on_finish()
        header: bytes = super().build_response_header()
        return header


class ProblemTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What waitress refuses by itself, in the service's one error shape."""

    def __init__(self, channel: Any, request: Any) -> None:
        super().__init__(channel, request)
        self.version = "1.1"  # a request that was not understood has none

    def execute(self) -> None:
        error = self.request.error
        headers, content = refusal(error.code)
        self.status = f"{error.code} {error.reason}"
        self.response_headers += headers
        self.content_length = len(content)
        self.set_close_on_finish()
        self.channel.refused = True
        self.write(content)


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection.

    Closing one whose client is still sending makes the system reset it, and the client never reads the answer:
    a refused client is listened to for a while after it, and what it sends is thrown away.
    """

    parser_class = Parser
    task_class = Task
    error_task_class = ProblemTask

    refused = False
    lingers_until = 0.0

    def is_busy(self) -> bool:
        """Whether a request is being received or answered, or its answer has not left yet."""
        return bool(self.requests or self.request or self.total_outbufs_len or self.lingers_until)

    def limit_receiving(self, seconds: float) -> None:
        """Close it when a request takes longer than this to arrive, however steadily it drips."""
        request = self.request
        if request is not None and not self.requests and time.monotonic() - request.began > seconds:
            self.will_close = True

    def handle_close(self) -> None:
        if not self.refused or self.lingers_until:
            super().handle_close()
            return
        self.lingers_until = time.monotonic() + LINGER_SECONDS
        self.will_close = False
        with suppress(OSError):  # the client has gone
            self.socket.shutdown(socket.SHUT_WR)

    def readable(self) -> bool:
        return bool(self.lingers_until or super().readable())

    def writable(self) -> bool:
        if self.lingers_until:
            return time.monotonic() > self.lingers_until
        return bool(super().writable())

    def handle_write(self) -> None:
        if self.lingers_until:
            self.handle_close()
        else:
            super().handle_write()

    def received(self, data: bytes) -> bool:
        """Take what has arrived; after a refusal nothing counts any more."""
        return False if self.refused else bool(super().received(data))
