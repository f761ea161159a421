"""The threads of a worker and the queue in front of them: how many requests are worked on, and how many may wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from recognizer.servers.arrival import Connection, Stage
from recognizer.servers.limits import Limits

PROBE_THREADS = 2
PROBES_WAITING = 32

Done = Callable[[Connection, "Future[bool]"], None]


class Seats:
    """Takes requests that have arrived in full, as long as there is a thread or a place in the queue.

    Args:
        worker: gunicorn's; `serve` answers a request and says whether its connection is kept.
        answered: told the connection and whether it is kept, in the main thread.
        close: closes a connection whose client has gone.
    """

    def __init__(
        self,
        worker: Any,
        limits: Limits,
        answered: Callable[[Connection, bool], None],
        close: Callable[[Connection], None],
    ) -> None:
        self._worker = worker
        self._limits = limits
        self._answered = answered
        self._close = close
        self._waiting: deque[Connection] = deque()
        self._running: set[Connection] = set()
        self._probing = ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="probe")
        self._probes = 0

    def free_places(self) -> tuple[int, int]:
        """How many threads are free, and how many places in the queue."""
        threads = self._limits.threads - len(self._running)
        queue = self._limits.queue_length - len(self._waiting)
        return max(0, threads), max(0, queue)

    def are_taken(self) -> bool:
        """Whether a request would be refused."""
        return not any(self.free_places())

    def admit(self, connection: Connection) -> bool:
        """Let it work or wait; False where it can do neither."""
        if connection.probe:
            return self._probe(connection)
        threads, queue = self.free_places()
        if threads:
            self._start(connection)
        elif queue:
            connection.enter(Stage.WAITING, self._limits.queue_seconds)
            self._waiting.append(connection)
        return bool(threads or queue)

    def forget(self, connection: Connection) -> None:
        """Take one that has waited too long out of the queue."""
        self._waiting.remove(connection)

    def close(self) -> bool:
        """Start nothing any more; whether all threads have come back."""
        self._waiting.clear()
        self._probing.shutdown(wait=False)
        return not self._running and not self._probes

    def _probe(self, connection: Connection) -> bool:
        """Answer a health check: liveness here, without waiting for anything, readiness in a thread kept for it."""
        if connection.probe == "/health/live":
            connection.enter(Stage.RUNNING, self._limits.stuck_seconds)
            self._answered(connection, self._worker.serve(connection))
            return True
        if self._probes >= PROBES_WAITING:
            return False
        self._probes += 1
        self._submit(self._probing, connection, self._probed)
        return True

    def _probed(self, connection: Connection, future: Future[bool]) -> None:
        self._probes -= 1
        self._answered(connection, future.result())

    def _start(self, connection: Connection) -> None:
        self._running.add(connection)
        self._submit(self._worker.tpool, connection, self._finish)

    def _submit(self, pool: Any, connection: Connection, done: Done) -> None:
        connection.enter(Stage.RUNNING, self._limits.stuck_seconds)
        future = pool.submit(self._worker.serve, connection)
        future.add_done_callback(lambda future: self._worker.method_queue.defer(done, connection, future))

    def _finish(self, connection: Connection, future: Future[bool]) -> None:
        self._running.discard(connection)
        self._start_next()
        self._answered(connection, future.result())

    def _start_next(self) -> None:
        while self._waiting and self.free_places()[0]:
            connection = self._waiting.popleft()
            if connection.was_reset():  # nobody would read the answer
                self._close(connection)
            else:
                self._start(connection)
