"""The native routes: recognise, enrol, people."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue
from pydantic import Field, ValidationInfo, field_validator, model_validator

from recognizer.api import observation, shapes, uploads
from recognizer.api.auth import allowed_collection, only_collection, request_deadline, route, runtime
from recognizer.api.uploads import Options
from recognizer.errors import EnrolmentRefused, InvalidRequest
from recognizer.gallery.names import MAX_NAME_LENGTH, tidy
from recognizer.service import EnrolRequest

MAX_METADATA_BYTES = 16_384

SANE_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")


class RecognizeOptions(Options):
    collection: str = Field("default", min_length=1, max_length=100)
    threshold: float | None = Field(None, gt=0, lt=2, allow_inf_nan=False)
    top_k: int = Field(1, ge=1, le=100)
    min_face_pixels: int | None = Field(None, ge=20, le=10_000)
    min_revision: int = Field(0, ge=0, lt=2**63)
    unique: bool = False
    include: frozenset[Literal["landmarks", "embedding", "timings"]] = frozenset()

    @field_validator("include", mode="before")
    @classmethod
    def _from_csv(cls, value: object) -> object:
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


class EnrolOptions(Options):
    name: str | None = None
    person_id: str | None = Field(None, min_length=1, max_length=100)
    collection: str = Field("default", min_length=1, max_length=100)
    external_id: str | None = None
    metadata: dict[str, Any] | None = None
    face: Literal["single", "largest"] = "single"
    force: bool = False

    @field_validator("name", "external_id")
    @classmethod
    def _as_kept(cls, value: str | None, field: ValidationInfo) -> str | None:
        return None if value is None else tidy(value, field.field_name or "name")

    @field_validator("metadata", mode="before")
    @classmethod
    def _metadata_object(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("must be a JSON object") from None
        try:
            text = json.dumps(value, allow_nan=False)
        except ValueError:
            raise ValueError("must not hold NaN or infinity, which are no JSON") from None
        if "\\u0000" in text:
            raise ValueError("must not hold the character NUL")
        if len(text) > MAX_METADATA_BYTES:
            raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes of JSON")
        return value

    @model_validator(mode="after")
    def _somebody(self) -> EnrolOptions:
        if (self.name is None) == (self.person_id is None):
            raise ValueError("Say who this is: give either `name` (1-200 characters) or `person_id`")
        return self


class PeopleOptions(Options):
    collection: str = Field("default", min_length=1, max_length=100)
    query: str = Field("", max_length=MAX_NAME_LENGTH)
    limit: int = Field(50, ge=1, le=1000)
    cursor: str | None = Field(None, max_length=1000)


def images() -> Blueprint:
    """Work on images; served with and without the prefix /v1."""
    blueprint = Blueprint("images", __name__)
    route(blueprint, "/recognize", recognize, methods=["POST"], scope="recognize")
    route(blueprint, "/enroll", enroll, methods=["POST"], scope="enroll")
    return blueprint


def people() -> Blueprint:
    """The people of a collection."""
    blueprint = Blueprint("people", __name__)
    route(blueprint, "/people", list_people, methods=["GET"], scope="enroll")
    route(blueprint, "/people/<person_id>", get_person, methods=["GET"], scope="enroll")
    route(blueprint, "/people/<person_id>", delete_person, methods=["DELETE"], scope="enroll")
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
        idempotency_key=_idempotency_key(),
    )
    try:
        enrolment = runtime().service.enrol(wanted, deadline)
    except EnrolmentRefused as error:
        observation.note_refusals(error.refused, runtime().metrics)
        raise
    observation.note_enrolment(enrolment, runtime().metrics)
    return {"request_id": g.request_id, **shapes.enrolment(enrolment)}, 201


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not SANE_IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest("The Idempotency-Key must be 1 to 200 printable characters without spaces.")
    return key


def list_people() -> ResponseReturnValue:
    """A page of the collection's people, by name."""
    options = uploads.options_as(PeopleOptions, uploads.single_values(request.args))
    found, next_cursor = runtime().gallery.people(
        allowed_collection(options.collection),
        query=options.query,
        limit=options.limit,
        cursor=options.cursor,
        deadline=request_deadline(),
    )
    return {"people": [shapes.person(person) for person in found], "next_cursor": next_cursor}


def get_person(person_id: str) -> ResponseReturnValue:
    """One person with the faces that are stored."""
    person, faces = runtime().gallery.person(person_id, request_deadline(), collection=only_collection())
    return {**shapes.person(person), "faces": [shapes.stored_face(face) for face in faces]}


def delete_person(person_id: str) -> ResponseReturnValue:
    """Erase a person; the answer says what was deleted, counted after the fact."""
    erasure = runtime().gallery.delete_person(person_id, request_deadline(), collection=only_collection())
    return {"request_id": g.request_id, **shapes.erasure(erasure)}
