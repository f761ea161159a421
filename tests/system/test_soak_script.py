"""The soak script against services that are well, ill, or no such service at all.

Most of them are a stub: started as a script of its own (`main()` below), it tells people apart by the colour
of their photos and misbehaves as the environment variable STUB says.
"""

from __future__ import annotations

import base64
import email
import email.policy
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image, ImageStat
from system_calls import ROOT, Service, free_port

SCRIPT = ROOT / "scripts" / "test_continuous_recognition.py"
START_STUB = f"""import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_soak_script
test_soak_script.main()
"""
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (128, 128, 128)}
HEALTHY_REQUESTS = 40  # a stub is well until the load has begun
OWNER = {"id": "owner", "name": "Owner", "colour": [0.0, 0.0, 0.0]}


# -- the stub --


class Stub(BaseHTTPRequestHandler):
    """Answers like the service; what is wrong with it is in `behaviour`."""

    protocol_version = "HTTP/1.1"
    behaviour = os.environ.get("STUB", "")
    began = time.monotonic()
    people: dict[str, dict[str, Any]] = {"owner": OWNER}  # noqa: RUF012 - the server's state
    kept: list[object] = []  # noqa: RUF012
    requests = 0

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self.behaviour == "nonsense":
            self._answer(200, b"<html>It works!</html>")
        elif url.path == "/health/live":
            self._answer(200, {"status": "live"})
        elif url.path == "/health/ready":
            self._answer(200, {"status": "ready", "checks": {}})
        elif self.behaviour == "key" and self.headers.get("X-API-Key") != "secret":
            self._answer(401, {"code": "unauthorized", "detail": "An API key is needed."})
        elif url.path == "/metrics":
            lines = f'recognizer_worker_memory_bytes{{pid="7"}} {3e8}\nrecognizer_pool_in_use 1.0\n'
            self._answer(200, (lines + "recognizer_pool_idle 3.0\n").encode())
        else:
            query = parse_qs(url.query).get("query", [""])[0]
            self._answer(200, {"people": [p for p in self.people.values() if query in p["name"]]})

    def do_DELETE(self) -> None:
        person = self.people.pop(self.path.rpartition("/")[2], None)
        self._answer(200 if person else 404, {"left": 0})

    def do_POST(self) -> None:
        name, image = self._upload(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        try:
            with Image.open(io.BytesIO(image)) as opened:
                colour = ImageStat.Stat(opened.convert("RGB")).mean
        except OSError:
            self._answer(422, {"code": "image_corrupt", "detail": "The image is damaged."})
            return
        if self.path == "/enroll":
            person = {"id": f"id-{name}", "name": name, "colour": colour}
            self.people[person["id"]] = person
            self._answer(201, {"person": person})
        else:
            self._recognise(colour)

    def _upload(self, body: bytes) -> tuple[str, bytes]:
        kind = self.headers.get("Content-Type", "")
        if kind == "application/json":
            try:
                return "", base64.b64decode(json.loads(body)["image"], validate=True)
            except ValueError:
                return "", b""
        if not kind.startswith("multipart/"):
            return "", body
        whole = f"Content-Type: {kind}\r\n\r\n".encode() + body
        parts = email.message_from_bytes(whole, policy=email.policy.HTTP).iter_parts()
        named = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
        return named.get("name", b"").decode(), named["image"]

    def _recognise(self, colour: list[float]) -> None:
        Stub.requests += 1
        if self.requests > HEALTHY_REQUESTS and self._misbehaved():
            return
        distances = {
            sum(abs(a - b) for a, b in zip(colour, person["colour"], strict=True)) / 255: person
            for person in self.people.values()
        }
        ordered = sorted(distances)
        wrong = self.behaviour == "wrong" and self.requests > HEALTHY_REQUESTS and self.requests % 10 == 0
        distance = ordered[1 if wrong else 0]
        self._answer(200, {"faces": [{"person": distances[distance], "distance": distance}]})

    def _misbehaved(self) -> bool:
        """Whether an answer has been given already, or will never be."""
        if self.behaviour == "dies":
            os._exit(1)
        if self.behaviour == "busy" and self.requests % 5 == 0:
            self._answer(503, {"code": "busy"}, {"Retry-After": "0"})
            return True
        if self.behaviour == "garbles" and self.requests % 10 == 0:
            self._answer(200, b"[1, 2")
            return True
        if self.behaviour == "keeps memory":  # 16 MB a second, however fast this machine is
            wanted = 16 * 2**20 * (time.monotonic() - self.began)
            self.kept.append(b"x" * max(0, int(wanted - sum(map(len, self.kept)))))  # type: ignore[arg-type]
        elif self.behaviour == "keeps files" and len(self.kept) < 20 * (time.monotonic() - self.began):
            self.kept.append(open(os.devnull))  # noqa: SIM115
        return False

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


def main() -> None:
    """Serve until SIGTERM; called by what the tests put in the place of scripts/start_production.py."""
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    if "STUB_NOTES" in os.environ:
        Path(os.environ["STUB_NOTES"]).write_text(options["--data-dir"])
    server = ThreadingHTTPServer(("127.0.0.1", int(options["--port"])), Stub)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(0.1)
    server.server_close()
    sys.exit(0)


# -- helpers --


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder `scripts` like ours, with the stub in the place of the service; the report goes beside it."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(SCRIPT, scripts)
    shutil.copytree(SCRIPT.parent / "soak", scripts / "soak", ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "start_production.py").write_text(START_STUB)
    album = tmp_path / "photos"
    album.mkdir()
    for number, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (60 + 10 * number, 80), colour).save(album / f"{name}.jpg")
    return tmp_path


