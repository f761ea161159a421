"""A supervisor that runs a small app: the process layer's tests need no models, and ways to be slow.

`python -m tests.servers.stub` is `recognizer serve` with this app; the same with `server`, `waitress` or
`development` is its server child.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg2
from flask import Flask, request

from recognizer import config, supervisor
from recognizer.config import Settings
from recognizer.errors import StartupError
from recognizer.host.signals import on_stop
from recognizer.servers import child, development, linux, windows


class Closing:
    """Stands in for a worker's runtime and leaves a trace when it is closed."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def end_streams(self) -> None:
        """There are none."""

    def close(self) -> None:
        with self._trace.open("a") as file:
            file.write(f"{os.getpid()}\n")


class StubServer(linux.Server):
    def load(self) -> Flask:
        if (self.settings.data_dir / "broken").exists():
            raise StartupError("The app is broken.")
        return app(self.settings)


def app(settings: Settings) -> Flask:
    app = Flask("stub")
    app.extensions["recognizer"] = Closing(settings.data_dir / "closed")

    def query(sql: str, *values: object) -> list[Any]:
        assert settings.database_url
        connection = psycopg2.connect(settings.database_url.get_secret_value(), connect_timeout=2)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    @app.get("/health/ready")
    def ready() -> Any:
        try:
            query("SELECT 1")
        except psycopg2.Error:
            return {"status": "not_ready", "checks": {"database": {"ok": False, "detail": "It is away."}}}, 503
        return {"status": "ready", "checks": {"database": {"ok": True}}}

    @app.post("/keep/<name>")
    def keep(name: str) -> Any:
        query("CREATE TABLE IF NOT EXISTS kept (name text)")
        query("INSERT INTO kept VALUES (%s)", name)
        return {}, 201

    @app.get("/kept")
    def kept() -> Any:
        return [name for (name,) in query("SELECT name FROM kept")]

    @app.get("/slow/<seconds>")
    def slow(seconds: str) -> Any:
        time.sleep(float(seconds))
        return {"pid": os.getpid()}

    @app.post("/body")
    def body() -> Any:
        return {"bytes": len(request.get_data())}

    return app


def serve_with_waitress() -> None:
    settings = config.load()
    server = windows.Server(settings, app(settings))
    on_stop(server.stop)
    server.run()


if __name__ == "__main__":
    if "server" in sys.argv:
        StubServer(config.load()).run()
    elif "waitress" in sys.argv:
        serve_with_waitress()
    elif "development" in sys.argv:
        settings = config.load()
        sys.exit(development.serve(settings, app(settings), watched=settings.data_dir / "package"))
    else:
        if "WITHOUT_GUNICORN" in os.environ:
            sys.modules["gunicorn"] = None  # type: ignore[assignment]  # as if it were not installed
        for name, argument in (("gunicorn", "server"), ("waitress", "waitress"), ("development", "development")):
            child.COMMANDS[name] = (sys.executable, "-m", "tests.servers.stub", argument)
        supervisor.prepare_models = lambda folder: None  # type: ignore[assignment]
        sys.exit(supervisor.run(config.load(), config.load))
