"""Child processes: each in a session of its own, each told by the kernel when its parent dies.

The one place of the process layer that knows POSIX calls; everything above names what it wants.
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
from typing import IO, Any

import psutil

from recognizer.deadline import Deadline
from recognizer.host.account import Account

_PR_SET_PDEATHSIG = 1


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
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, so that a terminal's Ctrl-C reaches only us and the order stays ours.

    Call it from the main thread: Linux ties `death_signal` to the thread that started the child.

    Raises:
        OSError: the program cannot be run, or not as `account`.
    """
    credentials: dict[str, Any] = {}
    if account is not None:
        credentials = {"user": account.uid, "group": account.gid, "extra_groups": []}
    return subprocess.Popen(
        [str(part) for part in command],
        env=dict(environment),
        cwd=folder,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=_dying_with_parent(death_signal),
        **credentials,
    )


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


def stop_all(processes: Iterable[psutil.Process], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn and wait its seconds, until no process is left."""
    alive = list(processes)
    for number, seconds in steps:
        for process in alive:
            with suppress(psutil.Error):  # gone already
                process.send_signal(number)
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
