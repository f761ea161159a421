"""What the service's processes use: seen by psutil on this machine, else on its metrics page."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from soak.places import MB
from soak.talk import Client, NoAnswer


@dataclass(frozen=True)
class Process:
    """What one process of the service uses at one moment; None where it cannot be seen."""

    pid: int
    kind: str
    memory_mb: float
    threads: int | None = None
    files: int | None = None


@dataclass(frozen=True)
class Sample:
    """All processes at one moment, `at` seconds after the beginning."""

    at: float
    processes: tuple[Process, ...]
    connections: int | None


class ProcessTree:
    """The processes of a service on this machine, seen by psutil: from its supervisor down."""

    # an argument that makes a process one of ours; a folder called recognizer somewhere on the line does not
    _OURS = re.compile(r"recognizer(\.\S*)?|\S*[/\\](recognizer(\.exe)?|start_(windows_)?production\.py)|gunicorn: .*")
    _BACKEND = re.compile(r"postgres: .*\S+ \S+ (\[local\]|\S+\(\d+\)) ")

    def __init__(self, port: int) -> None:
        import psutil

        self._psutil = psutil
        self._port = port
        self.says = ""
        self._root = self._find_root()

    def found(self) -> bool:
        return self._root is not None

    def sample(self, at: float) -> Sample:
        if self._root is None or not self._root.is_running():
            self._root = self._find_root()  # the whole service was started again
        tree = self._tree()
        parents = {parent for process, parent, line in tree if not self._is_database(line)}
        seen = []
        for process, _, line in tree:
            kind = "database" if self._is_database(line) else "supervisor" if process.pid in parents else "workers"
            with contextlib.suppress(self._psutil.Error):
                seen.append(self._look_at(process, kind))
        return Sample(at, tuple(seen), self._connections(tree))

    def workers(self) -> list[Any]:
        """The processes that answer requests: below the server's own, which is below the supervisor."""
        tree = [(process, parent) for process, parent, line in self._tree() if not self._is_database(line)]
        parents = {parent for _, parent in tree}
        return [p for p, parent in tree if p.pid not in parents and self._root and parent != self._root.pid]

    def database(self) -> list[Any]:
        """All processes of PostgreSQL, the one that started the others first."""
        tree = [(process, parent) for process, parent, line in self._tree() if self._is_database(line)]
        return [
            process for process, _ in sorted(tree, key=lambda pair: self._root is None or pair[1] != self._root.pid)
        ]

    def backends(self) -> list[Any]:
        """PostgreSQL's processes that each serve one connection."""
        return [process for process, _, line in self._tree() if self._BACKEND.match(line)]

    def _find_root(self) -> Any:
        """The topmost process of ours above the one that listens on the port."""
        psutil, listening = self._psutil, None
        with contextlib.suppress(psutil.Error):
            for connection in psutil.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == self._port:
                    listening = connection.pid or listening
        root = None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(listening) if listening else None
            server = " ".join(process.cmdline()[1:3]) if process else ""
            self.says = f"RSS of the processes around `python {server}`, of the database without what they share"
            while process and process.pid != os.getpid() and any(map(self._OURS.fullmatch, process.cmdline())):
                root, process = process, process.parent()
        return root

    def _tree(self) -> list[tuple[Any, int, str]]:
        tree = []
        with contextlib.suppress(self._psutil.Error):
            for process in [self._root, *self._root.children(recursive=True)] if self._root else []:
                with contextlib.suppress(self._psutil.Error):
                    tree.append((process, process.ppid(), " ".join(process.cmdline())))
        return tree

    @staticmethod
    def _is_database(line: str) -> bool:
        return re.match(r"\S*postgres(\.exe)?(:| |$)", line) is not None

    def _look_at(self, process: Any, kind: str) -> Process:
        with process.oneshot():
            memory = process.memory_info()
            used = memory.rss - getattr(memory, "shared", 0) if kind == "database" else memory.rss
            files = None
            with contextlib.suppress(self._psutil.Error):  # of another user's process
                files = process.num_handles() if os.name == "nt" else process.num_fds()
            return Process(process.pid, kind, round(used / MB, 2), process.num_threads(), files)

    def _connections(self, tree: Sequence[tuple[Any, int, str]]) -> int | None:
        """Of a PostgreSQL among the processes its backends, of one elsewhere the workers' connections to others."""
        if any(self._is_database(line) for _, _, line in tree):
            return sum(1 for _, _, line in tree if self._BACKEND.match(line))
        number = 0
        for process, _, _ in tree:
            with contextlib.suppress(self._psutil.Error):
                number += sum(
                    c.status == self._psutil.CONN_ESTABLISHED and c.laddr.port != self._port
                    for c in process.net_connections("tcp")
                )
        return number


