"""The native routes: recognise and enrol."""

from __future__ import annotations

import re
from typing import Literal

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue
from pydantic import Field, field_validator, model_validator

from recognizer.api import observation, shapes, uploads
from recognizer.api.auth import allowed_collection, request_deadline, route, runtime
from recognizer.api.people import PersonFields
from recognizer.api.uploads import Options
from recognizer.deadline import Deadline
from recognizer.errors import EnrolmentRefused, InvalidRequest
from recognizer.service import EnrolRequest

SANE_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")


class IdentifyOptions(Options):
    """What can be said about who is compared with whom."""

    collection: str = Field("default", min_length=1, max_length=100)
    threshold: float | None = Field(None, gt=0, lt=2, allow_inf_nan=False)
    top_k: int = Field(1, ge=1, le=100)
    min_face_pixels: int | None = Field(None, ge=20, le=10_000)
    min_revision: int = Field(0, ge=0, lt=2**63)
    include: frozenset[Literal["landmarks", "embedding", "timings"]] = frozenset()

    @field_validator("include", mode="before")
    @classmethod
    def _from_csv(cls, value: object) -> object:
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


class RecognizeOptions(IdentifyOptions):
    unique: bool = False


class EnrolOptions(PersonFields):
    person_id: str | None = Field(None, min_length=1, max_length=100)
    collection: str = Field("default", min_length=1, max_length=100)
    face: Literal["single", "largest"] = "single"
    force: bool = False

    @model_validator(mode="after")
    def _somebody(self) -> EnrolOptions:
        if (self.name is None) == (self.person_id is None):
            raise ValueError("Say who this is: give either `name` (1-200 characters) or `person_id`")
        return self


def images() -> Blueprint:
    """Work on images; served with and without the prefix /v1."""
    blueprint = Blueprint("images", __name__)
    route(blueprint, "/recognize", recognize, methods=["POST"], scope="recognize")
    route(blueprint, "/enroll", enroll, methods=["POST"], scope="enroll")
    return blueprint


def recognize() -> ResponseReturnValue:
    """Find the faces of one image and say who they are."""
    deadline = request_deadline()
    upload = uploads.read(request, max_images=1)
    options = uploads.options_as(RecognizeOptions, upload.options)
    recognition = runtime().service.recognize(
        upload.images[0],
        allowed_collection(options.collection),
        deadline,
        threshold=options.threshold,
        top_k=options.top_k,
        min_face_pixels=options.min_face_pixels,
        min_revision=options.min_revision,
        unique=options.unique,
    )
    observation.note_recognition(recognition, runtime().metrics)
    return {"request_id": g.request_id, **shapes.recognition(recognition, options.top_k, options.include)}


def enroll() -> ResponseReturnValue:
    """Remember the faces of one person."""
    deadline = request_deadline()
    upload = uploads.read(request, max_images=runtime().settings.max_images_per_enrolment)
    options = uploads.options_as(EnrolOptions, upload.options)
    wanted = EnrolRequest(
        collection=allowed_collection(options.collection),
        photos=upload.images,
        name=options.name,
        person_id=options.person_id,
        external_id=options.external_id,
        metadata=options.metadata,
        largest_face=options.face == "largest",
        force=options.force,
        idempotency_key=idempotency_key(),
    )
    return remember(wanted, deadline)


def remember(wanted: EnrolRequest, deadline: Deadline) -> ResponseReturnValue:
    """Enrol, and note what came of it."""
    try:
        enrolment = runtime().service.enrol(wanted, deadline)
    except EnrolmentRefused as error:
        observation.note_refusals(error.refused, runtime().metrics)
        raise
    observation.note_enrolment(enrolment, runtime().metrics)
    return {"request_id": g.request_id, **shapes.enrolment(enrolment)}, 201


def idempotency_key() -> str | None:
    """The Idempotency-Key that the request came with.

    Raises:
        InvalidRequest
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not SANE_IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest("The Idempotency-Key must be 1 to 200 printable characters without spaces.")
    return key
