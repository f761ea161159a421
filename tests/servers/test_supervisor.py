"""The supervisor: real processes, real signals; the app is the small one of `stub.py`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg2
import pytest

from recognizer import config, installation, supervisor
from recognizer.deadline import Deadline
from recognizer.host.attempts import Turns
from recognizer.host.datadir import holder
from recognizer.postgres.server import BundledPostgres, at_work_in
from recognizer.servers import linux

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn and POSIX signals")

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "tests.servers.stub")


class Service:
    """One supervisor process and a client for it."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.output = folder.parent / f"{folder.name}.log"
        settings = {"port": free_port(), "workers": 1, "stop_timeout_seconds": 10, **settings}
        self.port = int(str(settings["port"]))
        own = {f"RECOGNIZER_{name.upper()}": str(value) for name, value in settings.items()}
        self.environment = {**os.environ, **own, "RECOGNIZER_DATA_DIR": str(folder)}
        self.start()

    def start(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                COMMAND, cwd=ROOT, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()  # gently: a killed PostgreSQL leaves shared memory until its next start
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=30)
        self.process.kill()
        wait_until(lambda: not self.family())
        self.output.unlink()

    def family(self) -> list[psutil.Process]:
        """Server and database processes of this data directory, whoever their parent is."""
        return [*servers_of(self.folder), *at_work_in(self.folder / "postgres" / "data")]

    def text(self) -> str:
        return self.output.read_text()

    def call(self, method: str, path: str, timeout: float = 15) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def status(self) -> int:
        """Of GET /health/ready; 0 when nobody answers."""
        try:
            return self.call("GET", "/health/ready", timeout=5)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.status() == 200 or self.process.poll() is not None, 30)
        assert self.process.poll() is None, self.text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    with Service(folder) as service:
        service.wait_until_ready()
        yield service


@pytest.fixture(scope="module")
def steady(folder_of_all: Path) -> Iterator[Service]:
    """One for all who leave it as it was, or kill something of it and see it back."""
    with Service(folder_of_all) as service:
        service.wait_until_ready()
        yield service


def servers_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_server = process.cmdline()[-1:] in (["server"], ["waitress"], ["development"])
            if is_server and process.environ().get("RECOGNIZER_DATA_DIR") == str(folder):
                found.append(process)
    return found


def wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = Deadline(seconds)
    while not condition():
        assert deadline.remaining_seconds(), "it did not happen in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- starting and stopping --


def test_it_says_what_it_did_where_it_listens_and_what_to_try(steady: Service) -> None:
    wait_until(lambda: "Stop:" in steady.text())
    assert f"data directory {steady.folder}" in steady.text()
    assert f"Ready: http://127.0.0.1:{steady.port}" in steady.text()
    assert f"curl -F image=@photo.jpg http://127.0.0.1:{steady.port}/recognize" in steady.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_code_0_and_nothing_is_left(service: Service, number: signal.Signals) -> None:
    workers = len(servers_of(service.folder)) - 1
    assert service.end(number) == 0
    assert not service.family()
    assert holder(service.folder) == (None, None)
    assert len((service.folder / "closed").read_text().split()) == workers  # each closed what it had open
    assert "database system is shut down" in last_log(service.folder)


def last_log(folder: Path) -> str:
    return max((folder / "postgres" / "log").iterdir(), key=lambda path: path.stat().st_mtime).read_text()


def test_requests_in_flight_are_finished_before_it_stops(service: Service) -> None:
    answers: list[tuple[int, Any]] = []
    caller = threading.Thread(target=lambda: answers.append(service.call("GET", "/slow/1.5")))
    caller.start()
    time.sleep(0.5)
    assert service.end() == 0
    caller.join()
    assert answers[0][0] == 200


def call_in_vain(service: Service, path: str) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        service.call("GET", path)


def test_a_second_ctrl_c_hurries(service: Service) -> None:
    caller = threading.Thread(target=call_in_vain, args=(service, "/slow/9"))
    caller.start()
    time.sleep(0.5)
    service.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    assert service.end(signal.SIGINT) == 0
    assert time.monotonic() - began < 7
    caller.join()


def test_a_signal_during_the_start_is_obeyed(folder: Path) -> None:
    with Service(folder) as service:
        wait_until(lambda: "data directory" in service.text())
        assert service.end() == 0
        assert not service.family()


