"""Spares callers while the database is away: refuses them at once, and finds out when it is back."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from recognizer.errors import DatabaseUnavailable
from recognizer.gallery.connection import cause_of
from recognizer.gallery.supply import Supply

PROBE_PAUSE_SECONDS = 0.5
"""Between two attempts to reach a database that is away."""

LOGGER = logging.getLogger(__name__)


class Breaker:
    """Knows whether the database is there. While anybody doubts it, one thread makes sure.

    That thread has one connection answer, on its own account and not in a caller's slot. If none does,
    callers are refused until one does. Every change is announced on the pool's condition.
    """

    def __init__(self, supply: Supply, changed: threading.Condition, *, minimum: int, timeout_seconds: float) -> None:
        self.away: str | None = None
        """What callers are told while the database is away."""
        self._supply = supply
        self._changed = changed  # guards all that is here
        self._minimum = minimum
        self._timeout_seconds = timeout_seconds
        self._doubted = self._closed = False
        self.answered_at = 0.0
        """When the database answered last, on the monotonic clock."""
        self._attendant: threading.Thread | None = None

    def doubt(self, proof: DatabaseUnavailable | None = None) -> None:
        """Have it made sure that the database is there; with a proof that it is not, refuse callers at once."""
        with self._changed:
            self._doubted = True
            if proof is not None:
                self._set_away(proof)
            if self._attendant is None and not self._closed:
                self._attendant = threading.Thread(target=self._attend, name="database-attendant", daemon=True)
                self._attendant.start()

    def note_answer(self) -> None:
        """Remember that the database has just served somebody."""
        self.answered_at = time.monotonic()

    def close(self) -> None:
        """Make no more attempts; `is_idle` says when the last one is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_idle(self) -> bool:
        """Whether no attempt is under way."""
        return self._attendant is None

    def _attend(self) -> None:
        try:
            while self._has_work():
                self._probe()
        finally:  # should this thread ever fail, the next doubt starts another one
            with self._changed:
                if self._attendant is threading.current_thread():
                    self._attendant = None

    def _has_work(self) -> bool:
        with self._changed:
            if self._closed or not (self.away or self._doubted):
                self._attendant = None
                self._changed.notify_all()
                return False
            self._doubted = False
            return True

    def _probe(self) -> None:
        """Have one connection answer, then fill the supply up to its minimum; or wait a little."""
        began = time.monotonic()
        try:
            self._supply.put(self._supply.ready(began + self._timeout_seconds, ask=True))
        except DatabaseUnavailable as error:
            with self._changed:
                if self.answered_at < began:  # otherwise somebody was served: it is there, but full
                    self._set_away(error)
                self._changed.wait_for(lambda: self._closed, PROBE_PAUSE_SECONDS)
            return
        with self._changed:
            self.note_answer()
            if self.away:
                LOGGER.info("The database answers again.")
            self.away = None
            self._changed.notify_all()
        with contextlib.suppress(DatabaseUnavailable):  # what is missing is opened when it is needed
            while self._supply.total < self._minimum and not self._closed:
                self._supply.put(self._supply.open(time.monotonic() + self._timeout_seconds))

    def _set_away(self, error: DatabaseUnavailable) -> None:
        if self.away is None:
            LOGGER.warning("The database is away; requests are refused until it answers: %s", cause_of(error))
        self.away = str(error)
        self._changed.notify_all()
