"""The way the service runs on Windows, waitress and its start script, for real on this system.

The promises are those of test_service.py: the ones that depend on the server are tested again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_calls import ROOT, SERVE, Service, copy_folder, enroll, recognize
from test_service import (  # noqa: F401 - collected here as well, with the fixtures of this module
    kill_one,
    photo,
    test_a_hundred_megabytes_are_refused_with_an_answer,
    test_a_person_enrolled_is_recognised_by_every_worker_at_once,
    test_a_stop_finishes_requests_in_flight_and_exits_0,
    test_an_acknowledged_enrolment_survives_kill_9_of_everything,
    test_garbage_on_the_wire_hurts_nobody,
    test_hostile_images_are_answered_200_or_4xx,
)

WAITRESS = (*SERVE, "--server", "waitress")
SCRIPT = ROOT / "scripts" / "start_windows_production.py"


@pytest.fixture(scope="module")
def service(short_tmp: Path) -> Iterator[Service]:
    service = Service(short_tmp / "waitress", "--workers", "2", command=WAITRESS)
    try:
        yield service.start()
    finally:
        service.close()


@pytest.fixture
def own_service(installation: Path, short_tmp: Path) -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(dir=short_tmp, prefix="s"))
    service = Service(copy_folder(installation, folder / "d"), "--workers", "2", command=WAITRESS)
    try:
        yield service
    finally:
        service.close()


@pytest.fixture(scope="module")
def sturdy(installation: Path, short_tmp: Path, photos: Path) -> Iterator[Service]:
    folder = copy_folder(installation, short_tmp / "sturdy-waitress")
    service = Service(folder, "--workers", "2", command=WAITRESS)
    try:
        assert enroll(service.start().url, "Ada", photo(photos, "obama")).status_code == 201
        yield service
    finally:
        service.close()


def test_the_start_says_that_it_is_waitress(service: Service) -> None:
    assert "waitress, one process with 8 threads" in service.said()
    assert "Traceback" not in service.said()


@pytest.mark.parametrize("victim", ["supervisor", "server", "postgres"])
def test_one_killed_process_is_replaced(sturdy: Service, photos: Path, victim: str) -> None:
    kill_one(sturdy, photos, victim)


def test_the_start_script_becomes_the_service(short_tmp: Path, photos: Path) -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the tests do not run in the checkout's .venv, which the script would have to make first")
    service = Service(short_tmp / "script", "--workers", "2", command=(sys.executable, str(SCRIPT)))
    try:
        service.start()
        assert "waitress" in service.said()
        assert recognize(service.url, photo(photos, "obama")).status_code == 200
        assert service.stop(signal.SIGTERM) == 0
    finally:
        service.close()


@pytest.mark.parametrize("script", ["start_windows_production.py", "start_production.py"])
def test_the_start_scripts_explain_themselves_and_set_nothing_up(script: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "--data-dir" in done.stdout
    assert "Setting up" not in done.stdout


def test_the_batch_file_is_one_for_windows() -> None:
    content = (ROOT / "start_recognizer_windows.bat").read_bytes()
    lines = content.decode("ascii").split("\r\n")
    assert "\n" not in "".join(lines)
    assert '%PYTHON% "%SCRIPT%" %*' in lines
    assert "exit /b %CODE%" in lines
    (script,) = [line for line in lines if line.startswith('set "SCRIPT=')]
    named = script.removeprefix('set "SCRIPT=%~dp0').rstrip('"').replace("\\", "/")
    assert ROOT / named == SCRIPT
