"""What the database said a moment ago, for requests that need nothing else of it and would go on without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from recognizer.deadline import Deadline
from recognizer.errors import DatabaseUnavailable, DeadlineExceeded
from recognizer.gallery.pool import NOT_NOW

MEMORY_SECONDS = 60.0
"""For so long after the database gave it, an answer does for who may recall it; docs/security.md states it."""

PATIENCE_SECONDS = 1.0
"""So long is a database that does not answer waited for by who may recall what it said, and then for any answer."""

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """The last answer to each question; safe to use from many threads. None is no answer, and is not remembered.

    Args:
        has_answered: whether the database has answered anybody since a moment, or does so within these seconds.
    """

    def __init__(
        self, has_answered: Callable[[float, float], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._has_answered = has_answered
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[float, Answer]] = {}

    def ask(
        self,
        question: str,
        of_database: Callable[[Deadline | None], Answer | None],
        deadline: Deadline | None,
        *,
        may_recall: bool,
    ) -> Answer | None:
        """Ask the database; while it is away, its answer of the last minute does for who `may_recall` it.

        It is away when it answers nobody; one that only has much to do is asked again.

        Raises:
            DatabaseUnavailable, DeadlineExceeded
        """
        earlier = self._earlier(question) if may_recall else None
        if earlier is None:
            return self._ask(question, of_database, deadline)
        for limit in (_patience(deadline), deadline):
            asked = self._clock()
            try:
                return self._ask(question, of_database, limit)
            except (DatabaseUnavailable, DeadlineExceeded):
                if deadline is not None and not deadline.remaining_seconds():
                    raise
                if not self._has_answered(asked, PATIENCE_SECONDS):
                    return earlier
        raise DatabaseUnavailable(NOT_NOW)

    def _ask(
        self, question: str, of_database: Callable[[Deadline | None], Answer | None], deadline: Deadline | None
    ) -> Answer | None:
        asked = self._clock()
        answer = of_database(deadline)
        with self._lock:
            if answer is None:
                self._answers.pop(question, None)
            else:
                self._answers[question] = asked, answer
        return answer

    def _earlier(self, question: str) -> Answer | None:
        with self._lock:
            asked, answer = self._answers.get(question, (0.0, None))
        return answer if answer is not None and self._clock() - asked <= MEMORY_SECONDS else None


def _patience(deadline: Deadline | None) -> Deadline:
    seconds = PATIENCE_SECONDS if deadline is None else min(PATIENCE_SECONDS, deadline.remaining_seconds())
    return Deadline(seconds)