class MetricsPage:
    """The workers of a service elsewhere, as its GET /metrics shows them (its key needs the scope admin)."""

    says = "RSS of the workers as GET /metrics shows it; file descriptors are not in it"
    _LINE = re.compile(r'recognizer_(\w+?)(?:\{(?:.*,)?pid="(\d+)".*\}|\{.*\})? (\S+)')

    def __init__(self, url: str, key: str | None) -> None:
        self._client = Client(url, key)

    def found(self) -> bool:
        with contextlib.suppress(NoAnswer):
            return bool(self.sample(0).processes)
        return False

    def sample(self, at: float) -> Sample:
        page = self._client.send("GET", "/metrics").body.decode("utf-8", "replace")
        values: dict[tuple[str, str], float] = {}
        for name, pid, value in map(re.Match.groups, filter(None, map(self._LINE.fullmatch, page.splitlines()))):
            with contextlib.suppress(ValueError):
                values[name, pid or ""] = values.get((name, pid or ""), 0.0) + float(value)
        workers = [
            Process(int(pid or 0), "workers", round(value / MB, 2), _whole(values.get(("worker_threads", pid))))
            for (name, pid), value in values.items()
            if name == "worker_memory_bytes"
        ]
        pool = [values.get((f"pool_{state}", "")) for state in ("in_use", "idle")]
        return Sample(at, tuple(workers), _whole(sum(pool)) if None not in pool else None)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def find_watch(url: str, key: str | None) -> tuple[ProcessTree | MetricsPage | None, str]:
    """What can be seen of the service's processes, and how."""
    parts = urlsplit(url)
    missing = "this machine has no psutil"
    if importlib.util.find_spec("psutil"):
        missing = "its processes are not on this machine or not visible to this user"
        tree = ProcessTree(parts.port or (443 if parts.scheme == "https" else 80))
        if _is_here(parts.hostname or "") and tree.found():
            return tree, tree.says
    page = MetricsPage(url, key)
    if page.found():
        return page, page.says
    return None, f"not measured: {missing}, and GET /metrics does not show them (it needs a key with the scope admin)"


def _is_here(host: str) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind((host, 0))  # only an address of this machine can be bound
        return True
    return host == "::1"


class Sampler:
    """A thread that looks at the processes now and then."""

    def __init__(
        self,
        watch: ProcessTree | MetricsPage | None,
        began: float,
        every_seconds: float,
        requests: Callable[[], int],
    ) -> None:
        self.samples: list[Sample] = []
        self.answered: list[int] = []
        """How many requests there had been at each sample."""
        self._watch, self._began, self._every, self._requests = watch, began, every_seconds, requests
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def memory_mb(self) -> float:
        return sum(process.memory_mb for process in self.samples[-1].processes) if self.samples else 0.0

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _work(self) -> None:
        while self._watch:
            with contextlib.suppress(NoAnswer):
                sample = self._watch.sample(round(time.monotonic() - self._began, 2))
                if sample.processes:
                    self.samples.append(sample)
                    self.answered.append(self._requests())
            if self._stop.wait(self._every):
                return
