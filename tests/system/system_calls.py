"""The service as a user runs it: real processes, HTTP only. These tests may not import the package."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
SERVE = (sys.executable, "-m", "recognizer", "serve")
START_LIMIT_SECONDS = 60
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpx, which would read all authorities' certificates for every single call: that takes longer than the call."""


class Service:
    """One `recognizer serve` with its own data directory; everything it starts is gone after `stop()`."""

    def __init__(
        self, data_dir: Path, *options: str, port: int | None = None, command: tuple[str, ...] = SERVE
    ) -> None:
        self._command = command
        self.data_dir = data_dir
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close()
        self.process: subprocess.Popen[str] | None = None

    def start(self, wait: bool = True, **environment: str) -> Service:
        self.process = subprocess.Popen(
            [*self._command, "--data-dir", str(self.data_dir), "--port", str(self.port), *self._options],
            stdout=self.output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self, seconds: float = START_LIMIT_SECONDS) -> None:
        assert self.process
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the service ended:\n{self.said()}"
            if self.is_ready():
                return
            time.sleep(0.1)
        raise AssertionError(f"not ready after {seconds} s:\n{self.said()}")

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=3, verify=NO_TLS).status_code == 200
        except httpx.HTTPError:
            return False

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything below it, among them PostgreSQL and the workers."""
        assert self.process
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill_all(self) -> None:
        """kill -9 of every process at once, as a power cut would."""
        processes = self.processes()
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    act(process)
        psutil.wait_procs(processes, timeout=10)
        assert self.process
        self.process.wait(10)

    def stop(self, sig: int = signal.SIGTERM, seconds: float = 40) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.kill_all()

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.stop()
        self.output.close()


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a folder with all it has, owners and modes included; the target may be there."""
    if os.name == "nt":
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", f"{source}/.", target], check=True)
    return target


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def enroll(url: str, name: str, *photos: bytes, **options: str) -> httpx.Response:
    files = [("image", (f"{number}.jpg", photo)) for number, photo in enumerate(photos)]
    return httpx.post(f"{url}/enroll", files=files, data={"name": name, **options}, timeout=60, verify=NO_TLS)


def recognize(url: str, photo: bytes, **options: str) -> httpx.Response:
    return httpx.post(f"{url}/recognize", files={"image": photo}, data=options, timeout=60, verify=NO_TLS)
