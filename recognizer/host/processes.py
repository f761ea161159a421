"""Child processes: each in a session of its own, none outlives its parent by much.

Linux tells a child when its parent dies. Windows ends the children of a dead parent at once: they are in its job.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import psutil

from recognizer.deadline import Deadline
from recognizer.host import jobs
from recognizer.host.account import Account

Signal = TypeVar("Signal")

_PR_SET_PDEATHSIG = 1

if sys.platform == "win32":
    STOP, HURRY, KILL = signal.CTRL_BREAK_EVENT, signal.SIGTERM, signal.SIGTERM  # SIGTERM ends a process there at once
else:
    STOP, HURRY, KILL = signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL


def spawn(
    command: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    environment: Mapping[str, str],
    account: Account | None = None,
    folder: Path | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    own_console: bool = False,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, so that a terminal's Ctrl-C reaches only us and the order stays ours.

    Call it from the main thread: Linux ties `death_signal` to the thread that started the child.

    Args:
        own_console: on Windows, do not share our console: closing its window does not end the child, and `STOP`
            does not reach it either.
        pass_fds: what the child inherits, under the same numbers; not on Windows.

    Raises:
        OSError: the program cannot be run, or not as `account`.
    """
    return subprocess.Popen(
        [str(part) for part in command],
        env=dict(environment),
        cwd=folder,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        **_apart(death_signal, account, own_console),
    )


def _apart(death_signal: signal.Signals, account: Account | None, own_console: bool) -> dict[str, Any]:
    """What keeps the child apart from us in life, and not beyond our death."""
    if sys.platform == "win32":
        jobs.end_children_with_us()
        hidden = subprocess.CREATE_NO_WINDOW if own_console else 0
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | hidden}
    apart: dict[str, Any] = {"start_new_session": True, "preexec_fn": _dying_with_parent(death_signal)}
    if account is not None:
        apart |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return apart


def _dying_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What the child does just before exec, after it has changed its user (which clears the setting)."""
    if sys.platform != "linux":
        return None
    control_process = ctypes.CDLL(None).prctl  # looked up before the fork
    parent = os.getpid()

    def ask_the_kernel() -> None:
        control_process(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died before the kernel could be asked
            os._exit(1)

    return ask_the_kernel


def tell(process: psutil.Process | subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal; a process that is gone, or on Windows cannot be reached through our console, gets none."""
    with suppress(psutil.Error, OSError):
        process.send_signal(number)


def stop_all(
    processes: Iterable[psutil.Process],
    steps: Sequence[tuple[Signal, float]],
    send: Callable[[psutil.Process, Signal], None],
) -> None:
    """`send` each signal in turn and wait its seconds, until no process is left."""
    alive = list(processes)
    for number, seconds in steps:
        for process in alive:
            send(process, number)
        deadline = Deadline(seconds)
        while alive and deadline.remaining_seconds():
            alive = [process for process in alive if not _has_ended(process)]
            time.sleep(0.02 if alive else 0)


def _has_ended(process: psutil.Process) -> bool:
    """Also true of a zombie: some containers' first process never collects the children it inherits."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
