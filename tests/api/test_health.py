"""Liveness and readiness tell the truth."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager

import psycopg2
import pytest
from flask.testing import FlaskClient

from recognizer.errors import DatabaseUnavailable
from recognizer.gallery import index_keeper
from recognizer.gallery.template_index import is_missing
from recognizer.runtime import Runtime


def test_a_healthy_service_is_live_and_ready(client: FlaskClient) -> None:
    assert client.get("/health/live").json == {"status": "live"}
    response = client.get("/health/ready")
    assert response.status_code == 200
    assert response.json["status"] == "ready"
    assert {name: check["ok"] for name, check in response.json["checks"].items()} == {
        "models": True,
        "encryption": True,
        "database": True,
        "migrations": True,
    }


def test_without_its_database_it_is_live_but_not_ready(
    client: FlaskClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def away(*_: object) -> object:
        raise DatabaseUnavailable("The database is away.")
        yield

    monkeypatch.setattr(runtime.pool, "connection", away)
    assert client.get("/health/live").status_code == 200
    response = client.get("/health/ready")
    assert response.status_code == 503
    assert response.json["checks"]["database"] == {"ok": False, "detail": "The database is away."}


def test_a_missing_migration_is_not_ready(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recognizer.runtime.pending", lambda connection: ["0002_more"])
    response = client.get("/health/ready")
    assert response.status_code == 503
    assert "0002_more" in response.json["checks"]["migrations"]["detail"]
    assert response.json["checks"]["database"]["ok"]


def test_the_index_that_an_interrupted_import_left_out_is_made(
    runtime: Runtime, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_keeper, "EVERY_SECONDS", 0.1)
    with closing(psycopg2.connect(postgres_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("DROP INDEX templates_embedding")
        with closing(Runtime(runtime.settings)):
            until = time.monotonic() + 30
            while is_missing(cursor):
                assert time.monotonic() < until, "nobody makes it"
                time.sleep(0.05)
