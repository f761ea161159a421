"""gunicorn's master, which lets no worker go before its successor serves, and does not start dying ones in a loop."""

from __future__ import annotations

import logging
import time

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from recognizer.host.processes import STOP
from recognizer.servers.worker import BOOTING, TIRED, Worker

LOGGER = logging.getLogger(__name__)

YOUNG_SECONDS = 20.0
"""A worker that dies before has not failed by chance: the next one has to wait."""

LONGEST_PAUSE_SECONDS = 30.0
GIVE_UP_AFTER = 12
"""Early deaths in a row, in some three minutes, after which the server ends, with an error; the supervisor sees."""


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Keeps as many workers as are wanted that stay, and next to them those that are about to leave."""

    WORKERS: dict[int, Worker]

    def setup(self, app: object) -> None:
        """Also called at a reload."""
        super().setup(app)
        self.worker_class.has_master = True
        self._early_deaths = 0
        self._next_start = 0.0

    def manage_workers(self) -> None:
        """Start who is missing, end who is too many, and let those go whose successors serve."""
        self._choose_who_leaves()
        staying = sorted((worker.age, pid) for pid, worker in self.WORKERS.items() if not worker.is_leaving)
        if len(staying) < self.num_workers and time.monotonic() >= self._next_start:
            for _ in range(self.num_workers - len(staying)):
                self.spawn_worker()
        for _, pid in staying[: max(0, len(staying) - self.num_workers)]:
            self.kill_worker(pid, STOP)
        self._let_go()

    def reload(self) -> None:
        """SIGHUP: successors with the new settings for all of them."""
        for worker in self.WORKERS.values():
            worker.is_leaving = True
        super().reload()

    def stop(self, graceful: bool = True) -> None:
        """End all workers; one that ends now, however young, has not died."""
        for worker in self.WORKERS.values():
            worker.is_leaving = worker.was_told = True
        super().stop(graceful)

    def reap_workers(self) -> None:
        """Note who has died and how; one that cannot start ends the server only if nobody serves."""
        before = dict(self.WORKERS)
        try:
            super().reap_workers()
        except HaltServer as failed:
            if all(worker.state == BOOTING for worker in self.WORKERS.values()):
                raise
            LOGGER.error("A new worker cannot start (%s); those that serve go on", failed.reason)
            for worker in self.WORKERS.values():
                worker.is_leaving = worker.was_told
        for pid in before.keys() - self.WORKERS.keys():
            before[pid].tmp.close()  # gunicorn has not done so where it raised
            self._note_end(before[pid])
        self._let_go()

    def _choose_who_leaves(self) -> None:
        """One at a time: each successor takes memory, and starts on the cores that the others serve on."""
        tired = [worker for worker in self.WORKERS.values() if worker.state == TIRED]
        if tired and not any(worker.is_leaving for worker in self.WORKERS.values()):
            oldest = min(tired, key=lambda worker: worker.age)
            oldest.is_leaving = True
            self._next_start = 0.0

    def _let_go(self) -> None:
        if len(self._serving()) < self.num_workers:
            return
        for pid, worker in list(self.WORKERS.items()):
            if worker.is_leaving and not worker.was_told:
                worker.was_told = True
                LOGGER.info("Worker %d has a successor and may go", pid)
                self.kill_worker(pid, STOP)

    def _serving(self) -> list[Worker]:
        """Those that serve and stay, for now: a tired one does until its turn to leave has come."""
        return [worker for worker in self.WORKERS.values() if worker.state != BOOTING and not worker.is_leaving]

    def _note_end(self, worker: Worker) -> None:
        if worker.is_leaving or time.monotonic() - worker.started > YOUNG_SECONDS:
            self._early_deaths, self._next_start = 0, 0.0
            return
        self._early_deaths += 1
        if self._early_deaths >= GIVE_UP_AFTER:
            raise HaltServer(f"{GIVE_UP_AFTER} workers in a row have died right after their start.", 1)
        if self._early_deaths > 1:  # the first is replaced at once
            pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2 ** (self._early_deaths - 2))
            self._next_start = time.monotonic() + pause
            LOGGER.error(
                "%d workers in a row have died right after their start; the next starts in %g seconds",
                self._early_deaths,
                pause,
            )
