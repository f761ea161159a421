"""What to expect from the enrolled people of a collection: a report as JSON, its picture as PNG."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Blueprint, Response, g, request
from flask.typing import ResponseReturnValue

from recognizer.api.answers import Media
from recognizer.api.auth import allowed_collection, request_deadline, route, runtime
from recognizer.api.calibration_answer import Calibration
from recognizer.api.operations import SEALED
from recognizer.api.takes import Body
from recognizer.api.uploads import Options
from recognizer.calibration import Report, calibrate
from recognizer.calibration.picture import draw
from recognizer.calibration.written import as_json
from recognizer.deadline import Deadline
from recognizer.errors import Busy, CollectionNotFound, DeadlineExceeded

PNG = "image/png"


class CalibrateOptions(Options):
    picture: bool = False


def blueprint() -> Blueprint:
    """Calibration of a collection; it names people, so it is the administrator's."""
    routes = Blueprint("calibration", __name__)
    route(
        routes,
        "/collections/<name>/calibrate",
        calibrate_collection,
        methods=["POST"],
        scope="admin",
        takes=Body(CalibrateOptions, optional=True),
        answers={200: (Calibration, Media(PNG, "Its picture."))},
        errors=(CollectionNotFound, *SEALED),
    )
    return routes


def calibrate_collection(name: str, options: CalibrateOptions) -> ResponseReturnValue:
    """Try every enrolled photo against the others and report; `Accept: image/png` gets the picture alone."""
    collection = allowed_collection(name)
    wants_png = request.accept_mimetypes.best_match(["application/json", PNG]) == PNG
    deadline = request_deadline()
    with _alone():
        report = _report(collection, deadline)
        picture = draw(report) if wants_png or options.picture else None
    if wants_png:
        return Response(picture, content_type=PNG)
    body = {"request_id": g.request_id, **as_json(report)}
    if picture is not None:
        body["picture"] = base64.b64encode(picture).decode()
    return body


@contextmanager
def _alone() -> Iterator[None]:
    """One calibration at a time in a worker: it keeps a core busy, and matplotlib is not made for several threads."""
    if not runtime().calibrating.acquire(blocking=False):
        raise Busy("Another calibration is under way; try again in a moment.")
    try:
        yield
    finally:
        runtime().calibrating.release()


def _report(collection: str, deadline: Deadline) -> Report:
    enrolled = runtime().gallery.embeddings(collection, runtime().engine.model_id, deadline)
    try:
        return calibrate(enrolled, runtime().settings.target_fpir, deadline, threshold=runtime().settings.threshold)
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            "The collection is too large to be calibrated within a request; run `recognizer calibrate` on the server."
        ) from error
