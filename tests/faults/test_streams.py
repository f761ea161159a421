"""GET /v1/events under gunicorn: every worker's recognitions in every worker's streams, and no thread for any of them.

The service itself, two workers with one thread each, over a real PostgreSQL.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import psycopg2
import pytest
from emptying import empty
from fault_clients import LIMIT_SECONDS, ROOT, free_port, wait_until
from system_calls import NO_TLS, copy_folder

from recognizer import config
from recognizer.gallery.migrate import migrate
from recognizer.news import QUEUE_LENGTH

PLACES = 3


class Stream:
    """A client of the stream, on a socket of its own."""

    def __init__(self, port: int, receive_bytes: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(LIMIT_SECONDS)
        self.sock.connect(("127.0.0.1", port))
        self.sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
        self.answer = http.client.HTTPResponse(self.sock)
        self.answer.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.answer.close()
        self.sock.close()

    def next(self) -> tuple[str, Any]:
        """The next event, heartbeats left out; ("end", None) at the end."""
        event = ""
        while line := self.answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                return event, json.loads(value)
        return "end", None

    def worker(self, of: Service) -> int:
        """The process that sends it."""
        mine = self.sock.getsockname()[1]
        return next(
            worker.pid
            for worker in psutil.Process(of.process.pid).children()
            for each in worker.net_connections("tcp")
            if each.raddr and each.raddr.port == mine
        )


class Service:
    """A server's module over a database, without a supervisor."""

    def __init__(self, folder: Path, url: str, module: str = "linux", **changed: object) -> None:
        self.port = free_port()
        own = {"port": self.port, "data_dir": folder, "database_url": url, "event_streams": PLACES}
        settings = config.load({**own, "workers": 2, "threads": 1, **changed})
        self.processes = 1 if module == "windows" else 1 + settings.workers
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = (folder / "log").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"recognizer.servers.{module}"],
            cwd=ROOT,
            env={**os.environ, **settings.as_environment()},
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        wait_until(lambda: self._serves() or self.process.poll() is not None)
        assert self.process.poll() is None
        return self

    def _serves(self) -> bool:
        try:
            ready = httpx.get(f"{self.url}/health/ready", timeout=2, verify=NO_TLS).status_code == 200
        except httpx.HTTPError:
            return False
        return ready and len(psutil.Process(self.process.pid).children()) == self.processes - 1

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(LIMIT_SECONDS)
        self._log.close()

    def stream(self) -> Stream:
        return Stream(self.port)

    def post(self, path: str, photo: bytes, **options: str) -> dict[str, Any]:
        answer = httpx.post(self.url + path, files={"image": photo}, data=options, timeout=LIMIT_SECONDS, verify=NO_TLS)
        assert answer.status_code in (200, 201), answer.text
        body: dict[str, Any] = answer.json()
        return body


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[Callable[..., Any]]:
    migrate(postgres_url, 60)
    empty(postgres_url)
    with closing(psycopg2.connect(postgres_url)) as connection:
        connection.autocommit = True

        def execute(sql: str, *values: object) -> list[Any]:
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() if cursor.description else []

        yield execute


@pytest.fixture(scope="module")
def folder(models: Path, short_tmp: Path) -> Path:
    folder = short_tmp / "streams"
    folder.mkdir()
    copy_folder(models, folder / "models")
    return folder


@pytest.fixture(scope="module")
def service(database: Callable[..., Any], postgres_url: str, folder: Path) -> Iterator[Service]:
    with Service(folder, postgres_url) as running:
        yield running


@pytest.fixture
def obama(photos: Path) -> bytes:
    return (photos / "obama.jpg").read_bytes()


def tell(database: Callable[..., Any], number: int, filling: int = 0) -> None:
    """As a worker would: so many recognitions, one of them after the other."""
    database(
        """
        SELECT pg_notify('recognizer_news', json_build_object(
            'collection', 'default', 'face', number, 'filling', repeat('x', %s))::text)
        FROM generate_series(1, %s) AS number
        """,
        filling,
        number,
    )


def open_in_both_workers(service: Service, opened: ExitStack) -> list[Stream]:
    """Streams as they come, until each worker has one; a worker whose places are taken refuses more."""
    streams: list[Stream] = []
    for _ in range(50):
        if len({stream.worker(service) for stream in streams}) == 2:
            return streams
        stream = opened.enter_context(service.stream())
        assert stream.answer.status in (200, 503)
        if stream.answer.status == 200:
            streams.append(stream)
    raise AssertionError("one worker gets them all")


