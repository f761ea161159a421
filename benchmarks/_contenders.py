"""What `throughput.py` measures: the service, a plain one around face_recognition, the engine without a service."""

from __future__ import annotations

import http.client
import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
from _report import ROOT

from recognizer.config import ENV_PREFIX, Settings
from recognizer.deadline import Deadline
from recognizer.host.processes import KILL, STOP, spawn, tell
from recognizer.vision.engine import open_engine

READY_SECONDS = 120.0
STOP_SECONDS = 45.0
LOOP_SPARE_SECONDS = 120.0  # beyond the time that a loop is asked to run: its start, its last photo


class Failed(Exception):
    """Ends the benchmark; the message is the sentence that says why."""


class OtherWork:
    """How many cores are busy with what is neither this process nor a descendant, from one call to the next."""

    def __init__(self) -> None:
        self._before = self._seconds()

    def cores(self) -> float:
        before, self._before = self._before, self._seconds()
        moment, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0.0, busy - own) / moment

    @staticmethod
    def _seconds() -> tuple[float, float, float]:
        """The clock, what the processors have worked and what they have worked for us."""
        times, own = psutil.cpu_times(), 0.0
        this = psutil.Process()
        for process in (this, *this.children(recursive=True)):
            with suppress(psutil.Error):  # it has just ended
                own += sum(process.cpu_times()[:2])
        idle = times.idle + getattr(times, "iowait", 0.0)
        return time.perf_counter(), sum(times[:8]) - idle, own


# -- services --


@dataclass(frozen=True)
class Service:
    """A server that answers on 127.0.0.1."""

    name: str
    port: int


@contextmanager
def our_service(settings: Settings) -> Iterator[Service]:
    """The service of this checkout, with these settings."""
    command = [sys.executable, "-m", "recognizer", "serve"]
    service = Service("recognizer", settings.port)
    with _serving(service, command, settings.as_environment(), "/health/ready", settings.data_dir.parent):
        yield service


@contextmanager
def plain_service(workers: int, known: Path) -> Iterator[Service]:
    """`plain_service.py` under gunicorn, with as many of its default workers, which serve one request each."""
    service = Service("plain", free_port())
    options = ["--workers", str(workers), "--bind", f"127.0.0.1:{service.port}", "--chdir", str(ROOT / "benchmarks")]
    # a large photo can take it half a minute, after which gunicorn would end the worker
    options += ["--timeout", "300", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", *options, "plain_service:app"]
    with _serving(service, command, {"PLAIN_KNOWN": str(known)}, "/", known.parent):
        yield service


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _serving(
    service: Service, command: Sequence[str], environment: dict[str, str], ready_path: str, folder: Path
) -> Iterator[None]:
    """Run a server until the block ends; what it says goes to a file in `folder`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # this checkout's package, wherever pip looks
    own = {"PYTHONPATH": os.pathsep.join(paths), **environment}
    said = folder / f"{service.name}.log"
    with said.open("wb") as output:
        process = spawn(
            command, death_signal=STOP, environment={**inherited, **own}, folder=ROOT, stdout=output, stderr=output
        )
        try:
            _wait_until_ready(process, service, ready_path, said)
            yield
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], service: Service, path: str, said: Path) -> None:
    deadline = Deadline(READY_SECONDS)
    while deadline.remaining_seconds():
        if process.poll() is not None:
            break
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        connection.close()
        time.sleep(0.2)
    tail = "\n".join(f"  | {line}" for line in said.read_text(errors="replace").splitlines()[-15:])
    raise Failed(f"the service `{service.name}` did not become ready; it said:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    tell(process, STOP)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, KILL)  # `spawn` gave it a session, hence a group, of its own
        process.wait(5)


# -- the engine alone --


@dataclass(frozen=True)
class Run:
    """What one engine process did."""

    photos: int
    faces: int
    seconds: float


class EngineLoops:
    """One process per core; each calls `engine.analyse` in a loop. No server can be faster on these cores."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    @classmethod
    @contextmanager
    def open(cls, settings: Settings, count: int) -> Iterator[EngineLoops]:
        spawning = multiprocessing.get_context("spawn")
        with ExitStack() as closing:
            connections = []
            for _ in range(count):
                ours, theirs = spawning.Pipe()
                process = spawning.Process(target=_loop_on_order, args=(theirs, settings), daemon=True)
                process.start()
                theirs.close()
                closing.callback(_end, process)
                closing.callback(ours.close)
                connections.append(ours)
            yield cls(connections)

    def rate(self, photos: Sequence[bytes], seconds: float) -> float:
        """Photos per second of all processes together."""
        return sum(run.photos / run.seconds for run in self._run(self._connections, photos, seconds))

    def faces(self, photo: bytes) -> int:
        """How many faces the engine finds."""
        return self._run(self._connections[:1], [photo], 0)[0].faces

    def _run(self, connections: Sequence[Connection], photos: Sequence[bytes], seconds: float) -> list[Run]:
        runs = []
        try:
            for connection in connections:
                connection.send((photos, seconds))
            for connection in connections:
                if not connection.poll(seconds + LOOP_SPARE_SECONDS):
                    raise Failed("an engine process did not answer in time.")
                runs.append(connection.recv())
        except (EOFError, OSError) as error:
            raise Failed("an engine process has ended; what it said is above.") from error
        return runs


def _loop_on_order(connection: Connection, settings: Settings) -> None:
    """The life of an engine process: photos and seconds come in, a `Run` goes out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that closes the pipe
    engine = open_engine(settings)
    with suppress(EOFError, OSError):
        while True:
            photos, seconds = connection.recv()
            began, count, faces = time.perf_counter(), 0, 0
            for photo in itertools.cycle(photos):
                faces += len(engine.analyse(photo, Deadline(LOOP_SPARE_SECONDS)).faces)
                count += 1
                if (elapsed := time.perf_counter() - began) >= seconds:
                    break
            connection.send(Run(count, faces, elapsed))


def _end(process: multiprocessing.process.BaseProcess) -> None:
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join(5)
