"""PostgreSQL servers to be broken: a service's bundled one, one of the test's own, and a door with a trap before it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg2
from database_faults import LIMIT_SECONDS, wait_for
from database_proxy import Proxy
from system_calls import Service, free_port

from recognizer.host.account import database_account
from recognizer.postgres import programs

# -- the processes of a service --


def postmaster(service: Service) -> psutil.Process:
    """The first process of the service's bundled PostgreSQL."""
    return next(each for each in _children(service) if each.name().startswith("postgres"))


def workers(service: Service) -> list[psutil.Process]:
    """The processes that answer requests: children of the server's."""
    found: list[psutil.Process] = []
    for each in _children(service):
        with suppress(psutil.Error):
            if "recognizer.servers" in " ".join(each.cmdline()):
                found += each.children()
    return found


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
