"""What the tests of databases that go away are made of: servers to be broken, clients, and a door with a trap."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import psutil
import psycopg2
from database_proxy import Proxy
from PIL import Image
from system_calls import Service, enroll, free_port, recognize

from recognizer.host.account import database_account
from recognizer.postgres import programs

LIMIT_SECONDS = 45
UNTIL_READY_SECONDS = 3.0
"""What a health check may take before it counts as not answered."""

QUICK = {
    "RECOGNIZER_REQUEST_TIMEOUT_SECONDS": "8",
    "RECOGNIZER_STATEMENT_TIMEOUT_SECONDS": "4",
    "RECOGNIZER_CONNECT_TIMEOUT_SECONDS": "2",
    "RECOGNIZER_VITALS_SECONDS": "1",
    "RECOGNIZER_LOG_FORMAT": "text",
}
"""Settings that make a service notice sooner, so that a test takes seconds and not minutes."""

HOLD_SECONDS = float(QUICK["RECOGNIZER_REQUEST_TIMEOUT_SECONDS"]) + 4.0
"""After so long every request has been answered, whatever its database does; with some patience for slow machines."""


def small_photo(photos: Path, name: str, width: int = 320) -> bytes:
    """A photo that takes the service some hundredths of a second."""
    with Image.open(photos / f"{name}.jpg") as image:
        small = image.convert("RGB").resize((width, round(image.height * width / image.width)))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def wait_for(what: str, true: Callable[[], object], seconds: float = LIMIT_SECONDS) -> float:
    """Wait until something is so, and return how many seconds it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def readiness(service: Service) -> tuple[int, float]:
    """The status of a readiness check, and how long it took."""
    began = time.monotonic()
    status = httpx.get(f"{service.url}/health/ready", timeout=UNTIL_READY_SECONDS).status_code
    return status, time.monotonic() - began


def wait_until_works(service: Service, photo: bytes, seconds: float = LIMIT_SECONDS) -> float:
    """Wait until the service is ready and recognises again, and return how long it took."""

    def works() -> bool:
        with suppress(httpx.HTTPError):
            return service.is_ready() and recognize(service.url, photo).status_code == 200
        return False

    return wait_for("the service to work again", works, seconds)


def all_slots_work(service: Service, photo: bytes) -> bool:
    """Whether more requests than the pools have connections are all served, and every connection comes back."""
    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(lambda _: recognize(service.url, photo).status_code, range(32)))
    assert statuses == [200] * 32
    wait_for("every connection to be given back", lambda: gauge(service, "recognizer_pool_in_use") == 0)
    return True


