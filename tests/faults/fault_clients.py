"""A server under test and the clients that misbehave towards it; plain sockets, so that every byte is ours."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 30.0


class Answer(NamedTuple):
    """What a client got; status 0: no answer, but a clean end of the connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """`python -m tests.faults.app` with its workers; no database, no models."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.port = free_port()
        given = {"port": self.port, "data_dir": folder, "workers": 1, "threads": 2, "stop_timeout_seconds": 5}
        own = {f"RECOGNIZER_{name.upper()}": str(value) for name, value in (given | settings).items()}
        self._log = (folder / "log").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.app"],
            cwd=ROOT,
            env={**os.environ, **own},
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        wait_until(lambda: self.is_ready() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()
        return self

    def __exit__(self, *exc: object) -> None:
        family = [psutil.Process(self.process.pid), *self.workers()] if self.process.poll() is None else []
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(10)
        self._log.close()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def is_ready(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.get("/health/ready", seconds=2).status == 200
        return False

    def workers(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def pids(self) -> set[int]:
        return {process.pid for process in self.workers()}

    def await_workers(self, number: int) -> set[int]:
        """Wait until so many workers have answered a request, which they do not at once when they have been started."""
        seen: set[int] = set()

        def all_answer() -> bool:
            answers = at_once([lambda: self.get("/slow/0.1")] * 2 * number)
            seen.update(answer.json["pid"] for answer in answers if answer.status == 200)
            return len(seen & self.pids()) == number

        wait_until(all_answer)
        return self.pids()

    def connect(self, seconds: float = LIMIT_SECONDS) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def get(self, path: str, seconds: float = LIMIT_SECONDS) -> Answer:
        return self.call("GET", path, seconds=seconds)

    def call(self, method: str, path: str, body: bytes | None = None, seconds: float = LIMIT_SECONDS) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def exchange(self, *parts: bytes, half_close: bool = False) -> Answer:
        """Send all of it, then read one answer."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            return read_answer(client)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_SECONDS)


StartServer = Callable[..., Server]
"""Of the fixture `start`."""


def read_answer(client: socket.socket) -> Answer:
    """One answer; status 0 where the connection ends without one."""
    response = http.client.HTTPResponse(client)
    with contextlib.closing(response):
        try:
            response.begin()
        except (http.client.RemoteDisconnected, http.client.BadStatusLine):
            return Answer(0, {}, b"")
        return Answer(response.status, dict(response.getheaders()), response.read())


def read_to_end(client: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


@contextmanager
def many(server: Server, number: int, sends: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each having sent the same beginning."""
    with contextlib.ExitStack() as closing:
        clients = []
        for _ in range(number):
            client = closing.enter_context(server.connect())
            client.sendall(sends)
            clients.append(client)
        yield clients


class Load:
    """Clients that call without a pause, each over connections of its own, and note what they are answered."""

    def __init__(self, call: Callable[[], Answer], clients: int) -> None:
        self.answers: list[Answer | Exception] = []
        self._call = call
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(LIMIT_SECONDS)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(self._call())
            except (OSError, http.client.HTTPException) as error:
                self.answers.append(error)

    def statuses(self) -> set[int | str]:
        return {each.status if isinstance(each, Answer) else repr(each) for each in self.answers}


def at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """All calls at the same time."""
    answers: list[Answer | None] = [None] * len(calls)

    def run(number: int) -> None:
        answers[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    assert all(answer is not None for answer in answers), "a client was not answered in time"
    return [answer for answer in answers if answer is not None]


def wait_until(condition: Callable[[], object], seconds: float = LIMIT_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
