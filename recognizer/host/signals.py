"""Signals as the supervisor sees them: counters and a wake-up, no work in a handler.

A hang-up (SIGHUP) asks for a reload, unless the terminal that we were started from is gone: then it asks for the end.

Windows has Ctrl-C (SIGINT), Ctrl-Break (SIGBREAK) and the closing of the console's window, which arrives as an
event in a thread of its own; the process is ended when that thread returns, five seconds later at the latest.
"""

from __future__ import annotations

import ctypes
import functools
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, Self, TypeVar

Result = TypeVar("Result")

_STOPPING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
_CONSOLE_CLOSES = (2, 5, 6)  # CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what is open is closed and nothing half is left; exit code 143.

    Only in the main thread.
    """
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what is open is being closed
    sys.exit(128 + number)


class StopRequested(Exception):
    """Somebody wants the service to stop."""


class Signals:
    """While entered, every request to stop is counted, and wakes `wait()` as the end of a child does.

    Only in the main thread.
    """

    def __init__(self) -> None:
        self.stops = 0
        self.reloads = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        hangup_was_ignored = _ignored_hangup(getattr(signal, "SIGHUP", None))
        for number in stopping():
            self._previous[number] = signal.signal(number, self._count)
        if hasattr(signal, "SIGHUP"):
            self._has_terminal = has_terminal() and not hangup_was_ignored
            previous = signal.signal(signal.SIGHUP, self._hang_up)
            self._previous.setdefault(signal.SIGHUP, previous)
        on_console_close(self._close)
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

    def take_reload(self) -> bool:
        """Whether a reload has been asked for since the last call."""
        asked, self.reloads = self.reloads > 0, 0
        return asked

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._has_terminal and not has_terminal():
            self.stops += 1
        else:
            self.reloads += 1

    def _close(self) -> None:
        self.stops += 1
        with suppress(OSError):  # woken already
            self._writer.send(b"\0")


def on_stop(stop: Callable[[], object]) -> None:
    """Call `stop` at each request to stop, in the main thread or another one; for a process that is no supervisor."""
    for number in stopping():
        signal.signal(number, lambda *_: stop())
    on_console_close(stop)


def stopping() -> list[signal.Signals]:
    """The signals that ask this process to stop; a hang-up is none when we were started with nohup."""
    there = [getattr(signal, name) for name in _STOPPING if hasattr(signal, name)]
    return [number for number in there if not _ignored_hangup(number)]


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def on_console_close(stop: Callable[[], object]) -> None:
    """On Windows, call `stop` in another thread when the console's window is closed; then there are five seconds."""
    if sys.platform == "win32":
        _console_stops.append(stop)
        _listen_to_console()


_console_stops: list[Callable[[], object]] = []


@functools.cache
def _listen_to_console() -> object:
    """Whatever is returned to the system must not be collected; the cache keeps it."""
    if sys.platform != "win32":
        return None

    def handle(event: int) -> bool:
        if event not in _CONSOLE_CLOSES:
            return False  # Ctrl-C and Ctrl-Break go on to be signals
        for stop in _console_stops:
            stop()
        time.sleep(60)  # returning ends the process
        return True

    handler = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)(handle)
    ctypes.windll.kernel32.SetConsoleCtrlHandler(handler, True)
    return handler


def _only_wake(number: int, frame: FrameType | None) -> None:
    """The wake-up itself happens in the interpreter, but only for signals that have a handler."""


def _ignored_hangup(number: signal.Signals | None) -> bool:
    """Whether we were started with nohup, which means to outlive the terminal."""
    return number is not None and number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