@pytest.fixture
def stub(checkout: Path) -> Iterator[Callable[[str], str]]:
    """Starts a stub that behaves as told and returns its URL."""
    started = []

    def start(behaviour: str = "") -> str:
        port = str(free_port())
        command = [sys.executable, "scripts/start_production.py", "--port", port, "--data-dir", "none"]
        started.append(subprocess.Popen(command, cwd=checkout, env={**os.environ, "STUB": behaviour}))
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            with suppress(OSError):
                urllib.request.urlopen(f"{url}/health/live", timeout=3).close()
                break
            time.sleep(0.1)
        return url

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def command(*arguments: str, python: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *python, "scripts/test_continuous_recognition.py", *arguments]


def soak(
    checkout: Path, *arguments: str, minutes: str = "0.05", python: tuple[str, ...] = ()
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


def report(checkout: Path) -> dict[str, Any]:
    return dict(json.loads((checkout / "soak-report.json").read_text()))


def people(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/v1/people", timeout=5) as answer:
        return [person["name"] for person in json.load(answer)["people"]]


def somebody_listens(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=3).close()
    except OSError:
        return False
    return True


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


def test_the_real_service_is_right_while_things_are_broken(tmp_path: Path) -> None:
    """Correctness is judged here, never seconds: on a busy machine a recovery may take longer than it should."""
    report_path = tmp_path / "soak.json"
    arguments = ("--faults", "--minutes", "0.6", "--seed", "5", "--report", str(report_path))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=170
    )
    seen = json.loads(report_path.read_text())
    criteria = {each["name"]: each["holds"] for each in seen["criteria"]}
    asked = ("Wrong answers", "Lost, doubled or half enrolments, deletions undone", "Hangs", "Something was done")
    assert all(criteria[name] for name in asked), done.stdout
    assert criteria["Unexpected statuses and broken connections"], done.stdout
    assert len({fault["kind"] for fault in seen["faults"]}) >= 4
    assert seen["ledger"]["enrolments_acknowledged"] > seen["ledger"]["deletions_acknowledged"] > 0
    assert (done.returncode == 0) == (seen["verdict"] == "passed") == all(h is not False for h in criteria.values())
    page = report_path.with_suffix(".html").read_text()
    assert seen["verdict"].upper() in page
    assert "data:image/png;base64," in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "worker killed" in page


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
        ("keeps memory", "0.5", "memory of the workers keeps growing"),
        ("keeps files", "0.1", "the number of file descriptors keeps growing"),
        ("wrong", "0.05", "wrong person"),
        ("garbles", "0.05", "answer makes no sense"),
        ("busy", "0.05", "were answered busy"),
        ("dies", "0.5", "the service stopped answering"),
        ("nonsense", "0.05", "is not the recognizer"),
        ("key", "0.05", "RECOGNIZER_API_KEY"),
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
    assert report(checkout)["verdict"] == "failed"


def test_an_error_names_a_request_that_can_be_found_in_the_log(checkout: Path, stub: Callable[..., str]) -> None:
    soak(checkout, "--url", stub("wrong"))
    (example, *_) = report(checkout)["recognition"]["error_examples"]
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
