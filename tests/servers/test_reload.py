"""SIGHUP: new settings and new code, and no client notices; what the supervisor keeps open meanwhile."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from test_supervisor import Service, servers_of, wait_until

from recognizer import config
from recognizer.errors import StartupError
from recognizer.host import attempts
from recognizer.reloading import after_reload

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn and POSIX signals")


@contextmanager
def calling(service: Service) -> Iterator[list[object]]:
    """Call without a pause over new connections while the block lasts; every outcome but 200 is noted."""
    failures: list[object] = []
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            try:
                status = service.call("GET", "/slow/0.05")[0]
            except OSError as error:
                failures.append(error)
            else:
                if status != 200:
                    failures.append(status)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        yield failures
    finally:
        over.set()
        for caller in callers:
            caller.join()


def pids(service: Service) -> set[int]:
    return {process.pid for process in servers_of(service.folder)}


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "recognizer.toml"
    path.write_text("threads = 3\n")
    return path


@pytest.fixture
def service(folder: Path, settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("RECOGNIZER_CONFIG", str(settings_file))
    with Service(folder) as service:
        service.wait_until_ready()
        wait_until(lambda: "Stop:" in service.text())
        yield service


def test_a_reload_takes_new_settings_and_no_request_fails(service: Service, settings_file: Path) -> None:
    before = pids(service)
    settings_file.write_text("threads = 5\n")
    with calling(service) as failures:
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "Reloaded" in service.text(), 60)
        wait_until(lambda: not pids(service) & before, 30)
    assert failures == []
    (worker,) = (process for process in servers_of(service.folder) if process.ppid() != service.process.pid)
    assert worker.environ()["RECOGNIZER_THREADS"] == "5"
    assert service.end() == 0
    assert not service.family()


def test_a_reload_that_cannot_work_changes_nothing(service: Service, settings_file: Path) -> None:
    before = pids(service)
    settings_file.write_text("thread = 5\n")
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Unknown setting `thread`" in service.text())
    settings_file.write_text("threads = 5\n")
    (service.folder / "broken").touch()
    with calling(service) as failures:
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "does not come up" in service.text(), 60)
        wait_until(lambda: pids(service) == before)
    assert failures == []


def test_clients_wait_while_a_killed_master_is_started_again(service: Service) -> None:
    old = servers_of(service.folder)
    with calling(service) as failures:
        next(process for process in old if process.ppid() == service.process.pid).kill()
        wait_until(lambda: not any(process.is_running() for process in old), 30)
        service.wait_until_ready()
    refused = [failure for failure in failures if isinstance(failure, ConnectionRefusedError)]
    assert refused == [], "the listening socket is the supervisor's"


def test_stale_files_do_not_block_a_start(service: Service) -> None:
    for process in (psutil.Process(service.process.pid), *service.family()):
        if process.is_running():
            process.kill()
    service.process.wait()
    assert (service.folder / "postgres" / "data" / "postmaster.pid").exists()
    (service.folder / "running.json").write_text('{"pid": 1, "address": "http://127.0.0.1:1"}')
    (service.folder / "lock").touch()
    (service.folder / "metrics" / "counter_1.db").write_bytes(b"not a map of metrics")
    service.start()
    service.wait_until_ready()


def test_a_taken_port_is_noticed_before_anything_is_started(service: Service) -> None:
    with socket.socket() as second, pytest.raises(OSError, match="in use"):
        second.bind(("127.0.0.1", service.port))


def test_what_only_a_start_can_change_stays_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    old = config.load({"port": 8001, "workers": 2, "threads": 2})
    new = config.load({"port": 8002, "workers": 4, "threads": 6, "log_level": "debug"})
    settings = after_reload(old, new)
    assert (settings.port, settings.workers, settings.threads, settings.log_level) == (8001, 2, 6, "debug")
    assert "only when the service is started anew: port, workers" in caplog.text


def test_what_ends_again_and_again_is_given_up_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: now[0])
    turns = attempts.Turns("The server", 3)
    taken = 0
    with pytest.raises(StartupError, match="The server has ended again and again"):
        for _ in range(100):
            taken += turns.take()
            now[0] += 0.5
    assert taken == 3
    now[0] += 1000
    assert turns.take()
