"""For operators: does the process answer, can it do its work, and what has it done."""

from __future__ import annotations

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue
from prometheus_client import CONTENT_TYPE_LATEST

from recognizer.api.answers import Media
from recognizer.api.auth import route, runtime
from recognizer.api.records import Live, Readiness


def blueprint() -> Blueprint:
    """The routes for operators."""
    ops = Blueprint("ops", __name__)
    route(
        ops,
        "/health/live",
        live,
        methods=["GET"],
        scope="public",
        answers={200: Live},
    )
    route(
        ops,
        "/health/ready",
        ready,
        methods=["GET"],
        scope="public",
        answers={200: Readiness, 503: Readiness},
    )
    route(
        ops,
        "/metrics",
        metrics,
        methods=["GET"],
        scope="admin",
        answers={200: Media("text/plain", "Metrics.")},
    )
    return ops


def live() -> Live:
    """200 as long as the process answers at all."""
    return {"status": "live"}


def ready() -> tuple[Readiness, int]:
    """200 when database, migrations and models are there, otherwise 503 with the part that fails."""
    checks = runtime().health()
    is_ready = all(check["ok"] for check in checks.values())
    body: Readiness = {"status": "ready" if is_ready else "not_ready", "checks": checks}
    return body, 200 if is_ready else 503


def metrics() -> ResponseReturnValue:
    """All metrics, over all workers, in Prometheus's text format."""
    return Response(runtime().metrics.scrape(), content_type=CONTENT_TYPE_LATEST)
