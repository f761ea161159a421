"""The faults themselves. They are done to a service of our own only, by its process ids and at its address."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from soak.faultlog import TERMS
from soak.processes import ProcessTree

FLOOD_TIMES = 10
CONNECTIONS = 20  # half-sent or aborted at a time


class Harm:
    """Does faults of each kind; `flood` sends for the seconds it is given and returns how many clients it had."""

    def __init__(
        self, tree: ProcessTree, supervisor: int, url: str, photo: bytes, flood: Callable[[float], int]
    ) -> None:
        self._tree, self._supervisor, self._photo, self._flood = tree, supervisor, photo, flood
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 80))
        self._before: tuple[int, set[int]] = (0, set())
        self.spares_the_oldest_from = math.inf
        """From then on (time.monotonic()) it is left alone, for its memory is judged, and nothing is reloaded."""
        self.acts: dict[str, Callable[[random.Random], str]] = {
            "worker killed": self._kill_worker,
            "PostgreSQL killed": self._kill_database,
            "PostgreSQL restarted": self._restart_database,
            "PostgreSQL frozen": self._freeze_database,
            "connections cut": self._cut_connections,
            "uploads aborted": self._abort_uploads,
            "half-sent bodies": self._send_halves,
            "flood": self._flood_it,
            "settings reloaded": self._reload,
        }
        self.left_out = self._impossible()
        for kind in self.left_out:
            del self.acts[kind]
        assert set(self.acts) <= set(TERMS)

    def may(self, kind: str) -> bool:
        """Whether it may be done now."""
        return not (kind == "settings reloaded" and self._is_sparing())

    def _is_sparing(self) -> bool:
        return time.monotonic() >= self.spares_the_oldest_from

    def do(self, kind: str, chance: random.Random) -> str:
        """Do it, to its end; what was done, in words."""
        processes = self._tree.workers() if kind == "worker killed" else self._tree.database()[:1]
        self._before = (len(processes), {process.pid for process in processes})
        return self.acts[kind](chance)

    def is_back(self, kind: str) -> bool:
        """Whether the processes that were killed are there again."""
        if kind == "worker killed":
            return len(self._tree.workers()) >= self._before[0]
        if kind in ("PostgreSQL killed", "PostgreSQL restarted"):
            return not {process.pid for process in self._tree.database()[:1]} <= self._before[1]
        return True

    def _impossible(self) -> dict[str, str]:
        """Kinds that cannot be done here, and why."""
        if os.name == "nt":
            signals = ("PostgreSQL restarted", "connections cut", "settings reloaded")
            return dict.fromkeys(signals, "Windows has no such signals")
        return {}

    # -- processes --

    def _kill_worker(self, chance: random.Random) -> str:
        workers = sorted(self._tree.workers(), key=lambda worker: float(worker.create_time()))
        worker = chance.choice(workers[1:] if self._is_sparing() and len(workers) > 1 else workers)
        worker.kill()
        return f"process {worker.pid}"

    def _kill_database(self, chance: random.Random) -> str:
        postmaster = self._tree.database()[0]
        postmaster.kill()
        return f"process {postmaster.pid}"

    def _restart_database(self, chance: random.Random) -> str:
        postmaster = self._tree.database()[0]
        postmaster.send_signal(signal.SIGINT)
        return f"process {postmaster.pid} was told to stop"

    def _freeze_database(self, chance: random.Random) -> str:
        seconds = chance.uniform(2, 5)
        processes = self._tree.database()
        try:
            self._each(processes, "suspend")
            time.sleep(seconds)
        finally:
            self._each([*processes, *self._tree.database()], "resume")
        return f"{len(processes)} processes for {seconds:.1f} s"

    def _cut_connections(self, chance: random.Random) -> str:
        backends = self._tree.backends()
        self._each(backends, "terminate")
        return f"{len(backends)} connections"

    def _reload(self, chance: random.Random) -> str:
        os.kill(self._supervisor, signal.SIGHUP)
        return f"process {self._supervisor}"

    @staticmethod
    def _each(processes: list[Any], what: str) -> None:
        import psutil

        for process in processes:
            with contextlib.suppress(psutil.Error):
                getattr(process, what)()

    # -- clients --

    def _abort_uploads(self, chance: random.Random) -> str:
        for number in range(CONNECTIONS):
            with contextlib.suppress(OSError), self._half_sent(chance) as connection:
                if number % 2:  # no orderly end: the connection is reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                time.sleep(chance.uniform(0, 0.05))
        return f"{CONNECTIONS} uploads"

    def _send_halves(self, chance: random.Random) -> str:
        seconds = chance.uniform(2, 5)
        with contextlib.ExitStack() as closing:
            for _ in range(CONNECTIONS):
                with contextlib.suppress(OSError):
                    closing.enter_context(self._half_sent(chance))
            time.sleep(seconds)
        return f"{CONNECTIONS} connections for {seconds:.1f} s"

    def _half_sent(self, chance: random.Random) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=5)
        length = len(self._photo)
        head = f"POST /recognize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {length}"
        connection.sendall(f"{head}\r\n\r\n".encode() + self._photo[: int(length * chance.uniform(0.05, 0.9))])
        return connection

    def _flood_it(self, chance: random.Random) -> str:
        seconds = chance.uniform(3, 6)
        return f"{self._flood(seconds)} clients more for {seconds:.1f} s"
