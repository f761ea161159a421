"""The native routes: recognise and enrol."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Literal

from flask import Blueprint, g, request
from pydantic import Field, model_validator

from recognizer.api import observation, shapes
from recognizer.api.answers import EnrolmentAnswer, RecognitionAnswer
from recognizer.api.auth import allowed_collection, request_deadline, route, runtime
from recognizer.api.operations import SEALED
from recognizer.api.people import PersonFields
from recognizer.api.takes import Images
from recognizer.api.uploads import Options, Words
from recognizer.errors import (
    CollectionNotFound,
    Conflict,
    EnrolmentRefused,
    InvalidRequest,
    PersonNotFound,
)
from recognizer.service import EnrolRequest, Terms

ENROLMENT_ERRORS = (PersonNotFound, CollectionNotFound, Conflict, EnrolmentRefused, *SEALED)

SANE_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")


class IdentifyOptions(Options):
    """What can be said about who is compared with whom."""

    collection: str = Field("default", min_length=1, max_length=100)
    threshold: float | None = Field(None, gt=0, lt=2, allow_inf_nan=False)
    top_k: int = Field(1, ge=1, le=100)
    min_face_pixels: int | None = Field(None, ge=20, le=10_000)
    min_revision: int = Field(0, ge=0, lt=2**63)
    include: Annotated[frozenset[Literal["landmarks", "embedding", "timings"]], Words()] = frozenset()

    @property
    def terms(self) -> Terms:
        """The same for the service."""
        return Terms(self.threshold, self.top_k, self.min_face_pixels, self.min_revision)


class RecognizeOptions(IdentifyOptions):
    unique: bool = False

    @property
    def terms(self) -> Terms:
        return replace(super().terms, unique=self.unique)


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
    route(
        blueprint,
        "/recognize",
        recognize,
        methods=["POST"],
        scope="recognize",
        takes=Images(RecognizeOptions),
        answers={200: RecognitionAnswer},
        errors=(CollectionNotFound, *SEALED),
    )
    route(
        blueprint,
        "/enroll",
        enroll,
        methods=["POST"],
        scope="enroll",
        takes=Images(EnrolOptions, at_most=None),
        answers={201: EnrolmentAnswer},
        errors=ENROLMENT_ERRORS,
        headers=("Idempotency-Key",),
    )
    return blueprint


def recognize(images: tuple[bytes, ...], options: RecognizeOptions) -> RecognitionAnswer:
    """Find the faces of one image and say who they are.

    No face is not an error: `faces` is empty then.
    """
    recognition = runtime().service.recognize(
        images[0],
        allowed_collection(options.collection),
        request_deadline(),
        options.terms,
    )
    observation.note_recognition(recognition, runtime().metrics)
    return {"request_id": g.request_id, **shapes.recognition(recognition, options.top_k, options.include)}


def enroll(images: tuple[bytes, ...], options: EnrolOptions) -> tuple[EnrolmentAnswer, int]:
    """Remember the faces of one person, who is made by the first photo.

    Each photo shows one face, or `face` is `largest`; a photo that cannot be used is refused alone, with its reason.
    """
    wanted = EnrolRequest(
        collection=allowed_collection(options.collection),
        photos=images,
        name=options.name,
        person_id=options.person_id,
        external_id=options.external_id,
        metadata=options.metadata,
        largest_face=options.face == "largest",
        force=options.force,
        idempotency_key=idempotency_key(),
    )
    return remember(wanted)


def remember(wanted: EnrolRequest) -> tuple[EnrolmentAnswer, int]:
    """Enrol, and note what came of it."""
    try:
        enrolment = runtime().service.enrol(wanted, request_deadline())
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
