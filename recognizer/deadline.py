"""The moment by which a request must be answered, handed down through every layer."""

from __future__ import annotations

import time

from recognizer.errors import DeadlineExceeded


class Deadline:
    """A point on the monotonic clock. Stages call `check()` between them, waits use `remaining_seconds()`."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def remaining_seconds(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._at - time.monotonic())

    def check(self) -> None:
        """Raise `DeadlineExceeded` when the moment has passed."""
        if time.monotonic() >= self._at:
            raise DeadlineExceeded(
                "The request took longer than the service allows; send a smaller image or try again later."
            )
