"""A supervisor that runs a small app: the process layer's tests need no models, and ways to be slow.

`python -m tests.servers.stub` is `recognizer serve` with this app; the same with `server` is its server child.
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
from recognizer.servers import child, linux


class Closing:
    """Stands in for a worker's runtime and leaves a trace when it is closed."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

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


if __name__ == "__main__":
    if "server" in sys.argv:
        StubServer(config.load()).run()
    else:
        child.COMMAND = (sys.executable, "-m", "tests.servers.stub", "server")
        supervisor.prepare_models = lambda folder: None  # type: ignore[assignment]
        sys.exit(supervisor.run(config.load()))
