"""Where a worker accepts connections; all workers listen on the same socket, and whoever is first has the client."""

from __future__ import annotations

import errno
import selectors
import time
from collections.abc import Callable, Sequence
from typing import Any

ACCEPTED_AT_ONCE = 32
COURTESY_SECONDS = 0.02
"""How long a worker without a free thread leaves a new client to one that has some; then it takes one client to its
queue, or many to refuse them."""

BREATHER_SECONDS = 0.1  # without a file descriptor for another client


class Door:
    """Accepts, unless it is closed or pauses.

    Args:
        listeners: gunicorn's sockets.
        free_places: how many requests could be let in, to threads and to the queue.
        welcome: takes an accepted socket, the client's address and ours.
        make_room: called when the system has no file descriptor left.
    """

    def __init__(
        self,
        listeners: Sequence[Any],
        poller: selectors.BaseSelector,
        free_places: Callable[[], tuple[int, int]],
        welcome: Callable[[Any, Any, Any], None],
        make_room: Callable[[], None],
    ) -> None:
        self._listeners = listeners
        self._poller = poller
        self._free_places = free_places
        self._welcome = welcome
        self._make_room = make_room
        self._is_open = False
        self._resume_at: float | None = None
        self._was_courteous = False
        self._newcomers = self._accepted = (
            0  # in the turn before, whose requests are only read in this one; in this one
        )

    def open(self) -> None:
        """Accept from now on."""
        self._resume_at = None
        if not self._is_open:
            for listener in self._listeners:
                listener.setblocking(False)
                self._poller.register(listener, selectors.EVENT_READ, self._on_event)
        self._is_open = True

    def close(self) -> None:
        """Take in who has connected already, and accept nobody after."""
        for listener in self._listeners:
            self._accept(listener, ACCEPTED_AT_ONCE)
        self._pause()
        self._resume_at = None

    def pause_seconds(self) -> float:
        """How long the loop may sleep at most."""
        return 60.0 if self._resume_at is None else max(0.0, self._resume_at - time.monotonic())

    def turn(self) -> None:
        """Called once in each turn of the loop, after its events."""
        self._was_courteous = False
        self._newcomers, self._accepted = self._accepted, 0
        if self._resume_at is None:
            return
        if time.monotonic() >= self._resume_at:
            self.open()
            self._was_courteous = True  # who is there still in the next turn is ours
        elif self._is_courteous and self._free_places()[0]:
            self.open()  # a thread has become free in the meantime

    def _on_event(self, listener: Any) -> None:
        threads, queue = self._free_places()
        coming = self._newcomers + self._accepted
        if not self._is_open:
            return  # another listener's event of the same turn has closed it
        if coming < threads:
            self._accept(listener, threads - coming)
        elif not self._was_courteous:
            self._pause(COURTESY_SECONDS, courteous=True)
        elif coming < threads + queue:
            self._accept(listener, 1)
        else:
            self._accept(listener, ACCEPTED_AT_ONCE)

    def _accept(self, listener: Any, most: int) -> None:
        for _ in range(most):
            try:
                accepted, client = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._make_room()
                    self._pause(BREATHER_SECONDS)
                return  # nobody is left, or has gone again
            self._accepted += 1
            self._welcome(accepted, client, listener.getsockname())

    def _pause(self, seconds: float = 0.0, courteous: bool = False) -> None:
        self._is_courteous = courteous
        if self._is_open:
            for listener in self._listeners:
                self._poller.unregister(listener)
        self._is_open = False
        self._resume_at = time.monotonic() + seconds
