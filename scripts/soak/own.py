"""A service of our own: the one of this checkout, as a user starts it, in a folder that does not outlive it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from soak.places import START_SCRIPT, STOP_SECONDS
from soak.problems import Wrong
from soak.talk import Client, wait_until_ready


class OwnService:
    """The service of this checkout, on a free port, with a data directory that does not outlive it."""

    def __init__(self) -> None:
        # 0711 inside the system's folder: as root, PostgreSQL runs as another user and has to pass through
        self._folder = Path(tempfile.mkdtemp(prefix="soak-"))
        self._folder.chmod(0o711)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = open(self._folder / "output.txt", "w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        command = [sys.executable, str(START_SCRIPT), "--data-dir", str(self._folder / "data")]
        # its own session: Ctrl-C is for us, we stop it when its people are erased; and no settings but the defaults
        own = {"creationflags": 0x200} if os.name == "nt" else {"start_new_session": True}
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith("RECOGNIZER_")},
            **own,
        )

    def wait_until_ready(self) -> None:
        client = Client(self.url, None)
        try:
            wait_until_ready(client, lambda: self._process.poll() is None)
        except Wrong:
            print(self._said())
            raise
        finally:
            client.close()

    @property
    def pid(self) -> int:
        """The supervisor's process id: the start script becomes it (on Windows it waits for it)."""
        return self._process.pid

    def keep_log(self, path: Path) -> None:
        """Copy what it has said so far; its folder does not outlive it."""
        with contextlib.suppress(OSError):
            shutil.copyfile(self._folder / "output.txt", path)

    def stop(self) -> str | None:
        """Stop it and return what was wrong with that."""
        crashed = self._process.poll()
        try:
            if crashed is not None:
                return f"the service had ended by itself (exit code {crashed})."
            self._process.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGTERM)
            try:
                code = self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                return f"the service did not stop within {STOP_SECONDS:.0f} s."
            return f"the service ended with exit code {code} when it was stopped." if code else None
        finally:
            if self._process.returncode:
                print(self._said())
            self._log.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _said(self) -> str:
        self._log.seek(0)
        return "".join(f"  | {line}" for line in self._log.readlines()[-20:])
