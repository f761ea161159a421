"""The bundled PostgreSQL: started as our child, watched, stopped; it recovers from a `kill -9` of anybody.

It listens on a Unix socket inside the data directory. Where that path is too long for a socket (107 bytes)
it listens on a free TCP port of the loopback address instead; the password is asked for either way.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from signal import SIGINT
from typing import IO, Self
from urllib.parse import quote

import psutil

from recognizer.deadline import Deadline
from recognizer.errors import StartupError
from recognizer.host.processes import spawn, stop_all
from recognizer.postgres.cluster import DATABASE, ENVIRONMENT, ROLE, Cluster, tail
from recognizer.postgres.orders import FAST, FIRM, GENTLE, at_work_in, tell

_SOCKET_PORT = 5432  # on a socket merely a part of its name
_SOCKET_PATH_BYTES = 107
_TCP_ATTEMPTS = 3  # a free port may be taken by somebody else before PostgreSQL binds it

# Not the operator's to change: durability, that no name or embedding of a person is ever logged, and that it can be
# erased for good (`recognizer scrub`).
_SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_recycle": "off",  # a segment of the log that is done with is deleted, not kept with what was erased in it
    "ssl": "off",
    "unix_socket_permissions": "0700",
    "logging_collector": "on",
    "log_destination": "stderr",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_file_mode": "0600",
    "log_min_messages": "log",  # the server's own events, not the errors of its clients
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}


class BundledPostgres:
    """One PostgreSQL below `data_dir`; as a context manager it is prepared, started and stopped.

    Whoever starts it must hold the data directory's lock (`datadir.locked`) unless nobody else can know the
    directory: `start()` stops every PostgreSQL it finds at work there.
    """

    def __init__(self, data_dir: Path, max_connections: int = 50) -> None:
        self.cluster = Cluster(data_dir)
        self._max_connections = max_connections
        self._process: subprocess.Popen[bytes] | None = None
        socket_path = self.cluster.run / f".s.PGSQL.{_SOCKET_PORT}"
        self._over_tcp = os.name == "nt" or len(os.fsencode(socket_path)) > _SOCKET_PATH_BYTES
        self._port = 0 if self._over_tcp else _SOCKET_PORT

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException:  # also Ctrl-C: no child may be left behind
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of our PostgreSQL, None when we have not started one."""
        return self._process.pid if self._process else None

    @property
    def url(self) -> str:
        """What to connect with, password included; only scram is accepted from whoever answers there."""
        secret = quote(self.cluster.password(), safe="")
        check = "require_auth=scram-sha-256"
        if self._over_tcp:
            return f"postgresql://{ROLE}:{secret}@127.0.0.1:{self._port}/{DATABASE}?sslmode=disable&{check}"
        return f"postgresql://{ROLE}:{secret}@/{DATABASE}?host={quote(str(self.cluster.run), safe='')}&{check}"

    def prepare(self) -> None:
        """Make the account, folders, secret and database that are missing.

        Raises:
            StartupError: something is in the way; the sentence says what.
        """
        self._stop_left_over()
        self.cluster.prepare()

    def start(self, deadline: Deadline | None = None, pause: Callable[[float], object] = time.sleep) -> None:
        """Start PostgreSQL and wait until it accepts connections; does nothing when it runs.

        Args:
            deadline: for all of it, recovery included; default 60 seconds.
            pause: sleeps between two looks; whatever it raises ends the wait.

        Raises:
            StartupError: it ended or was not ready in time; the message holds the last lines of its log.
        """
        if self._process and self._process.poll() is None:
            return
        deadline = deadline or Deadline(60)
        self._stop_left_over()
        for attempt in range(1, _TCP_ATTEMPTS + 1):
            if self._over_tcp and not _is_free(self._port):
                self._port = _free_port()
            with tempfile.TemporaryFile() as errors:
                self._process = self._launch(errors)
                if self._wait_until_ready(deadline, pause):
                    return
                if self._over_tcp and not _is_free(self._port) and attempt < _TCP_ATTEMPTS:
                    continue
                raise StartupError(f"PostgreSQL ended while it was starting. {self._last_words(errors)}")

    def poll(self) -> int | None:
        """None while it runs; its exit code once it has ended (or 0 when it was never started)."""
        return self._process.poll() if self._process else 0

    def restart(self, deadline: Deadline | None = None, pause: Callable[[float], object] = time.sleep) -> None:
        """Stop what is left of it and start it again, see `start()`; its `url` may change."""
        self.stop()
        self.start(deadline, pause)

    def stop(self, timeout_seconds: float = 10) -> None:
        """Fast shutdown; after `timeout_seconds` an immediate one, after 5 more a kill. Does nothing twice."""
        process, self._process = self._process, None
        if process is None:
            return
        for order, seconds in ((FAST, timeout_seconds), *FIRM):
            with suppress(subprocess.TimeoutExpired):
                tell(process, order)
                process.wait(timeout=seconds)
                break
        stop_all(at_work_in(self.cluster.data), FIRM, tell)

    def attach(self) -> bool:
        """Point `url` at the server another process of ours runs here; False while none accepts connections."""
        status = self._status()
        if status.get("state") != "ready" or not at_work_in(self.cluster.data):
            return False
        self._port = int(status["port"])
        return True

    def _launch(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        data = self.cluster.data
        self.cluster.write_access_rules(self._over_tcp)
        settings = {
            **_SETTINGS,
            "listen_addresses": "127.0.0.1" if self._over_tcp else "",
            "unix_socket_directories": "" if self._over_tcp else f"../{self.cluster.run.name}",
            "port": str(self._port),
            "max_connections": str(self._max_connections),
            "log_directory": f"../{self.cluster.log.name}",
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        try:
            return spawn(
                [
                    self.cluster.program("postgres"),
                    "-D",
                    self.cluster.as_named_to_postgres(data),
                    *arguments,
                ],
                death_signal=SIGINT,  # a fast shutdown: clean even when we are killed
                environment=ENVIRONMENT,
                account=self.cluster.account,
                folder=data,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                own_console=True,
            )
        except OSError as error:
            raise StartupError(f"PostgreSQL cannot be run: {error}.") from error

    def _wait_until_ready(self, deadline: Deadline, pause: Callable[[float], object]) -> bool:
        """False when it ended instead."""
        assert self._process
        while self._process.poll() is None:
            status = self._status()
            if status.get("pid") == str(self._process.pid) and status.get("state") == "ready":
                return True
            if not deadline.remaining_seconds():
                state = status.get("state", "no state yet")
                self.stop(timeout_seconds=1)
                raise StartupError(
                    f"PostgreSQL did not accept connections in time (its last state: {state}). If it is recovering "
                    f"from a crash, allow it more with start_timeout_seconds. Its log is in {self.cluster.log}."
                )
            pause(0.02)
        return False

    def _status(self) -> dict[str, str]:
        """What the server says about itself in postmaster.pid; empty when there is none."""
        try:
            lines = (self.cluster.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return {}
        names = ("pid", "data", "started", "port", "socket", "address", "memory", "state")
        return {name: line.strip() for name, line in zip(names, lines, strict=False)}

    def _stop_left_over(self) -> None:
        """Stop what a killed predecessor left at work here, and remove what would keep a new server from starting.

        PostgreSQL takes its own pid file for valid when an unrelated process has that id by now.
        """
        servers = at_work_in(self.cluster.data)
        pid = self._status().get("pid")
        stop_all([process for process in servers if str(process.pid) == pid], GENTLE, tell)
        stop_all(at_work_in(self.cluster.data), FIRM, tell)  # its children, should they have outlived it
        with suppress(OSError):
            for path in self.cluster.run.iterdir():
                path.unlink()
        if pid and pid.isdigit() and psutil.pid_exists(int(pid)):
            (self.cluster.data / "postmaster.pid").unlink(missing_ok=True)

    def _last_words(self, errors: IO[bytes]) -> str:
        """What it wrote before it opened its log, and the end of that log."""
        words = tail(errors)
        logs = sorted(self.cluster.log.glob("*.log"), key=lambda path: path.lstat().st_mtime)
        if logs and not logs[-1].is_symlink():
            with logs[-1].open("rb") as log:
                words += f"\nThe end of {logs[-1]}: " + tail(log)
        return words


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    """Whether PostgreSQL could bind this port; port 0 stands for none chosen yet."""
    with socket.socket() as probe:
        if os.name != "nt":  # where it would let us share a port that is taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port != 0
