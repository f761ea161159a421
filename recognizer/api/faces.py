"""The routes under /v1/people/{id}/faces: more photos of a person, and photos taken back."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response, g

from recognizer.api import observation, shapes, v1
from recognizer.api.answers import EnrolmentAnswer, Media
from recognizer.api.auth import only_collection, request_deadline, route, runtime
from recognizer.api.operations import SEALED
from recognizer.api.records import FaceRemoval
from recognizer.api.takes import Images, Query
from recognizer.api.uploads import Options
from recognizer.api.versions import only_if
from recognizer.errors import (
    EncryptionKeyMissing,
    FaceNotFound,
    PersonNotFound,
    PhotoNotFound,
    PreconditionFailed,
    SealBroken,
)
from recognizer.service import EnrolRequest


class FacesOptions(Options):
    face: Literal["single", "largest"] = "single"
    force: bool = False


class ImageOptions(Options):
    kind: Literal["photo", "chip"] = "photo"


def blueprint() -> Blueprint:
    """A person's faces."""
    faces = Blueprint("faces", __name__)
    route(
        faces,
        "/people/<person_id>/faces",
        add_faces,
        methods=["POST"],
        scope="enroll",
        takes=Images(FacesOptions, at_most=None),
        answers={201: EnrolmentAnswer},
        errors=v1.ENROLMENT_ERRORS,
        headers=("Idempotency-Key",),
    )
    route(
        faces,
        "/people/<person_id>/faces/<face_id>",
        remove_face,
        methods=["DELETE"],
        scope="enroll",
        answers={200: FaceRemoval},
        errors=(PersonNotFound, FaceNotFound, PreconditionFailed, *SEALED),
    )
    route(
        faces,
        "/people/<person_id>/faces/<face_id>/image",
        get_image,
        methods=["GET"],
        scope="enroll",
        takes=Query(ImageOptions),
        answers={200: Media("image/*", "The photo as it was sent, or the chip as PNG.")},
        errors=(PersonNotFound, PhotoNotFound, EncryptionKeyMissing, SealBroken),
    )
    return faces


def add_faces(person_id: str, images: tuple[bytes, ...], options: FacesOptions) -> tuple[EnrolmentAnswer, int]:
    """Remember more faces of a person: /enroll with that person_id, in whatever collection the person is."""
    wanted = EnrolRequest(
        collection=only_collection(),
        photos=images,
        person_id=person_id,
        largest_face=options.face == "largest",
        force=options.force,
        idempotency_key=v1.idempotency_key(),
    )
    return v1.remember(wanted)


def get_image(person_id: str, face_id: str, options: ImageOptions) -> Response:
    """The photo that a face was enrolled by, where its collection keeps photos."""
    found = runtime().holdings.photo(person_id, face_id, options.kind, request_deadline(), collection=only_collection())
    return Response(found.data, content_type=found.media_type)


def remove_face(person_id: str, face_id: str) -> FaceRemoval:
    """Forget a face; without the last one the person stays, and is not recognised."""
    left, revision = runtime().gallery.remove_face(
        person_id, face_id, request_deadline(), collection=only_collection(), only_if=only_if()
    )
    observation.note(gallery_revision=revision)
    return {
        "request_id": g.request_id,
        "face_id": face_id,
        "person": shapes.person(left.person),
        "gallery_revision": revision,
    }
