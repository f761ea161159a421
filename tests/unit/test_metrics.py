"""The vocabulary is the only way to record, the tally counts right, and workers add up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recognizer import metrics
from recognizer.metrics import VOCABULARY, Metrics, Tally

WORKER = """
import sys
from recognizer.metrics import Metrics
requests, memory, up = map(float, sys.argv[1:])
metrics = Metrics()
metrics.count("recognizer_requests", requests, route="/recognize", status="200", code="")
metrics.observe("recognizer_request_seconds", 0.3, route="/recognize")
metrics.count("recognizer_worker_starts")
metrics.set("recognizer_worker_memory_bytes", memory)
metrics.set("recognizer_pool_idle", 4)
metrics.set("recognizer_database_up", up)
print("recorded", flush=True)
sys.stdin.read()
"""

WITHOUT_ROOM = """
import resource
from recognizer.metrics import Metrics
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
metrics = Metrics()
metrics.count("recognizer_worker_starts")
metrics.set("recognizer_worker_memory_bytes", 7)
print(metrics.scrape().decode())
"""
"""To this process the disk is full."""


@pytest.fixture(autouse=True)
def no_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(metrics.MULTIPROCESS_DIR_ENV, raising=False)


def values(scrape: bytes) -> dict[str, float]:
    """The sample lines of a scrape."""
    lines = [line for line in scrape.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


# -- the vocabulary --


def test_an_undeclared_metric_cannot_be_recorded() -> None:
    own = Metrics()
    with pytest.raises(KeyError):
        own.count("recognizer_surprises")
    with pytest.raises(KeyError):
        own.observe("recognizer_surprise_seconds", 1)
    with pytest.raises(KeyError):
        own.set("recognizer_surprise", 1)


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ("recognizer_decisions", {}),
        ("recognizer_decisions", {"decision": "match", "person": "Ada"}),
        ("recognizer_decisions", {"person": "Ada"}),
        ("recognizer_worker_starts", {"person": "Ada"}),
    ],
)
def test_labels_must_be_the_declared_ones(metric: str, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics().count(metric, **labels)


def test_what_is_recorded_is_scraped() -> None:
    own = Metrics()
    own.count("recognizer_decisions", 3, decision="match")
    own.count("recognizer_decisions", decision="match")
    own.observe("recognizer_stage_seconds", 0.3, stage="detect")
    own.set("recognizer_pool_idle", 4)
    found = values(own.scrape())
    assert found['recognizer_decisions_total{decision="match"}'] == 4
    assert found['recognizer_stage_seconds_bucket{le="0.2",stage="detect"}'] == 0
    assert found['recognizer_stage_seconds_bucket{le="0.4",stage="detect"}'] == 1
    assert found['recognizer_stage_seconds_sum{stage="detect"}'] == 0.3
    assert found["recognizer_pool_idle"] == 4


def test_every_declared_metric_is_in_a_scrape() -> None:
    scrape = Metrics().scrape().decode()
    for name, declared in VOCABULARY.items():
        suffix = "_total" if declared.kind == "counter" else ""
        assert f"# TYPE {name}{suffix} {declared.kind}\n" in scrape
        assert f"# HELP {name}{suffix} {declared.help}\n" in scrape


def test_two_instances_in_one_process_do_not_share_values() -> None:
    Metrics().count("recognizer_worker_starts")
    assert values(Metrics().scrape())["recognizer_worker_starts_total"] == 0


# -- over all workers --


class Worker:
    """A process of its own that records and then waits."""

    def __init__(self, folder: Path, *, requests: int, memory: int, up: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(requests), str(memory), str(up)],
            env={**os.environ, metrics.MULTIPROCESS_DIR_ENV: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        assert self.process.stdout
        assert self.process.stdout.readline() == "recorded\n"

    def end(self) -> None:
        self.process.communicate(timeout=20)


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Worker, Worker]]:
    """Two workers; this process answers for both, as each of them would."""
    monkeypatch.setenv(metrics.MULTIPROCESS_DIR_ENV, str(tmp_path))
    pair = Worker(tmp_path, requests=3, memory=100, up=1), Worker(tmp_path, requests=4, memory=200, up=0)
    yield pair
    for worker in pair:
        if worker.process.poll() is None:
            worker.end()


def test_a_scrape_answers_for_all_workers(workers: tuple[Worker, Worker]) -> None:
    found = values(Metrics().scrape())
    assert found['recognizer_requests_total{code="",route="/recognize",status="200"}'] == 7
    assert found['recognizer_request_seconds_count{route="/recognize"}'] == 2
    assert found['recognizer_request_seconds_bucket{le="0.4",route="/recognize"}'] == 2
    assert found["recognizer_worker_starts_total"] == 2
    assert found["recognizer_pool_idle"] == 8
    assert found["recognizer_database_up"] == 0, "one worker without a database is enough to say so"
    memory = {name: value for name, value in found.items() if "memory" in name}
    assert memory == {
        f'recognizer_worker_memory_bytes{{pid="{workers[0].pid}"}}': 100,
        f'recognizer_worker_memory_bytes{{pid="{workers[1].pid}"}}': 200,
    }


def test_of_a_worker_that_is_gone_the_counts_stay_and_the_state_goes(workers: tuple[Worker, Worker]) -> None:
    staying, leaving = workers
    leaving.end()
    metrics.forget_process(leaving.pid)
    found = values(Metrics().scrape())
    assert found['recognizer_requests_total{code="",route="/recognize",status="200"}'] == 7
    assert found['recognizer_request_seconds_sum{route="/recognize"}'] == 0.6
    assert found["recognizer_worker_starts_total"] == 2
    assert found["recognizer_pool_idle"] == 4
    assert found["recognizer_database_up"] == 1
    memory = [name for name in found if "memory" in name]
    assert memory == [f'recognizer_worker_memory_bytes{{pid="{staying.pid}"}}']


@pytest.mark.skipif(os.name == "nt", reason="there a full disk is an error like others")
def test_the_room_of_a_workers_files_is_reserved_and_given_back(workers: tuple[Worker, Worker], tmp_path: Path) -> None:
    """To write into a hole of a mapped file on a full disk would kill the worker (SIGBUS)."""
    staying, leaving = workers
    for path in tmp_path.glob(f"*_{staying.pid}.db"):
        assert path.stat().st_blocks * 512 >= path.stat().st_size == metrics.FILE_BYTES, path
    leaving.end()
    metrics.forget_process(leaving.pid)
    left = [path.stat().st_size for path in tmp_path.glob(f"*_{leaving.pid}.db")]
    assert len(left) == 2
    assert max(left) < 20_000


@pytest.mark.skipif(os.name == "nt", reason="has no such limits")
def test_a_worker_without_room_for_its_files_keeps_its_values_to_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOM],
        env={**os.environ, metrics.MULTIPROCESS_DIR_ENV: str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = values(done.stdout.encode())
    assert found["recognizer_worker_starts_total"] == 1
    assert found["recognizer_worker_memory_bytes"] == 7
    assert "No room for the metrics" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_to_forget_a_process_without_shared_metrics_does_nothing() -> None:
    metrics.forget_process(1)


# -- the tally --


def test_the_tally_says_what_was_answered_and_how_fast() -> None:
    tally = Tally()
    for milliseconds in range(100, 0, -1):
        tally.add(milliseconds / 1000, "")
    tally.add(0.05, "busy")
    tally.add(0.05, "busy")
    tally.add(0.05, "no_face")
    taken = tally.take()
    assert taken["requests"] == 103
    assert taken["errors"] == {"busy": 2, "no_face": 1}
    assert 49 <= taken["p50_ms"] <= 51
    assert 98 <= taken["p99_ms"] <= 100
    assert taken["requests_per_second"] > 0


def test_the_slowest_of_few_requests_is_their_p99() -> None:
    tally = Tally()
    for seconds in (0.01, 0.01, 5.0):
        tally.add(seconds, "")
    taken = tally.take()
    assert (taken["p50_ms"], taken["p99_ms"]) == (10.0, 5000.0)


def test_the_tally_begins_anew_after_each_look() -> None:
    tally = Tally()
    tally.add(0.2, "busy")
    tally.take()
    assert tally.take() == {"requests": 0, "requests_per_second": 0.0, "p50_ms": None, "p99_ms": None, "errors": {}}


def test_the_tally_counts_right_from_many_threads_and_beyond_what_it_keeps() -> None:
    tally = Tally()

    def add() -> None:
        for _ in range(2000):
            tally.add(0.1, "busy")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    taken = tally.take()
    assert (taken["requests"], taken["errors"]) == (16_000, {"busy": 16_000})
    assert (taken["p50_ms"], taken["p99_ms"]) == (100.0, 100.0)
