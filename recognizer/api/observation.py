"""What is seen of each request: its id, one line in the log, its metrics. Views add facts with `note()`."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask, Response, g, request

from recognizer.api.stream import announce
from recognizer.errors import RecognizerError
from recognizer.faces import Remark
from recognizer.gallery.store import Enrolment
from recognizer.metrics import Metrics, Tally
from recognizer.service import Recognition

LOGGER = logging.getLogger(__name__)

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def register(app: Flask, metrics: Metrics, tally: Tally) -> None:
    """Observe every request of the app, those that end in an error included."""

    def begin() -> None:
        sent = request.headers.get("X-Request-ID", "")
        g.request_id = sent if SANE_REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        g.began = time.perf_counter()
        g.facts = {}

    def finish(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        seconds = time.perf_counter() - g.began
        route = request.url_rule.rule if request.url_rule else "none"
        code = g.get("error_code", "")
        metrics.count("recognizer_requests", route=route, status=str(response.status_code), code=code)
        metrics.observe("recognizer_request_seconds", seconds, route=route)
        is_probe = route.startswith("/health") or route == "/metrics"
        if not is_probe:
            tally.add(seconds, code)
        LOGGER.log(logging.DEBUG if is_probe else logging.INFO, "request", extra=_line(response, route, seconds, code))
        return response

    app.before_request(begin)
    app.after_request(finish)


def note(**facts: Any) -> None:
    """Add facts to the request's line in the log; never a name, an embedding or a secret."""
    g.facts.update(facts)


def note_recognition(
    recognition: Recognition, metrics: Metrics, route: str = "/recognize", image: int | None = 0
) -> None:
    """Note how long the stages took and what was decided, without saying about whom; only who listens is told that.

    Args:
        image: its number in the request; None: it is about several.
    """
    announce(recognition, image)
    decisions = Counter(seen.verdict.decision for seen in recognition.seen)
    for decision, number in decisions.items():
        metrics.count("recognizer_decisions", number, decision=decision)
    note_work(len(recognition.seen), recognition.timings_ms, metrics, route, decisions=dict(decisions))


def note_batch(outcomes: Sequence[Recognition | RecognizerError], metrics: Metrics) -> None:
    """Note the same of each image of a batch, in one line of the log."""
    recognitions = [outcome for outcome in outcomes if isinstance(outcome, Recognition)]
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Recognition):
            note_recognition(outcome, metrics, image=number)
    timings, decisions = Counter[str](), Counter[str]()
    for recognition in recognitions:
        timings.update(recognition.timings_ms)
        decisions.update(seen.verdict.decision for seen in recognition.seen)
    note(
        images=len(outcomes),
        errors=dict(Counter(outcome.code for outcome in outcomes if isinstance(outcome, RecognizerError))),
        faces=decisions.total(),
        decisions=dict(decisions),
        timings_ms=_rounded(timings),
    )


def note_work(faces: int, timings_ms: Mapping[str, float], metrics: Metrics, route: str = "", **facts: Any) -> None:
    """Note how many faces were found and how long the stages took; `route`: default: the request's."""
    for stage, milliseconds in timings_ms.items():
        metrics.observe("recognizer_stage_seconds", milliseconds / 1000, stage=stage)
    route = route or (request.url_rule.rule if request.url_rule else "none")
    metrics.count("recognizer_faces", faces, route=route)
    note(faces=faces, timings_ms=_rounded(timings_ms), **facts)


def _rounded(timings_ms: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(milliseconds, 1) for stage, milliseconds in timings_ms.items()}


def note_enrolment(enrolment: Enrolment, metrics: Metrics) -> None:
    """Note how many photos were stored and why others were refused, without saying of whom."""
    note_refusals(enrolment.refused, metrics)
    metrics.count("recognizer_faces", len(enrolment.enrolled), route="/enroll")
    note(enrolled=len(enrolment.enrolled), gallery_revision=enrolment.revision)


def note_refusals(refused: Sequence[Remark], metrics: Metrics) -> None:
    """Note why photos were not enrolled."""
    codes = Counter(refusal.code for refusal in refused)
    for code, number in codes.items():
        metrics.count("recognizer_refused_photos", number, code=code)
    note(refused=dict(codes))


def _line(response: Response, route: str, seconds: float, code: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "request_id": g.request_id,
        "method": request.method,
        "route": route,
        "status": response.status_code,
        "duration_ms": round(seconds * 1000, 1),
        "request_bytes": request.content_length,
        **g.facts,
    }
    if code:
        line["code"] = code
    if key := g.get("key"):
        line["key_id"] = key.id
    return line
