"""A TCP door to the database that a test can shut, make slow, or keep open without ever answering."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from urllib.parse import quote

from psycopg2.extensions import parse_dsn


class Proxy:
    """Forwards connections on a port of its own to the server of `url`; use it in a `with` block."""

    def __init__(self, url: str) -> None:
        self._server = parse_dsn(url)
        self._flowing = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0
        self.accepted = 0
        self.delay_seconds = 0.0
        """How long everything takes in each direction."""

    @property
    def url(self) -> str:
        user, password = (quote(self._server.get(part, ""), safe="") for part in ("user", "password"))
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{self._server['dbname']}"

    def open(self) -> None:
        """Let connections through (again)."""
        self._flowing.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def freeze(self) -> None:
        """Go on accepting connections and bytes, and answer nothing, as a frozen server does."""
        self._flowing.clear()

    def shut(self) -> None:
        """Break all connections and refuse new ones, as a server does that was killed."""
        if self._listener is not None:
            _end(self._listener)
            self._listener = None
        for each in list(self._sockets):
            _end(each)
        self._sockets.clear()
        self._flowing.set()

    def relay(self, source: socket.socket, sink: socket.socket, data: bytes) -> None:
        """Pass on what one side has sent; an OSError breaks the connection."""
        sink.sendall(data)

    def __enter__(self) -> Proxy:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.accepted += 1
                self._sockets.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._flowing.wait()
        with contextlib.suppress(OSError):
            server = self._connect()
            self._sockets.add(server)
            threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
            self._pump(client, server)

    def _connect(self) -> socket.socket:
        host, port = self._server.get("host", "127.0.0.1"), self._server.get("port", "5432")
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay_seconds)
                self._flowing.wait()
                self.relay(source, sink, data)
        for each in (source, sink):
            _end(each)
            self._sockets.discard(each)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