def test_a_second_start_on_the_same_directory_says_so_and_stops(steady: Service) -> None:
    second = subprocess.run(
        COMMAND, cwd=ROOT, env=steady.environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert second.returncode == supervisor.EXIT_ALREADY_RUNNING
    assert f"process {steady.process.pid}, listening on http://127.0.0.1:{steady.port}" in second.stderr
    assert steady.status() == 200


def test_a_taken_port_stops_the_start_before_anything_is_started(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with Service(folder, port=taken.getsockname()[1]) as service:
            assert service.process.wait(timeout=10) == supervisor.EXIT_FAILED
            assert "is taken by another program" in service.text()
            assert "PostgreSQL" not in service.text()


def test_an_open_network_without_any_key_is_refused(folder: Path) -> None:
    with Service(folder, host="0.0.0.0") as service:
        assert service.process.wait(timeout=20) == supervisor.EXIT_FAILED
        assert "There is no API key" in service.text()
        assert not service.family()


def test_a_server_that_cannot_boot_fails_the_start(folder: Path) -> None:
    (folder / "broken").touch()
    with Service(folder) as service:
        assert service.process.wait(timeout=20) == supervisor.EXIT_FAILED
        assert "The app is broken." in service.text()
        assert "The server ended while it was starting" in service.text()
        assert not service.family()


# -- what it survives --


def test_what_was_answered_201_survives_kill_9_of_everything(steady: Service) -> None:
    assert steady.call("POST", "/keep/ada")[0] == 201
    for process in (psutil.Process(steady.process.pid), *steady.family()):
        with suppress(psutil.NoSuchProcess):  # gone with its parent
            process.kill()
    steady.process.wait()
    steady.start()
    steady.wait_until_ready()
    assert "ada" in steady.call("GET", "/kept")[1]


def test_kill_9_of_the_supervisor_alone_takes_its_children_along(steady: Service) -> None:
    steady.process.kill()
    steady.process.wait()
    wait_until(lambda: not steady.family())
    steady.start()
    steady.wait_until_ready()


def test_a_start_right_after_kill_9_of_the_supervisor_waits_for_the_orphans(steady: Service) -> None:
    assert steady.call("POST", "/keep/grace")[0] == 201
    steady.process.kill()
    steady.process.wait()
    steady.start()
    steady.wait_until_ready()
    assert "grace" in steady.call("GET", "/kept")[1]


def test_a_killed_server_is_started_again(service: Service) -> None:
    old = servers_of(service.folder)
    master = next(process for process in old if process.ppid() == service.process.pid)
    master.kill()
    wait_until(lambda: not any(process.is_running() for process in old))
    service.wait_until_ready()
    assert service.end() == 0


def test_a_killed_postgresql_is_started_again_and_found_by_the_same_workers(steady: Service) -> None:
    assert steady.call("POST", "/keep/joan")[0] == 201
    workers = {process.pid for process in servers_of(steady.folder)}
    for process in at_work_in(steady.folder / "postgres" / "data"):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: "PostgreSQL has ended" in steady.text())
    steady.wait_until_ready()
    assert "joan" in steady.call("GET", "/kept")[1]
    assert {process.pid for process in servers_of(steady.folder)} == workers


def test_what_fails_again_and_again_is_started_more_seldom_and_what_has_run_for_a_while_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("recognizer.host.attempts.time.monotonic", lambda: now)
    turns = Turns("PostgreSQL")
    taken = []
    for tenth in range(200):
        now = tenth / 10
        if turns.take():
            taken.append(now)
    assert taken == [0.0, 0.5, 1.5, 3.5, 7.5, 12.5, 17.5]
    now = 200.0  # it has run for long; it ends twice
    assert turns.take()
    assert not turns.take()
    now = 215.0
    assert turns.take(), "after a quiet while, at once again"


def test_an_absent_external_database_delays_only_readiness(folder: Path, elsewhere: Path) -> None:
    with BundledPostgres(elsewhere) as outside:
        url = outside.url
    with Service(folder, database_url=url) as service:
        wait_until(lambda: "not ready yet" in service.text(), 30)
        assert service.status() == 503
        assert "database: It is away." in service.text()
        with BundledPostgres(elsewhere):
            service.wait_until_ready()
            wait_until(lambda: "Ready:" in service.text())
            assert service.end() == 0
    assert not (folder / "postgres" / "data" / "postmaster.pid").exists()


# -- requests that never come to an end --


def test_half_sent_requests_do_not_take_the_threads_for_ever(folder: Path) -> None:
    with Service(folder, threads=2, request_timeout_seconds=1) as service:
        service.wait_until_ready()
        with contextlib.ExitStack() as closing:
            for begin in (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nab", b"GET / HT") * 2:
                client = closing.enter_context(socket.create_connection(("127.0.0.1", service.port)))
                client.sendall(begin)
            wait_until(lambda: service.status() == 200, 20)


# -- gunicorn --


def test_gunicorn_takes_our_options_and_then_the_operators_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators = tmp_path / "gunicorn.conf.py"
    operators.write_text("keepalive = 75\n")
    monkeypatch.setattr(linux, "OPERATORS_FILE", operators)
    cfg = linux.Server(config.load({"host": "::1", "port": 8001, "workers": 3})).cfg
    assert (cfg.address, cfg.workers, cfg.keepalive) == ([("::1", 8001)], 3, 75)
    assert cfg.control_socket_disable
    assert not cfg.preload_app


def test_the_shipped_gunicorn_file_changes_nothing_by_itself() -> None:
    shipped = runpy.run_path(str(ROOT / "config" / "gunicorn.conf.py"))
    options = linux.gunicorn_options(config.load())
    assert shipped["worker_class"].settings == options.pop("worker_class").settings
    for name, value in options.items():
        assert shipped[name] == value


def test_the_server_does_not_tell_its_version(steady: Service) -> None:
    with socket.create_connection(("127.0.0.1", steady.port)) as client:
        client.sendall(b"GET /health/ready HTTP/1.0\r\n\r\n")
        head = client.recv(4096)
    assert b"200 OK" in head
    assert b"gunicorn/" not in head
    assert b"Werkzeug" not in head


# -- commands --


def settings_for(folder: Path) -> config.Settings:
    return config.load({"data_dir": folder, "start_timeout_seconds": 20})


def test_a_command_starts_the_database_for_itself_while_the_service_is_stopped(folder: Path) -> None:
    with installation.database(settings_for(folder)) as url:
        psycopg2.connect(url).close()
        assert at_work_in(folder / "postgres" / "data")
    assert not at_work_in(folder / "postgres" / "data")


def test_a_command_uses_the_database_of_the_running_service(steady: Service) -> None:
    with installation.database(settings_for(steady.folder)) as url:
        psycopg2.connect(url).close()
    assert steady.status() == 200
