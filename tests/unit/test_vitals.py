"""A worker's pulse: one line each period, gauges in step, and it stops when told to."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from recognizer import metrics as metrics_module
from recognizer import vitals as vitals_module
from recognizer.gallery.pool import Pool
from recognizer.metrics import Metrics, Tally
from recognizer.vision.engine import Engine
from recognizer.vitals import Vitals

NOBODY = "postgresql://nobody:hunter2@127.0.0.1:9/none"
MEMBERS = {
    "rss_mb",
    "threads",
    "open_files",
    "engine",
    "database",
    "pool",
    "requests",
    "requests_per_second",
    "p50_ms",
    "p99_ms",
    "errors",
}
PERIOD_SECONDS = 0.2


@pytest.fixture(autouse=True)
def no_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(metrics_module.MULTIPROCESS_DIR_ENV, raising=False)


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A real pool whose database is away; it has not noticed yet."""
    with Pool(
        NOBODY, minimum=0, maximum=4, timeout_seconds=1, connect_timeout_seconds=1, statement_timeout_seconds=1
    ) as opened:
        yield opened


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def make(engine: Engine, pool: Pool, metrics: Metrics, tally: Tally) -> Callable[[float], Vitals]:
    return lambda period_seconds: Vitals(engine, pool, metrics, tally, period_seconds)


def gauge(metrics: Metrics, name: str) -> float:
    lines = metrics.scrape().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)


def wait_for(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What the vitals lines hold beyond what every line has."""
    plain = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    records = [record for record in caplog.records if record.message == "vitals"]
    return [{name: value for name, value in vars(record).items() if name not in plain} for record in records]


def test_each_period_has_its_line_with_the_declared_members(
    make: Callable[[float], Vitals], tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "recognizer.vitals")
    tally.add(0.25, "")
    tally.add(0.25, "busy")
    began = time.monotonic()
    with make(PERIOD_SECONDS):
        wait_for(lambda: len(lines(caplog)) >= 3)
    assert time.monotonic() - began >= 3 * PERIOD_SECONDS
    first, second, *_ = lines(caplog)
    assert set(first) == set(second) == MEMBERS
    assert (first["requests"], first["p50_ms"], first["errors"]) == (2, 250.0, {"busy": 1})
    assert (second["requests"], second["p50_ms"], second["errors"]) == (0, None, {})
    assert first["database"] == "up"
    assert first["engine"] == {"running": 0, "waiting": 0}
    assert isinstance(first["pool"], dict)
    assert {"maximum", "in_use", "idle", "waiting", "away", "broken"} <= set(first["pool"])


def test_the_line_tells_the_truth_about_this_process(make: Callable[[float], Vitals]) -> None:
    state = make(60).read()
    process = psutil.Process()
    assert abs(state["rss_mb"] - process.memory_info().rss / 2**20) < 50
    assert abs(state["threads"] - process.num_threads()) <= 2
    if hasattr(process, "num_fds"):
        before = state["open_files"]
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        try:
            assert make(60).read()["open_files"] >= before + 20
        finally:
            for descriptor in held:
                os.close(descriptor)


def test_reading_brings_the_gauges_up_to_date(make: Callable[[float], Vitals], metrics: Metrics) -> None:
    state = make(60).read()
    assert gauge(metrics, "recognizer_worker_memory_bytes") == pytest.approx(state["rss_mb"] * 2**20, rel=0.01)
    assert gauge(metrics, "recognizer_worker_threads") == state["threads"]
    assert gauge(metrics, "recognizer_database_up") == 1
    assert gauge(metrics, "recognizer_engine_running") == gauge(metrics, "recognizer_engine_waiting") == 0
    assert gauge(metrics, "recognizer_pool_in_use") == gauge(metrics, "recognizer_pool_waiting") == 0


def test_a_database_that_is_away_is_said(engine: Engine, metrics: Metrics, tally: Tally) -> None:
    with Pool(
        NOBODY, minimum=1, maximum=1, timeout_seconds=1, connect_timeout_seconds=1, statement_timeout_seconds=1
    ) as pool:
        vitals = Vitals(engine, pool, metrics, tally, 60)
        wait_for(lambda: vitals.read()["database"] == "away")
        assert gauge(metrics, "recognizer_database_up") == 0
        vitals.read()
    assert gauge(metrics, "recognizer_pool_broken_total") == pool.statistics().broken


def test_a_start_is_counted_once(make: Callable[[float], Vitals], metrics: Metrics) -> None:
    with make(60):
        pass
    assert gauge(metrics, "recognizer_worker_starts_total") == 1


def test_it_stops_at_once_and_leaves_no_thread(
    make: Callable[[float], Vitals], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "recognizer.vitals")
    before = set(threading.enumerate())
    with make(3600):
        (thread,) = set(threading.enumerate()) - before
        assert thread.name == "vitals"
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert not thread.is_alive()
    assert lines(caplog) == []


def test_gauges_are_read_more_often_than_lines_are_written(
    make: Callable[[float], Vitals],
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "recognizer.vitals")
    monkeypatch.setattr(vitals_module, "TICK_SECONDS", 0.05)
    with make(3600):
        wait_for(lambda: gauge(metrics, "recognizer_worker_memory_bytes") > 0)
    assert lines(caplog) == []


def test_the_watch_goes_on_after_a_look_that_failed(
    make: Callable[[float], Vitals], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "recognizer.vitals")
    vitals = make(PERIOD_SECONDS)
    whole = vitals.read
    failures = iter([OSError(24, "Too many open files"), psutil.AccessDenied(1)])

    def read() -> dict[str, object]:
        for failure in failures:
            raise failure
        return whole()

    monkeypatch.setattr(vitals, "read", read)
    with vitals:
        wait_for(lambda: lines(caplog))
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings[0] == "The worker's state cannot be read: [Errno 24] Too many open files"
