"""The declared vocabulary of metrics; a metric that is not in it cannot be recorded.

With `PROMETHEUS_MULTIPROC_DIR` in the environment (the supervisor sets it) the values of all workers are kept
in files there and every worker answers for all of them; without it a process answers for itself. The files are
mapped into memory, and to write where a full disk has no room would kill the process (SIGBUS): their room is
reserved beforehand, and a worker that gets none keeps its values to itself.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, multiprocess, values

LOGGER = logging.getLogger(__name__)

MULTIPROCESS_DIR_ENV = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric: its kind, its meaning and its labels; `over_workers` says how workers' gauges add up."""

    kind: Literal["counter", "histogram", "gauge"]
    help: str
    labels: tuple[str, ...] = ()
    over_workers: str = "livesum"


VOCABULARY: dict[str, Declared] = {
    "recognizer_requests": Declared(
        "counter", "Requests answered; `code` is the error's word, empty without one.", ("route", "status", "code")
    ),
    "recognizer_request_seconds": Declared("histogram", "Time to answer a request.", ("route",)),
    "recognizer_stage_seconds": Declared("histogram", "Time a stage of the work on an image took.", ("stage",)),
    "recognizer_faces": Declared("counter", "Faces found in images.", ("route",)),
    "recognizer_decisions": Declared("counter", "What was decided about faces.", ("decision",)),
    "recognizer_refused_photos": Declared("counter", "Photos that an enrolment refused.", ("code",)),
    "recognizer_engine_running": Declared("gauge", "Images being worked on."),
    "recognizer_engine_waiting": Declared("gauge", "Requests waiting for a free core."),
    "recognizer_pool_in_use": Declared("gauge", "Database connections in use."),
    "recognizer_pool_idle": Declared("gauge", "Database connections open and idle."),
    "recognizer_pool_waiting": Declared("gauge", "Requests waiting for a database connection."),
    "recognizer_pool_broken": Declared("counter", "Database connections that had to be thrown away."),
    "recognizer_database_up": Declared("gauge", "1 while the database answers every worker.", (), "livemin"),
    "recognizer_worker_memory_bytes": Declared("gauge", "Resident memory of each worker.", (), "liveall"),
    "recognizer_worker_threads": Declared("gauge", "Threads of each worker.", (), "liveall"),
    "recognizer_worker_starts": Declared("counter", "Workers started; more than configured means restarts."),
}

FILE_BYTES = 2**18
"""Room for about 1,500 values in each file; the routes, stages and codes of the service make some hundred."""

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)


class Metrics:
    """All metrics of the vocabulary, recorded by name; an undeclared name or label raises."""

    def __init__(self) -> None:
        self._shared = _reserve_files()
        self._own = CollectorRegistry()
        self._metrics = {name: self._build(name, declared) for name, declared in VOCABULARY.items()}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._labelled(name, labels).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        self._labelled(name, labels).observe(value)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._labelled(name, labels).set(value)

    def scrape(self) -> bytes:
        """All values in Prometheus's text format, over all workers that share theirs."""
        registry = self._own
        if self._shared:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus_client.generate_latest(registry)

    def _labelled(self, name: str, labels: Mapping[str, str]) -> Any:
        metric = self._metrics[name]
        return metric.labels(**labels) if labels or VOCABULARY[name].labels else metric

    def _build(self, name: str, declared: Declared) -> Any:
        if declared.kind == "counter":
            return prometheus_client.Counter(name, declared.help, declared.labels, registry=self._own)
        if declared.kind == "histogram":
            return prometheus_client.Histogram(
                name, declared.help, declared.labels, registry=self._own, buckets=BUCKETS_SECONDS
            )
        mode: Any = declared.over_workers
        return prometheus_client.Gauge(name, declared.help, declared.labels, registry=self._own, multiprocess_mode=mode)


def _reserve_files() -> bool:
    """Reserve the room of this process's files; False when its values are its own, wanted or for want of room."""
    folder = os.environ.get(MULTIPROCESS_DIR_ENV)
    if not folder:
        return False
    gauges = {f"gauge_{declared.over_workers}" for declared in VOCABULARY.values() if declared.kind == "gauge"}
    paths = [Path(folder) / f"{kind}_{os.getpid()}.db" for kind in ("counter", "histogram", *gauges)]
    try:
        for path in paths:
            _reserve(path)
    except OSError as error:
        for path in paths:
            path.unlink(missing_ok=True)
        values.ValueClass = values.MutexValue
        LOGGER.warning("No room for the metrics in %s (%s); this worker keeps its own", folder, error.strerror)
        return False
    return True


def _reserve(path: Path) -> None:
    with path.open("ab") as file:
        missing = FILE_BYTES - file.tell()  # of a predecessor with the same process id nothing is missing
        if missing > 0 and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), file.tell(), missing)
        elif missing > 0:
            file.write(bytes(missing))


def _give_back_room(path: Path) -> None:
    """Cut off what the file of an ended worker does not use; how much it uses stands in its first four bytes."""
    with suppress(OSError), path.open("r+b") as file:
        file.truncate(max(8, int.from_bytes(file.read(4), sys.byteorder)))


def forget_process(pid: int) -> None:
    """Leave the gauges of a worker that has ended out of what is scraped from now on; its counts stay."""
    if folder := os.environ.get(MULTIPROCESS_DIR_ENV):
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
        for kind in ("counter", "histogram"):
            _give_back_room(Path(folder) / f"{kind}_{pid}.db")


@dataclass(slots=True)
class Tally:
    """What one worker answered since the last vitals line. Safe to use from many threads."""

    _codes: Counter[str] = field(default_factory=Counter)
    _requests: int = 0
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    _since: float = field(default_factory=time.monotonic)
    _lock: Lock = field(default_factory=Lock)

    def add(self, seconds: float, code: str) -> None:
        """Note one answered request; `code` is the error's word or empty."""
        with self._lock:
            self._requests += 1
            self._seconds.append(seconds)
            if code:
                self._codes[code] += 1

    def refuse(self, code: str) -> None:
        """Note one request that was refused before it was worked on; its time says nothing about the others'."""
        with self._lock:
            self._requests += 1
            self._codes[code] += 1

    def take(self) -> dict[str, Any]:
        """What was noted since the last call, and start anew."""
        with self._lock:
            taken = self._requests, sorted(self._seconds), dict(self._codes), time.monotonic() - self._since
            self._requests, self._since = 0, time.monotonic()
            self._seconds.clear()
            self._codes.clear()
        requests, seconds, codes, period = taken
        return {
            "requests": requests,
            "requests_per_second": round(requests / period, 2) if period else 0.0,
            "p50_ms": _percentile_ms(seconds, 0.5),
            "p99_ms": _percentile_ms(seconds, 0.99),
            "errors": codes,
        }


def _percentile_ms(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 1)
