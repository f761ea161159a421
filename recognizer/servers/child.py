"""The server as the supervisor's child: its address, start, health, end, and the orphans of a killed master."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from recognizer.config import ENV_PREFIX, Settings
from recognizer.deadline import Deadline
from recognizer.errors import StartupError
from recognizer.host.processes import HURRY, KILL, STOP, spawn, stop_all, tell
from recognizer.host.signals import Signals
from recognizer.logs import LogFile
from recognizer.metrics import MULTIPROCESS_DIR_ENV
from recognizer.servers.address import readiness

COMMANDS = {
    "gunicorn": (sys.executable, "-m", "recognizer.servers.linux"),
    "waitress": (sys.executable, "-m", "recognizer.servers.windows"),
    "development": (sys.executable, "-m", "recognizer.servers.development"),
}
"""By the setting `server`."""

LISTENER_ENV = "SERVER_LISTENER"
"""Names the inherited socket that gunicorn listens on."""

READY_PIPE_ENV = "SERVER_READY_PIPE"
"""Names the inherited pipe to which each worker writes a byte when it serves."""

RELOAD = 75
"""The exit code of a server that wants to be started again, because its files have changed; gunicorn has others."""

BACKLOG = 1024
"""Connections that the system keeps while nobody accepts them, while a worker is being replaced, say."""

_ALLOCATOR = {
    # glibc keeps what threads have freed, in up to eight arenas a core. With two arenas, and large pictures given back
    # to the system at once, a worker under mixed photos of up to 32 megapixels stays below 400 MB. The networks'
    # buffers, up to some MB, are better kept: to fetch them anew for every photo doubles its time.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
}

_ARITHMETIC = {
    # A worker's threads are as many as the cores can do already. numpy's own would wait for each other in every product
    # of matrices: on busy cores, comparing 100,000 faces took five times as long.
    "OPENBLAS_NUM_THREADS": "1",
}

_HURRY_SECONDS = 3.0
_GRACE_SECONDS = 5.0  # beyond the server's own, for its exit
_ORPHANS = ((STOP, 5.0), (KILL, 5.0))


class ServerChild:
    """The HTTP server process of one supervisor, and for a while the one before it.

    gunicorn is given the listening socket, which stays open here: while one server takes over from another, or the
    next one starts, clients wait instead of being refused.
    """

    def __init__(self, settings: Settings, log_file: LogFile | None = None) -> None:
        self._settings = settings
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._retired: list[tuple[subprocess.Popen[bytes], Deadline]] = []
        self._listener: socket.socket | None = None

    def occupy(self) -> None:
        """Make sure of the port.

        Raises:
            StartupError: it is taken, or not ours to listen on.
        """
        if self._settings.server == "gunicorn":
            self._listener = bound_socket(self._settings.host, self._settings.port, listen=False)
        else:
            available_port(self._settings.host, self._settings.port)

    def start(self, database_url: str) -> None:
        """Start it, after whatever a dead master has left is gone.

        Raises:
            StartupError: it cannot be run.
        """
        stop_orphans(self._settings.data_dir)
        _empty_folder(self._settings.data_dir / "metrics")
        self._process = self._spawn(self._settings, database_url)

    def hand_over(self, settings: Settings, database_url: str, signals: Signals) -> None:
        """Start a server with these settings and the code of now; when all its workers serve, let the old one go.

        Raises:
            StartupError: the new one does not come up; the old one goes on.
            StopRequested: a stop has been asked for.
        """
        if self._listener is None:  # only gunicorn shares its socket
            self.stop(signals)
            self._settings = settings
            self.start(database_url)
            return
        reader, writer = os.pipe()
        successor = None
        try:
            successor = self._spawn(settings, database_url, writer)
            _await_workers(successor, reader, settings, signals)
        except BaseException:  # the end as well: it must not outlive the attempt
            if successor:
                tell(successor, STOP)
                self._retired.append((successor, Deadline(_HURRY_SECONDS)))
            raise
        finally:
            os.close(reader)
            os.close(writer)
        if self._process:
            tell(self._process, STOP)
            self._retired.append((self._process, Deadline(self._settings.stop_timeout_seconds + _GRACE_SECONDS)))
        self._process, self._settings = successor, settings

    def _spawn(self, settings: Settings, database_url: str, ready_pipe: int | None = None) -> subprocess.Popen[bytes]:
        own = {
            **settings.as_environment(),
            f"{ENV_PREFIX}DATABASE_URL": database_url,
            MULTIPROCESS_DIR_ENV: str(settings.data_dir / "metrics"),
        }
        passed = []
        if self._listener is not None:
            own[LISTENER_ENV] = str(self._listener.fileno())
            passed.append(self._listener.fileno())
        if ready_pipe is not None:
            own[READY_PIPE_ENV] = str(ready_pipe)
            passed.append(ready_pipe)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        try:
            process = spawn(
                COMMANDS[settings.server],
                death_signal=STOP,
                environment={**_ALLOCATOR, **_ARITHMETIC, **inherited, **own},
                stderr=subprocess.PIPE if self._log_file else None,
                pass_fds=passed,
            )
        except OSError as error:
            raise StartupError(f"The server cannot be run: {error}.") from error
        if self._log_file and process.stderr:
            arguments = (process.stderr,)  # it ends with the server
            threading.Thread(target=self._log_file.take_lines, args=arguments, name="log", daemon=True).start()
        return process

    def poll(self) -> int | None:
        """None while it runs; its exit code once it has ended. Also buries those that were to go."""
        for retired in list(self._retired):
            process, deadline = retired
            if process.poll() is not None:
                self._retired.remove(retired)
            elif not deadline.remaining_seconds():
                tell(process, KILL)
        return self._process.poll() if self._process else 0

    def health(self) -> Mapping[str, Any] | None:
        """What GET /health/ready says, None while nobody answers."""
        return readiness(self._settings)

    def stop(self, signals: Signals) -> None:
        """Let it finish the requests in flight, within `stop_timeout_seconds`; a second Ctrl-C ends the wait."""
        process = self._process
        if process is None:
            return
        tell(process, STOP)
        if not _ended(process, self._settings.stop_timeout_seconds + _GRACE_SECONDS, signals, hurry=True):
            tell(process, HURRY)
            if not _ended(process, _HURRY_SECONDS, signals):
                tell(process, KILL)
                _ended(process, _HURRY_SECONDS, signals)
        stop_orphans(self._settings.data_dir)

    def release(self) -> None:
        """Give the port back."""
        if self._listener is not None:
            self._listener.close()


def _await_workers(process: subprocess.Popen[bytes], reader: int, settings: Settings, signals: Signals) -> None:
    """Wait until so many workers have written their byte.

    Raises:
        StartupError: they have not, or the server has ended.
        StopRequested: a stop has been asked for.
    """
    if sys.platform != "win32":  # where no server shares its socket
        os.set_blocking(reader, False)
    deadline = Deadline(settings.start_timeout_seconds)
    ready = 0
    while ready < settings.workers:
        if process.poll() is not None or not deadline.remaining_seconds():
            raise StartupError("The new server does not come up; its log says why.")
        signals.pause(0.1)
        with suppress(BlockingIOError):
            ready += len(os.read(reader, 1024))


def _empty_folder(path: Path) -> Path:
    """A folder for the workers' metrics, without those of workers that are gone."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        for old in path.iterdir():
            old.unlink()
    except OSError as error:
        raise StartupError(f"The folder {path} cannot be used: {error.strerror}.") from error
    return path


