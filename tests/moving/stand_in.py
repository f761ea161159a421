"""A web server that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """What came: `at` is when, on the monotonic clock."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


@dataclass
class Answer:
    """What goes back: JSON, or the bytes themselves; with `broken`, the connection breaks after so many of them."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    broken: int | None = None


Script = Callable[[Request], Answer]


@dataclass
class StandIn:
    """The server while it runs."""

    url: str
    requests: list[Request]


@contextmanager
def stand_in(script: Script) -> Iterator[StandIn]:
    """Serve what `script` answers to each request."""
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            at = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(at.query, keep_blank_values=True).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, at.path, query, headers, body)
            requests.append(request)
            self._send(script(request))

        do_GET = do_POST = do_DELETE = _serve

        def _send(self, answer: Answer) -> None:
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            if answer.broken != 0:
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: answer.broken])
            if answer.broken is not None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield StandIn(f"http://127.0.0.1:{server.server_address[1]}", requests)
        finally:
            server.shutdown()
            thread.join(10)


def in_turn(*answers: Answer) -> Script:
    """One answer after the other, the last one from then on."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def problem(status: int, code: str, **members: Any) -> Answer:
    """An error of our service."""
    headers = {"X-Request-ID": "request-1", **members.pop("headers", {})}
    return Answer(status, {"status": status, "code": code, "detail": f"It is {code}.", **members}, headers)
