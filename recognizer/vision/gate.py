"""Bounds how many threads do vision work at once, and how long the others wait for their turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from recognizer.deadline import Deadline
from recognizer.errors import Busy


class Gate:
    """`with gate.slot(deadline):` at most `slots` threads at a time, each waiting at most `wait_seconds`."""

    def __init__(self, slots: int, wait_seconds: float) -> None:
        self._slots = slots
        self._wait_seconds = wait_seconds
        self._running = self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, deadline: Deadline) -> Iterator[None]:
        """Hold a slot.

        Raises:
            Busy: no slot became free in time, or the gate is closed.
            DeadlineExceeded: the request's own deadline came first.
        """
        with self._changed:
            limit = min(self._wait_seconds, deadline.remaining_seconds())
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._closed or self._running < self._slots, limit)
            finally:
                self._waiting -= 1
            if self._closed:
                raise Busy("The service is shutting down; try again in a moment.")
            deadline.check()
            if self._running >= self._slots:
                raise Busy("Too many images are being worked on; try again in a moment.")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def load(self) -> tuple[int, int]:
        """How many threads are inside, and how many wait."""
        with self._changed:
            return self._running, self._waiting

    def close(self, timeout_seconds: float) -> bool:
        """Let nobody in any more and wait for those inside; whether all of them left in time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._running == 0, timeout_seconds)