def test_all_hear_what_any_worker_recognises_and_no_thread_is_held(service: Service, obama: bytes) -> None:
    ada = service.post("/enroll", obama, name="Ada")["person"]
    with ExitStack() as opened:
        streams = open_in_both_workers(service, opened)
        for stream in streams:
            assert stream.next() == ("ready", {})
        answers = [service.post("/recognize", obama) for _ in range(3)]  # each worker has one thread
        for stream in streams:
            told = [stream.next() for _ in answers]
            assert {event for event, _ in told} == {"recognition"}
            assert [data["request_id"] for _, data in told] == [answer["request_id"] for answer in answers]
            assert told[0][1]["person"] == {"id": ada["id"], "name": "Ada"}


def test_beyond_the_places_nobody_is_taken_and_who_leaves_makes_room(service: Service) -> None:
    with ExitStack() as opened:
        streams = []
        while (stream := opened.enter_context(service.stream())).answer.status == 200:
            streams.append(stream)
            assert len(streams) <= 2 * PLACES
        assert stream.answer.status == 503
        assert json.loads(stream.answer.read())["code"] == "busy"
        assert len(streams) >= PLACES
        worker = next(psutil.Process(stream.worker(service)) for stream in streams)
        files = worker.num_fds()
    wait_until(lambda: worker.num_fds() <= files - PLACES)
    with service.stream() as again:
        assert again.next() == ("ready", {})


def test_a_slow_reader_costs_no_memory_loses_the_oldest_and_is_told(
    service: Service, database: Callable[..., Any]
) -> None:
    with Stream(service.port, receive_bytes=4096) as slow:
        assert slow.next() == ("ready", {})
        worker = psutil.Process(slow.worker(service))
        before = worker.memory_info().rss
        for _ in range(20):
            tell(database, 1000, filling=3000)
            time.sleep(0.05)
        database("SELECT pg_sleep(0.5)")
        assert worker.memory_info().rss - before < 30 * 2**20, "60 MB were told"
        tell(database, 1)
        events, lost = 0, 0
        while (notice := slow.next())[1].get("filling") != "":
            events += notice[0] == "recognition"
            lost += notice[1].get("events", 0) if notice[0] == "lost" else 0
        assert lost > 10_000
        assert events + lost == 20_000
        assert events > QUEUE_LENGTH


def test_a_stream_outlives_the_databases_connection_and_says_so(
    service: Service, database: Callable[..., Any], obama: bytes
) -> None:
    with service.stream() as stream:
        assert stream.next() == ("ready", {})
        database(
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND mode = 'ShareLock' AND classid::bigint << 32 | objid::bigint = %s",
            0x7265_636F_676E,
        )
        assert stream.next()[0] == "away"
        assert stream.next() == ("ready", {})
        answer = service.post("/recognize", obama)
        assert stream.next()[1]["request_id"] == answer["request_id"]


def test_nothing_is_told_where_nobody_listens(
    service: Service, database: Callable[..., Any], postgres_url: str, obama: bytes
) -> None:
    """Somebody who has not said so hears nothing, until somebody listens."""
    with closing(psycopg2.connect(postgres_url)) as eavesdropper:
        eavesdropper.autocommit = True
        eavesdropper.cursor().execute("LISTEN recognizer_news")
        wait_until(lambda: not database("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"))
        service.post("/recognize", obama)
        time.sleep(0.3)
        with service.stream() as stream:
            assert stream.next() == ("ready", {})
            answer = service.post("/recognize", obama)
            stream.next()
        eavesdropper.cursor().execute("SELECT 1")
        assert [json.loads(each.payload)["request_id"] for each in eavesdropper.notifies] == [answer["request_id"]]


def test_workers_that_stop_end_their_streams_at_once(service: Service) -> None:
    """The last test: it stops the service."""
    with ExitStack() as opened:
        streams = open_in_both_workers(service, opened)
        for stream in streams:
            assert stream.next() == ("ready", {})
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert [stream.next()[0] for stream in streams] == ["end"] * len(streams)
        assert service.process.wait(LIMIT_SECONDS) == 0
        assert time.monotonic() - began < 10, "stop_timeout_seconds is 30"


def test_under_waitress_a_stream_holds_a_thread_and_ends_with_the_server(
    postgres_url: str, database: Callable[..., Any], folder: Path, obama: bytes
) -> None:
    with Service(folder, postgres_url, "windows", threads=4, workers=1) as service, service.stream() as stream:
        assert stream.next() == ("ready", {})
        with service.stream() as refused:
            assert refused.answer.status == 503
        answer = service.post("/recognize", obama)
        assert stream.next()[1]["request_id"] == answer["request_id"]
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert stream.next()[0] == "end"
        assert service.process.wait(LIMIT_SECONDS) == 0
        assert time.monotonic() - began < 10, "stop_timeout_seconds is 30"
