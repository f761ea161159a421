"""A worker's pulse: every few seconds its gauges, every minute one line in the log."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
import time
from typing import Any, Self

import psutil

from recognizer.gallery.pool import Pool
from recognizer.metrics import Metrics, Tally
from recognizer.vision.engine import Engine

LOGGER = logging.getLogger(__name__)

TICK_SECONDS = 5.0


class Vitals:
    """Watches one worker from a thread of its own while entered."""

    def __init__(self, engine: Engine, pool: Pool, metrics: Metrics, tally: Tally, period_seconds: float) -> None:
        self._engine = engine
        self._pool = pool
        self._metrics = metrics
        self._tally = tally
        self._period_seconds = period_seconds
        self._process = psutil.Process()
        self._broken = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vitals", daemon=True)

    def __enter__(self) -> Self:
        self._metrics.count("recognizer_worker_starts")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(TICK_SECONDS)

    def read(self) -> dict[str, Any]:
        """The worker's state now; also brings its gauges up to date."""
        memory = self._process.memory_info().rss
        threads = self._process.num_threads()
        pool = self._pool.statistics()
        running, waiting = self._engine.load()
        gauges = {
            "recognizer_worker_memory_bytes": memory,
            "recognizer_worker_threads": threads,
            "recognizer_engine_running": running,
            "recognizer_engine_waiting": waiting,
            "recognizer_pool_in_use": pool.in_use,
            "recognizer_pool_idle": pool.idle,
            "recognizer_pool_waiting": pool.waiting,
            "recognizer_database_up": not pool.away,
        }
        for name, value in gauges.items():
            self._metrics.set(name, value)
        self._metrics.count("recognizer_pool_broken", pool.broken - self._broken)
        self._broken = pool.broken
        return {
            "rss_mb": round(memory / 2**20, 1),
            "threads": threads,
            "open_files": self._open_files(),
            "engine": {"running": running, "waiting": waiting},
            "database": "away" if pool.away else "up",
            "pool": dataclasses.asdict(pool),
        }

    def _run(self) -> None:
        next_line = time.monotonic() + self._period_seconds
        while not self._stop.wait(min(TICK_SECONDS, self._period_seconds)):
            is_due = time.monotonic() >= next_line
            if is_due:
                next_line += self._period_seconds
            try:
                state = self.read()
            except (OSError, psutil.Error) as error:  # no file descriptor left, say; the watch goes on
                if is_due:
                    LOGGER.warning("The worker's state cannot be read: %s", error)
                continue
            if is_due:
                LOGGER.info("vitals", extra={**state, **self._tally.take()})

    def _open_files(self) -> int:
        if sys.platform == "win32":
            return self._process.num_handles()
        return self._process.num_fds()
