"""The routes under /v1/people/{id}/rejections: "this face is not that person's", which are there, and undoing one."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import numpy as np
from flask import Blueprint, g
from flask.typing import ResponseReturnValue
from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from recognizer.api import observation, shapes
from recognizer.api.auth import caller, only_collection, request_deadline, route, runtime
from recognizer.api.operations import SEALED
from recognizer.api.people import PersonOptions
from recognizer.api.records import NewRejection, RejectionList, RejectionUndone
from recognizer.api.takes import Images, Query
from recognizer.api.uploads import HOW_TO_SEND, Options
from recognizer.api.versions import tagged
from recognizer.errors import (
    CollectionNotFound,
    Conflict,
    ImageMissing,
    InvalidRequest,
    MultipleFaces,
    NoFace,
    PersonNotFound,
    PreconditionFailed,
    RejectionNotFound,
)
from recognizer.faces import Box
from recognizer.gallery.rejections import NO_EMBEDDING
from recognizer.service import RejectRequest

NAMES = ("left", "top", "right", "bottom")
CORNERS = re.compile(r"\s*,\s*".join([r"(-?[0-9]{1,6})"] * 4))
AS_MANY: JsonDict = {"minItems": 128, "maxItems": 128}
"""For the document; the gallery says all that an embedding must be."""

CORNERS_SCHEMA = {
    "anyOf": [
        {"type": "string", "description": "left,top,right,bottom", "pattern": "^-?[0-9]{1,6}(,-?[0-9]{1,6}){3}$"},
        {"type": "object", "required": NAMES, "properties": {name: {"type": "integer"} for name in NAMES}},
        {"type": "null"},
    ]
}


class RejectOptions(Options):
    embedding: list[Annotated[float, Field(strict=True)]] | None = Field(None, json_schema_extra=AS_MANY)
    box: Annotated[tuple[int, int, int, int] | None, WithJsonSchema(CORNERS_SCHEMA)] = None
    face: Literal["single", "largest"] | None = None

    @field_validator("embedding", mode="wrap")
    @classmethod
    def _numbers(cls, value: object, as_numbers: ValidatorFunctionWrapHandler) -> object:
        try:
            return as_numbers(value)
        except ValidationError:
            raise ValueError(NO_EMBEDDING.rstrip(".")) from None

    @field_validator("box", mode="before")
    @classmethod
    def _corners(cls, value: object) -> object:
        if value is None:
            return None
        if isinstance(value, dict) and value.keys() == set(NAMES):  # as /recognize gives it
            value = ",".join(str(value[name]) for name in NAMES)
        found = CORNERS.fullmatch(value.strip()) if isinstance(value, str) else None
        left, top, right, bottom = map(int, found.groups()) if found else (0, 0, 0, 0)
        if not (left < right and top < bottom):
            raise ValueError("should be left,top,right,bottom: the pixels that /recognize gives")
        return left, top, right, bottom

    @model_validator(mode="after")
    def _one_face(self) -> RejectOptions:
        if self.box is not None and self.face is not None:
            raise ValueError("Say which face is meant by `box` or by `face`, not by both")
        return self


def blueprint() -> Blueprint:
    """A person's rejections."""
    rejections = Blueprint("rejections", __name__)
    of_one = "/people/<person_id>/rejections"
    route(
        rejections,
        of_one,
        list_rejections,
        methods=["GET"],
        scope="enroll",
        takes=Query(PersonOptions),
        answers={200: RejectionList, 304: None},
        errors=(PersonNotFound, CollectionNotFound, PreconditionFailed),
    )
    route(
        rejections,
        of_one,
        reject,
        methods=["POST"],
        scope="enroll",
        takes=Images(RejectOptions, at_least=0),
        answers={201: NewRejection},
        errors=(PersonNotFound, Conflict, NoFace, MultipleFaces, *SEALED),
    )
    route(
        rejections,
        f"{of_one}/<rejection_id>",
        undo_rejection,
        methods=["DELETE"],
        scope="enroll",
        answers={200: RejectionUndone},
        errors=(PersonNotFound, RejectionNotFound),
    )
    return rejections


def list_rejections(person_id: str, options: PersonOptions) -> ResponseReturnValue:
    """The faces that were said not to be this person's, oldest first."""
    found = runtime().gallery.rejections(
        person_id, request_deadline(), collection=options.allowed, min_revision=options.min_revision
    )
    return tagged({"rejections": [shapes.rejection(each) for each in found]})


def reject(person_id: str, images: tuple[bytes, ...], options: RejectOptions) -> tuple[NewRejection, int]:
    """Remember that a face, in a photo or as an embedding, is not this person's."""
    _check_one_way(images, options)
    wanted = RejectRequest(
        person_id=person_id,
        by=caller(),
        collection=only_collection(),
        photo=images[0] if images else None,
        embedding=None if options.embedding is None else np.array(options.embedding),
        box=None if options.box is None else Box(*options.box),
        largest_face=options.face == "largest",
    )
    kept, revision = runtime().service.reject(wanted, request_deadline())
    observation.note(gallery_revision=revision)
    return {"request_id": g.request_id, "rejection": shapes.rejection(kept), "gallery_revision": revision}, 201


def undo_rejection(person_id: str, rejection_id: str) -> RejectionUndone:
    """Take a rejection back."""
    revision = runtime().gallery.undo_rejection(
        person_id, rejection_id, request_deadline(), collection=only_collection()
    )
    observation.note(gallery_revision=revision)
    return {"request_id": g.request_id, "rejection_id": rejection_id, "gallery_revision": revision}


def _check_one_way(images: tuple[bytes, ...], options: RejectOptions) -> None:
    if options.embedding is None:
        if not images:
            raise ImageMissing(f'The request has neither image nor "embedding" of a face. {HOW_TO_SEND}')
    elif images:
        raise InvalidRequest("Send the face as an image or as `embedding`, not as both.")
    elif options.box is not None or options.face is not None:
        raise InvalidRequest("`box` and `face` say which face of an image is meant; with `embedding` leave them out.")
