"""What an operator relies on: `check`, metrics over all workers, the log and its file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from system_calls import Service, enroll, free_port, recognize

LIMIT_SECONDS = 60


def photo(photos: Path, name: str) -> bytes:
    return (photos / f"{name}.jpg").read_bytes()


def check(data_dir: Path, **environment: str) -> tuple[int, str]:
    """Exit code and output of `recognizer check`."""
    done = subprocess.run(
        [sys.executable, "-m", "recognizer", "check", "--data-dir", str(data_dir)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def finding(output: str, part: str) -> tuple[str, str]:
    """What was found out about a part: `ok` or `FAILED`, and the sentence."""
    (line,) = [line for line in output.splitlines() if line.split()[1:2] == [part] and line[:1] in "oF"]
    state, _, detail = line.split(maxsplit=2)
    return state, detail


def log_lines(*paths: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def requests_in(path: Path) -> list[dict[str, Any]]:
    return [line for line in log_lines(path) if line["message"] == "request"]


def wait_for(what: str, true: Any) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


# -- recognizer check --


def test_check_of_a_healthy_setup(service: Service) -> None:
    code, output = check(service.data_dir, RECOGNIZER_PORT=str(free_port()), RECOGNIZER_THREADS="3")
    assert code == 0, output
    parts = {part: finding(output, part)[0] for part in ("port", "disk", "log", "models", "database")}
    assert set(parts.values()) == {"ok"}
    settings = dict(line.split(maxsplit=1) for line in output.partition("\n\n")[0].splitlines())
    assert settings["threads"].split() == ["3", "environment"]
    assert settings["data_dir"].split() == [str(service.data_dir), "command", "line"]
    assert settings["target_fpir"].split() == ["0.01", "default"]
    assert service.is_ready()


def test_check_knows_the_service_that_runs_on_its_port(service: Service) -> None:
    code, output = check(service.data_dir, RECOGNIZER_PORT=str(service.port))
    assert code == 0, output
    assert "answers already" in finding(output, "port")[1]


def test_check_before_the_first_start_makes_nothing(short_tmp: Path) -> None:
    data_dir, log_file = short_tmp / "not-yet", short_tmp / "not-yet.log"
    code, output = check(data_dir, RECOGNIZER_PORT=str(free_port()), RECOGNIZER_LOG_FILE=str(log_file))
    assert code == 0, output
    assert "first start" in finding(output, "database")[1]
    assert not data_dir.exists()
    assert not log_file.exists()


def test_check_says_that_the_port_is_taken(service: Service, short_tmp: Path) -> None:
    code, output = check(short_tmp / "not-yet", RECOGNIZER_PORT=str(service.port))
    assert code == 1
    assert finding(output, "port") == (
        "FAILED",
        f"Port {service.port} on 127.0.0.1 is taken by another program; choose another one with --port.",
    )
    assert finding(output, "models")[0] == "ok", "the other parts are checked all the same"


def test_check_says_that_the_database_is_away(short_tmp: Path) -> None:
    url = "postgresql://nobody:hunter2@127.0.0.1:9/none"
    code, output = check(
        short_tmp / "not-yet",
        RECOGNIZER_DATABASE_URL=url,
        RECOGNIZER_PORT=str(free_port()),
        RECOGNIZER_START_TIMEOUT_SECONDS="2",
    )
    assert code == 1
    state, detail = finding(output, "database")
    assert state == "FAILED"
    assert "database" in detail.lower()
    assert "hunter2" not in output


def test_check_says_that_the_log_cannot_be_written_and_that_a_key_is_missing(short_tmp: Path) -> None:
    path = short_tmp / "nowhere" / "recognizer.log"
    code, output = check(
        short_tmp / "not-yet",
        RECOGNIZER_LOG_FILE=str(path),
        RECOGNIZER_HOST="0.0.0.0",
        RECOGNIZER_PORT=str(free_port()),
    )
    assert code == 1
    assert finding(output, "log")[0] == finding(output, "database")[0] == "FAILED"
    assert f"The log file {path} cannot be written: No such file or directory." in output
    assert "keys create" in finding(output, "database")[1]
    assert "2 of the parts would not work" in output


def test_check_names_an_unknown_setting(short_tmp: Path) -> None:
    code, output = check(short_tmp / "not-yet", RECOGNIZER_PROT="1")
    assert code == 1
    assert output.startswith("Error: Unknown setting `prot` in the environment")
    assert output.strip().endswith("did you mean `port`?")


# -- the log --


@pytest.fixture
def log_file(own_service: Service) -> Path:
    """Where `own_service` shall write its log; beside its data directory, so that nothing is made there before it."""
    return own_service.data_dir.parent / "recognizer.log"


def test_metrics_add_up_over_both_workers_and_a_request_is_found_by_its_id(
    own_service: Service, photos: Path, log_file: Path
) -> None:
    own_service.start(RECOGNIZER_LOG_FILE=str(log_file))
    assert enroll(own_service.url, "Ada", photo(photos, "obama")).status_code == 201
    sent = 0

    def both_workers_have_answered() -> bool:
        nonlocal sent
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: recognize(own_service.url, photo(photos, "obama2")), range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        sent += 4
        return len({line["process"] for line in requests_in(log_file)}) == 2

    wait_for("an answer of each worker", both_workers_have_answered)
    scrape = httpx.get(f"{own_service.url}/metrics").text
    lines = [line.rpartition(" ") for line in scrape.splitlines() if not line.startswith("#")]
    values = {name: float(value) for name, _, value in lines}
    assert values['recognizer_requests_total{code="",route="/recognize",status="200"}'] == sent
    assert values['recognizer_decisions_total{decision="match"}'] == sent
    assert values['recognizer_request_seconds_count{route="/recognize"}'] == sent
    assert values["recognizer_worker_starts_total"] == 2
    assert sum(name.startswith("recognizer_worker_memory_bytes{") for name in values) == 2
    files = {"image": photo(photos, "obama2")}
    answer = httpx.post(f"{own_service.url}/recognize", files=files, headers={"X-Request-ID": "front-door-17"})
    assert answer.headers["X-Request-ID"] == "front-door-17"
    wait_for("the request's line", lambda: len(requests_in(log_file)) == sent + 2)
    (line,) = [line for line in requests_in(log_file) if line["request_id"] == "front-door-17"]
    assert (line["route"], line["status"], line["faces"], line["decisions"]) == ("/recognize", 200, 1, {"match": 1})
    assert own_service.stop() == 0
    assert [line["message"] for line in log_lines(log_file)][-1] == "stop"
    assert '"request"' not in own_service.said(), "the log goes to its file only"


def test_the_log_file_is_rotated_under_load_and_no_line_is_torn(own_service: Service, log_file: Path) -> None:
    own_service.start(
        RECOGNIZER_LOG_FILE=str(log_file), RECOGNIZER_LOG_FILE_BYTES="65536", RECOGNIZER_LOG_FILES_KEPT="2"
    )
    oldest = log_file.with_name("recognizer.log.2")

    def ask(_: int) -> None:
        with httpx.Client(base_url=own_service.url, timeout=LIMIT_SECONDS) as client:
            for _ in range(50):
                assert client.get("/v1/people").status_code == 200

    def has_rotated_three_times() -> bool:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))
        return oldest.exists() and not any(line["message"] == "start" for line in log_lines(oldest))

    wait_for("the third rotation", has_rotated_three_times)
    assert own_service.stop() == 0
    names = ["recognizer.log", "recognizer.log.1", "recognizer.log.2"]
    assert sorted(path.name for path in log_file.parent.glob("recognizer.log*")) == names
    files = [log_file.with_name(name) for name in reversed(names)]
    assert all(path.stat().st_size <= 65536 for path in files)
    lines = log_lines(*files)  # each of them is whole JSON
    assert len([line for line in lines if line["message"] == "request"]) > 300
    ids = [line["request_id"] for line in lines if line["message"] == "request"]
    assert len(set(ids)) == len(ids)
    assert {line["message"] for line in log_lines(log_file)} >= {"stop"}


@pytest.mark.parametrize("where", ["no such folder", "a file for a folder"])
def test_a_log_that_cannot_be_written_ends_the_start_with_a_sentence(fresh_service: Service, where: str) -> None:
    place = fresh_service.data_dir.parent / "place"
    if where == "a file for a folder":
        place.write_text("")
    path = place / "recognizer.log"
    fresh_service.start(wait=False, RECOGNIZER_LOG_FILE=str(path))
    assert fresh_service.process
    assert fresh_service.process.wait(LIMIT_SECONDS) == 1
    said = fresh_service.said().strip()
    assert said.startswith(f"Error: The log file {path} cannot be written: ")
    assert said.count("\n") == 0
    assert not fresh_service.data_dir.exists(), "nothing was started"


def test_the_start_line_shows_the_settings_and_no_password_is_in_the_log(
    own_service: Service, log_file: Path, postgres_url: str, photos: Path
) -> None:
    password = postgres_url.split("//")[1].partition("@")[0].partition(":")[2]
    assert len(password) > 20
    environment = {"RECOGNIZER_LOG_FILE": str(log_file), "RECOGNIZER_LOG_LEVEL": "debug"}
    own_service.start(**environment, RECOGNIZER_DATABASE_URL=postgres_url, RECOGNIZER_THREADS="3")
    assert recognize(own_service.url, photo(photos, "obama")).status_code == 200
    assert own_service.stop() == 0
    first, *_ = lines = log_lines(log_file)
    assert (first["message"], first["level"]) == ("start", "INFO")
    assert first["settings"]["threads"] == 3
    assert set(first["settings"]["database_url"]) == {"*"}
    assert lines[-1]["message"] == "stop"
    assert password not in log_file.read_text() + own_service.said()


def test_no_password_is_in_the_log_of_a_service_whose_database_is_away(own_service: Service, log_file: Path) -> None:
    own_service.start(
        wait=False,
        RECOGNIZER_LOG_FILE=str(log_file),
        RECOGNIZER_LOG_LEVEL="debug",
        RECOGNIZER_DATABASE_URL="postgresql://nobody:hunter2@127.0.0.1:9/none",
    )
    wait_for("an answer", lambda: own_service.said().count("not ready yet"))
    assert httpx.get(f"{own_service.url}/v1/people", timeout=10).status_code == 503
    assert own_service.stop() == 0
    assert "hunter2" not in log_file.read_text() + own_service.said()


def test_the_password_of_the_bundled_database_is_in_no_log(own_service: Service, log_file: Path, photos: Path) -> None:
    own_service.start(RECOGNIZER_LOG_FILE=str(log_file), RECOGNIZER_LOG_LEVEL="debug")
    assert enroll(own_service.url, "Ada", photo(photos, "obama")).status_code == 201
    password = (own_service.data_dir / "database-password").read_text().strip()
    assert own_service.stop() == 0
    logs = [log_file, *(own_service.data_dir / "postgres" / "log").iterdir()]
    assert len(logs) > 1
    for path in logs:
        assert password not in path.read_text(encoding="utf-8", errors="replace"), path
    assert password not in own_service.said()


def test_text_lines_are_for_people(own_service: Service, log_file: Path) -> None:
    own_service.start(RECOGNIZER_LOG_FILE=str(log_file), RECOGNIZER_LOG_FORMAT="text")
    httpx.get(f"{own_service.url}/v1/people", headers={"X-Request-ID": "front-door-18"})
    wait_for("the request's line", lambda: "front-door-18" in log_file.read_text())
    assert own_service.stop() == 0
    (line,) = [line for line in log_file.read_text().splitlines() if "front-door-18" in line]
    assert " INFO request request_id=front-door-18 method=GET route=/v1/people status=200 " in line
