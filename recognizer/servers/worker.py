"""gunicorn's worker with a reception of its own, a memory budget, and replacement before it leaves."""

from __future__ import annotations

import logging
import math
import mmap
import os
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import gunicorn.util
from gunicorn.workers.gthread import ThreadWorker

from recognizer.config import Settings
from recognizer.metrics import Metrics, Tally
from recognizer.servers.arrival import Connection
from recognizer.servers.budget import MemoryBudget
from recognizer.servers.child import READY_PIPE_ENV
from recognizer.servers.limits import Limits
from recognizer.servers.reception import Reception
from recognizer.servers.refusal import message

LOGGER = logging.getLogger(__name__)

UNATTENDED_SECONDS = 60.0
"""After which a worker goes without a successor, where the master is gunicorn's own and knows nothing of it."""

REPORT_SECONDS = 10.0

BOOTING, SERVING, TIRED = 0, 1, 2
"""What a worker tells its master, in memory that both see."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's threads and its way of calling the app, behind our own reception.

    gunicorn itself reads requests in its few threads and has no bound for those that wait for one: clients that
    stop half-way, or more of them than the cores can serve, stop the service.
    """

    settings: Settings
    has_master = False  # ours, that starts a successor first
    alive: bool  # of gunicorn: whether the worker accepts requests
    max_requests: float  # of gunicorn

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._told = mmap.mmap(-1, 1)  # made before the fork, seen by both sides after it
        self.started = time.monotonic()
        self.is_leaving = self.was_told = False  # only in the master

    @classmethod
    def with_settings(cls, settings: Settings) -> type[Worker]:
        """This class for these settings: gunicorn makes the workers itself and hands them nothing of ours."""
        return type(cls.__name__, (cls,), {"settings": settings})

    @property
    def state(self) -> int:
        """What the worker has told its master."""
        return self._told[0]

    def init_process(self) -> None:
        gunicorn.util.write_error = _write_problem
        self._budget = MemoryBudget(self.settings.worker_memory_bytes)
        self._most_requests, self.max_requests = self.max_requests, math.inf  # the end of its own is too sudden
        self._refused: Counter[str] = Counter()
        self._report_at = self._leave_at = sys.float_info.max
        self.is_stuck = False
        super().init_process()

    def run(self) -> None:
        """The main loop, until the worker is told to go and has answered what it has accepted."""
        idle_seconds = float(self.cfg.keepalive)
        limits = Limits.of(
            self.settings,
            threads=self.cfg.threads,
            connections=self.cfg.worker_connections,
            idle_seconds=idle_seconds,
        )
        reception = Reception(self, limits, self._count, self._on_stuck)
        reception.open()
        self._told[0] = SERVING
        _tell_supervisor()
        while self.alive and self.is_parent_alive():
            self.notify()
            reception.turn()
            self._look_after_itself()
        self.alive = False
        reception.close_doors()
        until = time.monotonic() + self.cfg.graceful_timeout
        while not reception.is_empty() and time.monotonic() < until:
            self.notify()
            reception.turn()
        self.is_stuck = not reception.close()
        self.tpool.shutdown(wait=False)

    def serve(self, connection: Connection) -> bool:
        """Answer a request that has arrived in full; whether its connection is kept. Runs in a thread."""
        connection.thread_id = threading.get_ident()
        connection.sock.hand_over = connection.hand_over
        try:
            connection.unchunk()
            return bool(self.handle_request(connection.request, connection) and connection.parser.finish_body())
        except (OSError, StopIteration):
            return False  # the client has gone, or a failure in the middle of the answer, which gunicorn has logged
        except Exception as error:  # noqa: BLE001 - what the app does not handle itself; answered and logged
            self.handle_error(connection.request, connection.sock, connection.client, error)
            return False
        finally:
            connection.sock.hand_over = None  # a circle that would keep a closed connection for a while

    def ask_for_successor(self) -> None:
        """Go, but not before another worker serves."""
        if self.state == SERVING:
            self._told[0] = TIRED
            self._leave_at = sys.float_info.max if self.has_master else time.monotonic() + UNATTENDED_SECONDS

    def _look_after_itself(self) -> None:
        now = time.monotonic()
        if self.state == SERVING and (self._budget.is_spent() or self.nr >= self._most_requests):
            self.ask_for_successor()
        if now >= self._leave_at:
            self.alive = False
        if now >= self._report_at:
            LOGGER.warning("Requests were refused without being worked on: %s", dict(self._refused))
            self._refused.clear()
            self._report_at = sys.float_info.max

    def _on_stuck(self) -> None:
        self._count(504, "deadline_exceeded")
        self.ask_for_successor()

    def _count(self, status: int, code: str) -> None:
        """Count what never reaches the app, where its own observation would see it; one line for many."""
        self._refused[code] += 1
        self._report_at = min(self._report_at, time.monotonic() + REPORT_SECONDS)
        runtime = getattr(self.wsgi, "extensions", {}).get("recognizer")
        metrics, tally = getattr(runtime, "metrics", None), getattr(runtime, "tally", None)
        if isinstance(metrics, Metrics) and isinstance(tally, Tally):
            metrics.count("recognizer_requests", route="none", status=str(status), code=code)
            tally.refuse(code)


def _tell_supervisor() -> None:
    """Say that one more worker serves, for a handover."""
    if pipe := os.environ.get(READY_PIPE_ENV):
        with suppress(OSError, ValueError):  # it does not read any more
            os.write(int(pipe), b".")


def _write_problem(sock: socket.socket, status: int, reason: str, text: str) -> None:
    """What gunicorn refuses by itself, in the service's one error shape."""
    gunicorn.util.write_nonblock(sock, message(status, reason)[1])
