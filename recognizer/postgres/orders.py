"""How a PostgreSQL at work is found, and told to stop.

It obeys signals. On Windows, which has none of them, it listens on a pipe of its own and pg_ctl knows the way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from recognizer.host import processes
from recognizer.postgres import programs

# By the names pg_ctl has for them: a fast shutdown; one without a checkpoint, which costs a recovery; the end.
FAST, IMMEDIATE, KILL = "INT", "QUIT", "KILL"

GENTLE = ((FAST, 10.0), (IMMEDIATE, 5.0), (KILL, 5.0))
FIRM = GENTLE[1:]

_PG_CTL_SECONDS = 10


def tell(process: psutil.Process | subprocess.Popen[bytes], order: str) -> None:
    """Give one of the orders above; a process that is gone gets none."""
    if sys.platform != "win32":
        processes.tell(process, signal.Signals[f"SIG{order}"])
    elif order == KILL:
        processes.tell(process, processes.KILL)
    else:
        with suppress(OSError, subprocess.TimeoutExpired):  # what does not obey is killed in the end
            command = [str(programs.find(None) / "pg_ctl"), "kill", order, str(process.pid)]
            hidden = subprocess.CREATE_NO_WINDOW
            subprocess.run(command, capture_output=True, timeout=_PG_CTL_SECONDS, check=False, creationflags=hidden)


def at_work_in(data: Path) -> list[psutil.Process]:
    """Every process of a PostgreSQL whose data directory this is; each has it as its working directory."""
    found = []
    for process in psutil.process_iter(["name"]):
        if (process.info["name"] or "").startswith("postgres"):
            with suppress(psutil.Error):
                if os.path.normcase(process.cwd()) == os.path.normcase(data):
                    found.append(process)
    return found
