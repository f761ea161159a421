"""Signals as the supervisor sees them: a counter and a wake-up, no work in a handler."""

from __future__ import annotations

import select
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import FrameType
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

_STOPPING = ("SIGTERM", "SIGINT", "SIGHUP")


class StopRequested(Exception):
    """Somebody wants the service to stop."""


class Signals:
    """While entered, SIGTERM, SIGINT and SIGHUP are counted, and they and the end of a child wake `wait()`.

    Only in the main thread.
    """

    def __init__(self) -> None:
        self.stops = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for name in _STOPPING:
            number = getattr(signal, name, None)  # Windows has fewer
            if number is not None and not _ignored_hangup(number):
                self._previous[number] = signal.signal(number, self._count)
        if hasattr(signal, "SIGCHLD"):
            self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _only_wake)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        self._reader.close()
        self._writer.close()

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until the next signal."""
        readable, _, _ = select.select([self._reader], [], [], max(0.0, seconds))
        with suppress(BlockingIOError):
            while readable and self._reader.recv(4096):
                pass

    def pause(self, seconds: float) -> None:
        """Sleep like `wait()`.

        Raises:
            StopRequested: a stop has been asked for, now or before.
        """
        self.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raise `StopRequested` when a stop has been asked for."""
        if self.stops:
            raise StopRequested

    def interruptibly(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a thread, so that a signal ends the wait for it; unfinished, it ends with this process.

        Raises:
            StopRequested: a stop has been asked for.
            Exception: whatever `work` raises.
        """
        outcome: Future[Result] = Future()

        def do() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # noqa: BLE001 - handed over, not handled
                outcome.set_exception(error)

        threading.Thread(target=do, name="start", daemon=True).start()
        while not outcome.done():
            self.pause(0.01)
        return outcome.result()

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1


def _only_wake(number: int, frame: FrameType | None) -> None:
    """The wake-up itself happens in the interpreter, but only for signals that have a handler."""


def _ignored_hangup(number: signal.Signals) -> bool:
    """Whether we were started with nohup, which means to outlive the terminal."""
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
