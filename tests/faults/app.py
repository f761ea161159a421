"""gunicorn as the service runs it, around a small app with ways to misbehave: `python -m tests.faults.app`.

With `FAULTS_WITHOUT` in the environment one protection is off, and the tests of it have to fail:

    FAULTS_WITHOUT=reception .venv/bin/python -m pytest tests/faults     gunicorn's own way of reading requests
    FAULTS_WITHOUT=master    ...                                          gunicorn's own way of replacing workers
    FAULTS_WITHOUT=age       ...                                          nobody looks for requests that are stuck
    FAULTS_WITHOUT=queue     ...                                          a queue without an end
    FAULTS_WITHOUT=courtesy  ...                                          workers without a free thread accept, too
    FAULTS_WITHOUT=room      ...                                          nobody is sent away for others' sake
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from flask import Flask, request, send_file
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from recognizer import config, logs
from recognizer.config import Settings
from recognizer.servers import door, limits, linux, reception, worker

MEMORY: list[bytes] = []


class Closing:
    """Stands in for a worker's runtime."""

    def close(self) -> None:
        """Nothing is open."""


class PlainWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's own, which our master can manage all the same."""

    state = worker.SERVING
    is_leaving = was_told = False
    started = 0.0


class FaultyServer(linux.Server):
    def load(self) -> Flask:
        if (self.settings.data_dir / "dies-at-start").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.settings.data_dir / "slow-start").exists():
            time.sleep(3)
        if (self.settings.data_dir / "broken").exists():
            raise RuntimeError("The app is broken.")
        return app(self.settings.data_dir)


def app(folder: Path) -> Flask:
    version = (folder / "version").read_text() if (folder / "version").exists() else ""
    app = Flask("faulty")
    app.extensions["recognizer"] = Closing()

    @app.get("/health/live")
    def live() -> Any:
        return {"status": "live"}

    @app.get("/health/ready")
    def ready() -> Any:
        return {"status": "ready", "pid": os.getpid()}

    @app.get("/who")
    def who() -> Any:
        return {"pid": os.getpid(), "version": version}

    @app.route("/slow/<seconds>", methods=["GET", "POST"])
    def slow(seconds: str) -> Any:
        time.sleep(float(seconds))
        return {"pid": os.getpid()}

    @app.post("/body")
    def body() -> Any:
        return {"bytes": len(request.get_data())}

    @app.get("/large/<int:megabytes>")
    def large(megabytes: int) -> Any:
        return b"x" * (megabytes << 20)

    @app.get("/file")
    def file() -> Any:
        return send_file(sys.executable)

    @app.get("/stuck/<int:seconds>")
    def stuck(seconds: int) -> Any:
        ctypes.CDLL(None).sleep(seconds)  # native code without the interpreter's lock, as a network's is
        return {"pid": os.getpid()}

    @app.get("/eat/<int:megabytes>")
    def eat(megabytes: int) -> Any:
        MEMORY.append(os.urandom(megabytes << 20))
        return {"pid": os.getpid()}

    return app


def leave_out(protection: str) -> None:
    """Take one protection away."""
    if protection == "reception":
        linux.Worker.with_settings = classmethod(lambda cls, settings: PlainWorker)  # type: ignore[method-assign,assignment]
    elif protection == "master":
        linux.Master = Arbiter  # type: ignore[misc]
        worker.UNATTENDED_SECONDS = 0.0
    elif protection == "age":
        reception.Reception._give_up = lambda self, connection: None  # type: ignore[method-assign]
    elif protection == "queue":
        limits.Limits.of = functools.partial(_endless, limits.Limits.of)  # type: ignore[method-assign,assignment]
    elif protection == "room":
        reception.Reception._make_room = lambda self: None  # type: ignore[method-assign]
    elif protection == "courtesy":
        door.COURTESY_SECONDS = 0.0
    elif protection:
        sys.exit(f"There is no protection {protection}")


def _endless(made: Any, *arguments: Any, **named: Any) -> limits.Limits:
    return dataclasses.replace(made(*arguments, **named), queue_length=10_000)


def serve(settings: Settings) -> None:
    from recognizer.servers import budget

    budget.YOUNG_SECONDS, budget.PAUSE_SECONDS = 0.5, 0.2  # patience that tests do not have
    door.COURTESY_SECONDS = float(os.environ.get("FAULTS_COURTESY_SECONDS", door.COURTESY_SECONDS))
    leave_out(os.environ.get("FAULTS_WITHOUT", ""))
    logs.configure(settings.log_level, settings.log_format)
    FaultyServer(settings).run()


if __name__ == "__main__":
    serve(config.load())
