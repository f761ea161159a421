"""What to expect from the enrolled people of a collection: a report as JSON, its picture as PNG."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Blueprint, Response, g, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict
from werkzeug.exceptions import BadRequest

from recognizer.api import uploads
from recognizer.api.auth import allowed_collection, route, runtime
from recognizer.calibration import Report, calibrate
from recognizer.calibration.picture import draw
from recognizer.calibration.written import as_json
from recognizer.deadline import Deadline
from recognizer.errors import Busy, DeadlineExceeded, InvalidRequest

PNG = "image/png"


class CalibrateOptions(BaseModel):
    """Strict, as all options are."""

    model_config = ConfigDict(extra="forbid")

    picture: bool = False


def blueprint() -> Blueprint:
    """Calibration of a collection; it names people, so it is the administrator's."""
    routes = Blueprint("calibration", __name__)
    route(routes, "/collections/<name>/calibrate", calibrate_collection, methods=["POST"], scope="admin")
    return routes


def calibrate_collection(name: str) -> ResponseReturnValue:
    """Try every enrolled photo against the others and report; `Accept: image/png` gets the picture alone."""
    collection = allowed_collection(name)
    options = uploads.options_as(CalibrateOptions, _options())
    wants_png = request.accept_mimetypes.best_match(["application/json", PNG]) == PNG
    with _alone():
        report = _report(collection)
        picture = draw(report) if wants_png or options.picture else None
    if wants_png:
        return Response(picture, content_type=PNG)
    body = {"request_id": g.request_id, **as_json(report)}
    if picture is not None:
        body["picture"] = base64.b64encode(picture).decode()
    return body


def _options() -> dict[str, Any]:
    in_query = uploads.single_values(request.args)
    if request.mimetype == "application/json":
        try:
            body = request.get_json(cache=False)
        except (BadRequest, RecursionError):
            raise InvalidRequest("The body is not valid JSON.") from None
        if not isinstance(body, dict):
            raise InvalidRequest("The JSON is not understood: the body must be an object.")
        return {**in_query, **body}
    return {**in_query, **uploads.single_values(request.form)}


@contextmanager
def _alone() -> Iterator[None]:
    """One calibration at a time in a worker: it keeps a core busy, and matplotlib is not made for several threads."""
    if not runtime().calibrating.acquire(blocking=False):
        raise Busy("Another calibration is under way; try again in a moment.")
    try:
        yield
    finally:
        runtime().calibrating.release()


def _report(collection: str) -> Report:
    deadline = Deadline(runtime().settings.request_timeout_seconds)
    enrolled = runtime().gallery.embeddings(collection, runtime().engine.model_id, deadline)
    try:
        return calibrate(enrolled, runtime().settings.target_fpir, deadline, threshold=runtime().settings.threshold)
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            "The collection is too large to be calibrated within a request; run `recognizer calibrate` on the server."
        ) from error
