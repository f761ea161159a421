"""waitress as we run it: real processes and sockets; the app is the small one of `stub.py`."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from test_supervisor import Service, free_port, servers_of, wait_until

from recognizer import config
from recognizer.errors import StartupError
from recognizer.servers import windows
from recognizer.servers.child import available_port, bound_socket
from recognizer.servers.choice import for_one_process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 100_000


class Waitress:
    """The server alone, without supervisor and database."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.port = free_port()
        self.host = str(settings.get("host", "127.0.0.1")).strip("[]")
        settings = {"port": self.port, "data_dir": folder, "threads": 2, "max_image_bytes": LIMIT_BYTES, **settings}
        settings |= {"max_request_bytes": LIMIT_BYTES}
        own = {f"RECOGNIZER_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.stub", "waitress"], cwd=ROOT, env={**os.environ, **own}
        )

    def __enter__(self) -> Self:
        wait_until(self.listens)
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()

    def listens(self) -> bool:
        with contextlib.suppress(OSError):
            self.connect().close()
            return True
        return False

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=15)

    def get(self, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=15)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def exchange(self, *parts: bytes) -> tuple[str, dict[str, str], bytes]:
        """Send all of it, then read the answer up to the end of the connection."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            return parse(read_to_end(client))


def read_to_end(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def parse(answer: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waitress]:
    """One for all who leave it as it was: each of them finds it at work after the one before."""
    with Waitress(tmp_path_factory.mktemp("waitress")) as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Waitress]:
    with Waitress(tmp_path) as server:
        yield server


def assert_problem(answer: tuple[str, dict[str, str], bytes], status: int, code: str) -> None:
    line, headers, body = answer
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert headers["Content-Type"] == "application/problem+json"
    assert "Server" not in headers
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == headers["X-Request-Id"]


# -- limits --


def test_a_client_that_is_still_sending_too_much_reads_the_answer(server: Waitress) -> None:
    size = 50 * 2**20
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    assert_problem(server.exchange(head, *[bytes(2**20)] * 50), 413, "image_too_large")


def test_a_body_without_an_end_is_cut_off_with_an_answer(server: Waitress) -> None:
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    assert_problem(server.exchange(head, *[chunk] * 40), 413, "image_too_large")


def test_a_refused_body_is_not_asked_for(server: Waitress) -> None:
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as client:
        client.sendall(head)
        client.shutdown(socket.SHUT_WR)
        assert_problem(parse(read_to_end(client)), 413, "image_too_large")


@pytest.mark.parametrize(("size", "status"), [(LIMIT_BYTES, "200"), (LIMIT_BYTES + 1, "413")])
def test_the_limit_is_the_last_size_that_is_accepted(server: Waitress, size: int, status: str) -> None:
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    assert server.exchange(head, bytes(size))[0].split()[1] == status


@pytest.mark.parametrize(
    "request_line",
    [
        b"\x00\xff",
        b"GET",
        b"GET /",
        b"GET / HTTP/9.9",
        b"GET / HTTP/9.9 x",
        b"GET / HTTP/1.1\r\nContent-Length: x",
        b"GET / HTTP/1.1\r\nbad line",
    ],
)
def test_a_malformed_request_is_refused_in_our_shape(server: Waitress, request_line: bytes) -> None:
    assert_problem(server.exchange(request_line + b"\r\n\r\n"), 400, "invalid_request")


def test_endless_headers_are_refused(server: Waitress) -> None:
    headers = b"X-A: " + b"a" * 200_000 + b"\r\n\r\n"
    assert_problem(server.exchange(b"GET / HTTP/1.1\r\n" + headers), 431, "invalid_request")


def test_the_server_does_not_tell_its_version(server: Waitress) -> None:
    _, headers, _ = server.exchange(b"GET /slow/0 HTTP/1.0\r\n\r\n")
    assert "Server" not in headers


# -- clients that are slow --


def test_half_sent_requests_take_no_threads_and_do_not_last(tmp_path: Path) -> None:
    with Waitress(tmp_path, threads=1, request_timeout_seconds=2) as server, contextlib.ExitStack() as closing:
        begun = time.monotonic()
        clients = []
        for begin in (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nab", b"GET / HT") * 3:
            client = closing.enter_context(server.connect())
            client.sendall(begin)
            clients.append(client)
        assert server.get("/slow/0")[0] == 200
        assert time.monotonic() - begun < 2
        for client in clients:
            assert read_to_end(client) == b""


def test_a_request_that_drips_has_the_same_limit(tmp_path: Path) -> None:
    with Waitress(tmp_path, request_timeout_seconds=1) as server, server.connect() as client:
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < begun + 10:
                client.sendall(b"G")
                time.sleep(0.1)
        assert time.monotonic() - begun < 5


# -- the end --


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_it_has_accepted_then_closes_what_is_open(
    own_server: Waitress, tmp_path: Path, number: signal.Signals
) -> None:
    answers: list[int] = []
    callers = [threading.Thread(target=lambda: answers.append(own_server.get("/slow/1")[0])) for _ in range(6)]
    for caller in callers:  # three for each thread
        caller.start()
    time.sleep(0.5)
    own_server.process.send_signal(number)
    wait_until(lambda: not own_server.listens())
    assert own_server.process.poll() is None
    for caller in callers:
        caller.join()
    assert answers == [200] * 6
    assert own_server.process.wait(timeout=10) == 0
    assert (tmp_path / "closed").read_text().split() == [str(own_server.process.pid)]


def test_a_connection_that_is_kept_alive_does_not_keep_it_from_ending(own_server: Waitress) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", own_server.port, timeout=15)
    with contextlib.closing(connection):
        connection.request("GET", "/slow/0")
        assert connection.getresponse().read()
        connection.request("GET", "/slow/1")
        time.sleep(0.3)
        own_server.process.terminate()
        response = connection.getresponse()
        assert (response.status, response.getheader("Connection")) == (200, "close")
        assert own_server.process.wait(timeout=10) == 0


def test_a_request_that_does_not_end_is_not_waited_for_longer_than_allowed(tmp_path: Path) -> None:
    with Waitress(tmp_path, stop_timeout_seconds=1) as server, server.connect() as client:
        client.sendall(b"GET /slow/30 HTTP/1.0\r\n\r\n")
        time.sleep(0.3)
        server.process.terminate()
        assert server.process.wait(timeout=10) == 0
        assert (tmp_path / "closed").exists()


# -- under the supervisor --


def test_the_supervisor_runs_it_replaces_it_and_stops_it(folder: Path) -> None:
    with Service(folder, server="waitress") as service:
        service.wait_until_ready()
        wait_until(lambda: "Ready:" in service.text())
        assert "waitress, one process with 4 threads" in service.text()
        (server,) = servers_of(folder)
        server.kill()
        wait_until(lambda: server not in servers_of(folder))
        service.wait_until_ready()
        assert service.end() == 0
        assert not service.family()


# -- what it is given --


def test_the_one_process_gets_what_the_settings_give_to_all_workers() -> None:
    settings = for_one_process(config.load({"workers": 8, "threads": 16, "pool_min": 2, "pool_max": 3}))
    assert (settings.workers, settings.threads, settings.pool_min, settings.pool_max) == (1, 128, 16, 24)


def test_a_port_is_shared_with_nobody() -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match="is taken by another program"):
            available_port("127.0.0.1", port)


@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost"])
def test_it_listens_where_gunicorn_would(tmp_path: Path, host: str) -> None:
    try:
        available_port(host, 0)
    except StartupError:
        pytest.skip("no IPv6 here")
    with Waitress(tmp_path, host=host) as server:
        assert server.get("/slow/0")[0] == 200


def test_windows_can_wait_for_all_connections_at_once() -> None:
    assert windows.CONNECTIONS < 512
