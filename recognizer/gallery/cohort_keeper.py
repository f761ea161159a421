"""Keeps the figures of `cohorts` current while the service runs."""

from __future__ import annotations

import logging
import threading
from typing import Self

from recognizer.deadline import Deadline
from recognizer.errors import RecognizerError
from recognizer.gallery.cohorts import BATCH_SECONDS, bring_up_to_date
from recognizer.gallery.opened import Opened
from recognizer.gallery.pool import Pool
from recognizer.gallery.sealed_cohorts import Shut

LOGGER = logging.getLogger(__name__)

TICK_SECONDS = 1.0
REST = 1.0
"""For each second of work so many of rest: the work may take half of one core of the database."""


class CohortKeeper:
    """Brings them up to date from a thread of its own while entered."""

    def __init__(self, pool: Pool, opened: Opened) -> None:
        self._pool = pool
        self._opened = opened
        self._shut = Shut()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cohorts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(BATCH_SECONDS)

    def _run(self) -> None:
        pause, failed = TICK_SECONDS, False
        while not self._stop.wait(pause):
            deadline = Deadline(BATCH_SECONDS)
            try:
                busy = bring_up_to_date(self._pool, deadline, opened=self._opened, shut=self._shut) > 0
                failed = False
            except Exception as error:  # whatever it is, it passes or a request will tell; we go on
                LOGGER.log(
                    logging.DEBUG if failed else logging.WARNING,
                    "The people's cohorts cannot be brought up to date; decisions rest on older ones meanwhile: %s",
                    error,
                    exc_info=not isinstance(error, RecognizerError),  # what nobody has thought of
                )
                busy, failed = True, True
            worked = BATCH_SECONDS - deadline.remaining_seconds()
            pause = max(worked * REST, TICK_SECONDS if failed else 0.0) if busy else TICK_SECONDS
