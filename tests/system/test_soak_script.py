"""The soak script against services that are well, ill (most of them the stub), or no such service at all.

What takes longest of it is in test_long_runs.py.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from soak_stub import command, made_checkout, report, running_stub, somebody_listens
from system_calls import ROOT, Service, free_port


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return made_checkout(tmp_path)


@pytest.fixture
def stub(checkout: Path) -> Iterator[Callable[..., str]]:
    """Starts a stub that behaves as told and returns its URL."""
    with ExitStack() as stubs:
        yield lambda behaviour="": stubs.enter_context(running_stub(checkout, behaviour))


def soak(
    checkout: Path, *arguments: str, minutes: str = "0.03", python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the copied script to its end; `arguments` win."""
    return subprocess.run(
        command("--photos", "photos", "--minutes", minutes, *arguments, python=python),
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
    )


def people(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/v1/people", timeout=5) as answer:
        return [person["name"] for person in json.load(answer)["people"]]


# -- a service that is well --


def test_the_real_service_passes(service: Service, photos: Path, checkout: Path) -> None:
    chosen = checkout / "real"
    for person, names in {"obama": ("obama", "obama2"), "biden": ("biden",)}.items():
        (chosen / person).mkdir(parents=True)
        for name in names:
            shutil.copy(photos / f"{name}.jpg", chosen / person)
    done = soak(checkout, "--url", service.url, "--photos", str(chosen), minutes="0.1")
    assert done.returncode == 0, done.stdout
    assert "PASSED" in done.stdout
    seen = report(checkout)
    assert seen["verdict"] == "passed"
    assert {process["kind"] for process in seen["samples"][-1]["processes"]} == {"supervisor", "workers", "database"}
    assert seen["samples"][-1]["connections"] > 0
    assert seen["performance"]["p50_ms"] > 0


def test_people_are_erased_from_a_service_that_ran_before(checkout: Path, stub: Callable[..., str]) -> None:
    url = stub()
    done = soak(checkout, "--url", url)
    assert done.returncode == 0, done.stdout
    assert people(url) == ["Owner"]
    seen = report(checkout)
    assert seen["recognition"]["right"] > 20
    assert seen["recognition"]["bad_inputs_refused"] > 0
    assert seen["recognition"]["errors"] == {}
    assert len(seen["recognition"]["right_by_form"]) > 5  # formats and sizes


def test_a_service_of_its_own_is_started_and_leaves_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if somebody_listens(8000):
        pytest.skip("a service runs on port 8000")
    monkeypatch.setenv("STUB_NOTES", str(checkout / "notes"))
    done = soak(checkout)
    assert done.returncode == 0, done.stdout
    assert "The service is stopped" in done.stdout
    data_dir = Path((checkout / "notes").read_text())
    assert not data_dir.parent.exists()
    assert report(checkout)["own_service"] is True


def test_a_service_of_its_own_that_does_not_start_is_quoted(checkout: Path) -> None:
    if somebody_listens(8000):
        pytest.skip("a service runs on port 8000")
    (checkout / "scripts" / "start_production.py").write_text("raise SystemExit('The disk is on fire.')")
    done = soak(checkout)
    assert done.returncode == 1
    assert "The disk is on fire." in done.stdout
    assert "FAILED: the service ended while it was starting" in done.stdout


def test_the_standard_library_is_enough(checkout: Path, stub: Callable[..., str]) -> None:
    (checkout / "scripts" / "start_production.py").rename(checkout / "elsewhere.py")
    url = stub_url_from(checkout, stub)
    done = soak(checkout, "--url", url, python=("-I", "-S"))
    assert done.returncode == 0, done.stdout
    for hint in ("Pillow is not installed", "pip install matplotlib", "GET /metrics"):
        assert hint in done.stdout
    assert report(checkout)["samples"][-1]["connections"] == 4


def stub_url_from(checkout: Path, stub: Callable[..., str]) -> str:
    """A stub although its start script is moved away: the script and its parts are alone on this machine."""
    shutil.copy(checkout / "elsewhere.py", checkout / "scripts" / "start_production.py")
    url = stub()
    (checkout / "scripts" / "start_production.py").unlink()
    return url


# -- a service that is ill --


@pytest.mark.parametrize(
    ("behaviour", "minutes", "sentence"),
    [
        ("keeps files", "0.1", "the number of file descriptors keeps growing"),
        ("wrong", "0.03", "wrong person"),
        ("garbles", "0.03", "answer makes no sense"),
        ("busy", "0.03", "were answered busy"),
        ("nonsense", "0.03", "is not the recognizer"),
        ("key", "0.03", "RECOGNIZER_API_KEY"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    behaviour: str, minutes: str, sentence: str, checkout: Path, stub: Callable[..., str]
) -> None:
    done = soak(checkout, "--url", stub(behaviour), minutes=minutes)
    assert done.returncode == 1, done.stdout
    verdict = next(line for line in done.stdout.splitlines() if line.startswith("FAILED: "))
    assert sentence in verdict, done.stdout
    assert "Traceback" not in done.stdout
    seen = report(checkout)
    assert seen["verdict"] == "failed"
    if behaviour == "wrong":  # it names a request that can be found in the log
        (example, *_) = seen["recognition"]["error_examples"]
        assert example["what"] == "wrong person"
        assert example["request_id"].startswith("soak-")


def test_a_key_is_sent(checkout: Path, stub: Callable[..., str]) -> None:
    assert soak(checkout, "--url", stub("key"), "--key", "secret").returncode == 0


def test_a_service_that_is_down_is_said_at_once(checkout: Path) -> None:
    done = soak(checkout, "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "FAILED: no service answers at http://127.0.0.1" in done.stdout


# -- a stop in the middle, a full disk, wrong usage --


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_reports_and_erases(checkout: Path, stub: Callable[..., str], sig: int) -> None:
    url = stub()
    arguments = command("--photos", "photos", "--minutes", "5", "--url", url, python=("-u",))
    with subprocess.Popen(arguments, cwd=checkout, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        while "Load:" not in process.stdout.readline():
            pass
        time.sleep(2)
        began = time.monotonic()
        process.send_signal(sig)
        said = process.stdout.read()
    assert process.returncode == 130
    assert time.monotonic() - began < 15
    assert "INTERRUPTED" in said
    assert "Traceback" not in said
    assert people(url) == ["Owner"]
    assert report(checkout)["interrupted"] is True
    assert report(checkout)["recognition"]["right"] > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_and_the_table_is_printed(checkout: Path, stub: Callable[..., str]) -> None:
    (checkout / "full.json").symlink_to("/dev/full")
    done = soak(checkout, "--url", stub(), "--report", "full.json")
    assert done.returncode == 1
    assert "PERFORMANCE" in done.stdout
    assert "FAILED: the report could not be written to full.json: No space left on device" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--minutes", "0"),
        ("--minutes", "-1"),
        ("--minutes", "nan"),
        ("--concurrency", "0"),
        ("--url", "ftp://127.0.0.1"),
        ("--url", "http://127.0.0.1:port"),
        ("--url", "http://127.0.0.1:9", "--photos", "nowhere"),
        ("--url", "http://127.0.0.1:9", "--photos", "scripts"),
        ("--report", "nowhere/soak-report.json"),
        ("--plot", "nowhere.json"),
        ("--hours", "0"),
        ("--faults", "--url", "http://127.0.0.1:9"),
    ],
)
def test_wrong_usage_is_refused(arguments: tuple[str, ...], checkout: Path) -> None:
    done = soak(checkout, *arguments)
    assert done.returncode == 2, done.stdout
    assert arguments[-2] in done.stdout
    assert "Traceback" not in done.stdout


def test_pytest_does_not_collect_the_script() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