def gauge(service: Service, name: str) -> float:
    """A gauge, summed over the workers; the workers bring it up to date every second."""
    lines = httpx.get(f"{service.url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def person(service: Service, person_id: str) -> dict[str, Any] | None:
    """A person as the service knows them, with the faces that are stored; None: nobody."""
    answer = httpx.get(f"{service.url}/v1/people/{person_id}", timeout=30)
    assert answer.status_code in (200, 404), answer.text
    return answer.json() if answer.status_code == 200 else None


def people(service: Service, query: str) -> list[dict[str, Any]]:
    """All people whose name contains `query`."""
    found, cursor = [], {}
    while True:
        answer = httpx.get(
            f"{service.url}/v1/people", params={"query": query, "limit": 200, **cursor}, timeout=30
        ).json()
        found += answer["people"]
        if answer["next_cursor"] is None:
            return found
        cursor = {"cursor": answer["next_cursor"]}


class Answer(NamedTuple):
    """What a client was answered; status 0: the connection broke."""

    status: int
    code: str
    seconds: float
    person_id: str


def ask(call: Callable[[], httpx.Response]) -> Answer:
    """Do one call, whatever becomes of it."""
    began = time.monotonic()
    try:
        response = call()
    except httpx.TransportError:
        return Answer(0, "", time.monotonic() - began, "")
    body = response.json()
    person_id = body["person"]["id"] if response.status_code == 201 else ""
    return Answer(response.status_code, body.get("code", ""), time.monotonic() - began, person_id)


class Load:
    """Clients that recognise and enrol without pause while entered, and what they were answered."""

    def __init__(self, service: Service, photo: bytes, name: str, clients: int = 3) -> None:
        self._service, self._photo, self._name = service, photo, name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        self.recognitions: list[Answer] = []
        self.enrolments: dict[str, Answer] = {}

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"

    @property
    def answers(self) -> list[Answer]:
        """All of them, in the order of each client."""
        return [*self.recognitions, *self.enrolments.values()]

    def counts(self) -> Counter[tuple[int, str]]:
        """How often each status and code came."""
        return Counter((answer.status, answer.code) for answer in self.answers)

    def acknowledged(self) -> dict[str, str]:
        """The people that were enrolled: their names and ids."""
        return {name: answer.person_id for name, answer in self.enrolments.items() if answer.status == 201}

    def wait_until_under_way(self) -> None:
        """Wait until enrolments and recognitions have been served."""
        before = len(self.acknowledged())
        wait_for("the load to be under way", lambda: len(self.acknowledged()) >= before + 3)

    def _run(self, client: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            name = f"{self._name} {client}-{count}"
            self.recognitions.append(ask(lambda: recognize(self._service.url, self._photo)))
            self.enrolments[name] = ask(lambda name=name: enroll(self._service.url, name, self._photo, force="true"))
            time.sleep(0.02)


def assert_ledger_holds(service: Service, load: Load, name: str) -> None:
    """Whoever was acknowledged is there by id and name; whoever was not is there in full or not at all."""
    there = {one["name"]: one for one in people(service, name)}
    acknowledged = load.acknowledged()
    assert acknowledged.keys() <= there.keys()
    assert {there[each]["id"] for each in acknowledged} == set(acknowledged.values())
    assert there.keys() <= load.enrolments.keys()
    assert {one["faces"] for one in there.values()} == {1}


# -- the processes of a service --


def postmaster(service: Service) -> psutil.Process:
    """The first process of the service's bundled PostgreSQL."""
    return next(each for each in _children(service) if each.name().startswith("postgres"))


def workers(service: Service) -> list[psutil.Process]:
    """The processes that answer requests."""
    with suppress(psutil.Error):
        master = next(each for each in _children(service) if "recognizer.servers" in " ".join(each.cmdline()))
        return master.children()
    return []


def _children(service: Service) -> list[psutil.Process]:
    assert service.process
    return psutil.Process(service.process.pid).children()


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it."""
    return [process, *process.children(recursive=True)]


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Stop a process and all below it (SIGSTOP) for as long as the block lasts."""
    stopped = family(process)
    try:
        for each in stopped:
            each.suspend()
        yield
    finally:
        for each in stopped:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def bundled_url(service: Service) -> str:
    """Where the service's bundled PostgreSQL is reached, as the service's own role."""
    password = (service.data_dir / "database-password").read_text().strip()
    return f"postgresql://recognizer:{password}@/recognizer?host={service.data_dir / 'postgres' / 'run'}"


def execute(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Run some SQL beside the service."""
    with closing(psycopg2.connect(url, connect_timeout=10)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []


TERMINATE_OTHERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE usename = 'recognizer' AND pid <> pg_backend_pid()
"""


# -- a PostgreSQL of one's own --


class OwnPostgres:
    """A PostgreSQL made of the bundled programs, on a port of 127.0.0.1, that asks nobody for a password."""

    def __init__(self, data: Path, **options: object) -> None:
        self.data = data
        self.port = free_port()
        self.options = options
        self._account = database_account()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the service reaches it."""
        return f"postgresql://recognizer:unasked@127.0.0.1:{self.port}/recognizer"

    @property
    def superuser_url(self) -> str:
        """Where the test may do whatever it likes."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/recognizer"

    @property
    def process(self) -> psutil.Process:
        """Its first process."""
        assert self._process
        return psutil.Process(self._process.pid)

    def initialize(self) -> None:
        """Make it, with an empty database that belongs to the service's role; it runs afterwards."""
        self.data.mkdir(mode=0o700)
        if self._account:
            os.chown(self.data, self._account.uid, self._account.gid)
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync").wait(
            60
        )
        self.start()
        maintenance = self.superuser_url.removesuffix("recognizer") + "postgres"
        execute(maintenance, "CREATE ROLE recognizer LOGIN")
        execute(maintenance, "CREATE DATABASE recognizer OWNER recognizer")
        execute(self.superuser_url, "CREATE EXTENSION vector")

    def copy(self, data: Path, **options: object) -> OwnPostgres:
        """Another one with the same content; this one must not be running."""
        subprocess.run(["cp", "-a", str(self.data), str(data)], check=True)
        return OwnPostgres(data, **options)

    def start(self) -> Self:
        """Start it and wait until it can be asked."""
        self.launch()
        wait_for("PostgreSQL to start", self.answers)
        return self

    def launch(self) -> None:
        """Start it without waiting."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            **self.options,
        }
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        self._process = self._run("postgres", *(f"--{name}={value}" for name, value in settings.items()))

    def answers(self) -> bool:
        """Whether it can be asked."""
        try:
            return execute(self.superuser_url.removesuffix("recognizer") + "postgres", "SELECT 1") == [(1,)]
        except psycopg2.Error:
            return False

    def kill(self) -> None:
        """kill -9 of all its processes at once."""
        if self._process and self._process.poll() is None:
            for each in family(self.process):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            self._process.wait(10)

    def stop(self) -> None:
        """A fast shutdown."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            finally:
                self.kill()

    def set(self, name: str, value: str) -> None:
        """Change an option while it runs."""
        execute(self.superuser_url, f"ALTER SYSTEM SET {name} = '{value}'")
        execute(self.superuser_url, "SELECT pg_reload_conf()")

    def remove(self) -> None:
        """End it and delete its files."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        account = self._account
        apart = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
        return subprocess.Popen(
            [str(programs.find(account) / program), "-D", str(self.data), *arguments],
            cwd=self.data,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **apart,
        )


class CommitTrap(Proxy):
    """A door that lets the commit of an enrolment through to the database, and swallows the answer.

    `sprung` is set as soon as the database has carried the commit out; the connection is cut when `let_go` is.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.armed = False
        self.sprung, self.let_go = threading.Event(), threading.Event()
        self._enrolling: set[socket.socket] = set()
        self._committing: set[socket.socket] = set()

    def relay(self, source: socket.socket, sink: socket.socket, data: bytes) -> None:
        if self.armed and b"INSERT INTO idempotency_keys" in data:
            self._enrolling.add(source)
        if source in self._enrolling and b"COMMIT" in data:
            self._committing.add(sink)
        if source in self._committing:
            self.armed = False
            self.sprung.set()
            self.let_go.wait(LIMIT_SECONDS)
            raise OSError("the answer is lost")
        sink.sendall(data)
