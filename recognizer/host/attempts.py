"""Spacing the attempts to start again what ends."""

from __future__ import annotations

import math
import time

from recognizer.errors import StartupError

_LONGEST_PAUSE_SECONDS = 5.0  # between two starts of what ends again and again
_QUIET_SECONDS = 10.0  # what has run for so long may be started again at once


class Turns:
    """Spaces attempts: the first at once, the next after 0.5, 1, 2, 4, 5, 5 ... seconds; ten quiet ones begin anew."""

    def __init__(self, what: str, most: float = math.inf) -> None:
        self._what, self._most = what, most
        self._next, self._delay, self._attempts = -math.inf, 0.5, 0

    def take(self) -> bool:
        """Whether it is time for an attempt, which is then counted.

        Raises:
            StartupError: there were too many in a row.
        """
        now = time.monotonic()
        if now < self._next:
            return False
        if now > self._next + _QUIET_SECONDS:
            self._delay, self._attempts = 0.5, 0
        self._attempts += 1
        if self._attempts > self._most:
            raise StartupError(
                f"{self._what} has ended again and again, {self._attempts} times in a row; this service gives up. "
                "What is logged above says why it ended."
            )
        self._next, self._delay = now + self._delay, min(_LONGEST_PAUSE_SECONDS, 2 * self._delay)
        return True