def stop_orphans(data_dir: Path) -> None:
    """End every server process that works for this data directory; only its lock's holder may call it."""
    stop_all(_servers_for(data_dir), _ORPHANS, tell)


def available_port(host: str, port: int) -> int:
    """`port` if a server can listen on it, any free one for 0.

    Raises:
        StartupError: it is taken, or not ours to listen on.
    """
    with bound_socket(host, port) as probe:
        return int(probe.getsockname()[1])


def bound_socket(host: str, port: int, listen: bool = True) -> socket.socket:
    """A socket that listens there, or is about to, and shares its port with nobody.

    Raises:
        StartupError: it is taken, or not ours to listen on.
    """
    bare = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET)
    if sys.platform == "win32":  # where SO_REUSEADDR would let two programs share the port
        option = socket.SO_EXCLUSIVEADDRUSE
    else:
        option = socket.SO_REUSEADDR
    try:
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((bare, port))
        if listen:
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(_why_not(error, host, port)) from error
    return listener


def _why_not(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror):
        return f"The host `{host}` is unknown; choose another one with --host."
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken by another program; choose another one with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; choose another one with --host."
    if error.errno == errno.EACCES and os.name == "nt":
        return f"Windows refuses port {port} on {host}: it is taken or reserved; choose another one with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} is reserved for root; choose one above 1023 with --port."
    return f"Cannot listen on {host}, port {port}: {error.strerror}."


def _servers_for(data_dir: Path) -> list[psutil.Process]:
    found = []
    wanted = {command[1:] for command in COMMANDS.values()}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone, or somebody else's
            ours = tuple(process.cmdline()[1:]) in wanted  # the interpreter may go by another name
            if ours and process.environ().get(f"{ENV_PREFIX}DATA_DIR") == str(data_dir):
                found.append(process)
    return found


def _ended(process: subprocess.Popen[bytes], seconds: float, signals: Signals, hurry: bool = False) -> bool:
    """Wait for the end of the process; with `hurry`, a second request to stop ends the wait as well."""
    deadline = Deadline(seconds)
    while process.poll() is None:
        if not deadline.remaining_seconds() or (hurry and signals.stops > 1):
            return False
        signals.wait(min(0.5, deadline.remaining_seconds()))
    return True
