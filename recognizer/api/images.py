"""More work on images: faces found, encoded, compared one to one, and recognised in many images at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue
from pydantic import Field, field_validator

from recognizer.api import observation, shapes, uploads
from recognizer.api.auth import (
    allowed_collection,
    check_key_again,
    only_collection,
    request_deadline,
    route,
    runtime,
)
from recognizer.api.uploads import Options, Upload
from recognizer.api.v1 import RecognizeOptions
from recognizer.batch import recognize_each
from recognizer.comparing import Comparison, Look
from recognizer.deadline import Deadline
from recognizer.errors import InvalidRequest, RecognizerError
from recognizer.faces import Analysis
from recognizer.service import Recognition

MAX_BATCH = 32
"""Images in one request; how many bytes they may have together, the setting `max_request_bytes` says."""


class DetectOptions(Options):
    min_face_pixels: int | None = Field(None, ge=20, le=10_000)
    include: frozenset[Literal["landmarks", "embedding", "timings"]] = frozenset()

    @field_validator("include", mode="before")
    @classmethod
    def _from_csv(cls, value: object) -> object:
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


class EmbedOptions(DetectOptions):
    face: Literal["all", "largest"] = "all"


class VerifyOptions(DetectOptions):
    person_id: str | None = Field(None, min_length=1, max_length=100)
    threshold: float | None = Field(None, gt=0, lt=2, allow_inf_nan=False)
    face: Literal["largest", "single"] = "largest"
    min_revision: int = Field(0, ge=0, lt=2**63)


def blueprint() -> Blueprint:
    """What can be asked of images. Two images are compared, and faces found, while the database is away."""
    images = Blueprint("images", __name__)
    route(images, "/detect", detect, methods=["POST"], scope="recognize", needs_database=False)
    route(images, "/embed", embed, methods=["POST"], scope="recognize", needs_database=False)
    route(images, "/verify", verify, methods=["POST"], scope="recognize", needs_database=False)
    route(images, "/recognize/batch", recognize_batch, methods=["POST"], scope="recognize")
    return images


# -- one image by itself --


def detect() -> ResponseReturnValue:
    """Find the faces of one image: where they are, their landmarks, and how good they are as evidence."""
    deadline = request_deadline()
    upload = uploads.read(request, max_images=1)
    options = uploads.options_as(DetectOptions, upload.options)
    analysis = _analysed(upload.images[0], options, deadline)
    include = options.include | {"landmarks"}
    return {
        "request_id": g.request_id,
        "image": shapes.image(analysis),
        "faces": [shapes.found_face(face, include) for face in analysis.faces],
        **shapes.timings(analysis.timings_ms, include),
    }


def embed() -> ResponseReturnValue:
    """The embeddings of one image's faces; those that come with the same space can be compared with each other."""
    deadline = request_deadline()
    upload = uploads.read(request, max_images=1)
    options = uploads.options_as(EmbedOptions, upload.options)
    analysis = _analysed(upload.images[0], options, deadline)
    include = options.include | {"embedding"}
    faces = analysis.faces[:1] if options.face == "largest" else analysis.faces
    return {
        "request_id": g.request_id,
        "model_id": runtime().engine.model_id,
        "image": shapes.image(analysis),
        "faces": [shapes.found_face(face, include) for face in faces],
        **shapes.timings(analysis.timings_ms, include),
    }


def _analysed(image: bytes, options: DetectOptions, deadline: Deadline) -> Analysis:
    analysis = runtime().engine.analyse(image, deadline, min_face_pixels=options.min_face_pixels)
    observation.note_work(len(analysis.faces), analysis.timings_ms, runtime().metrics)
    return analysis


# -- one to one --


def verify() -> ResponseReturnValue:
    """Whether two images show the same person, or one image a person who is enrolled."""
    deadline = request_deadline()
    upload = uploads.read(request, max_images=1, with_other=True)
    options = uploads.options_as(VerifyOptions, upload.options)
    if (upload.other_image is None) == (options.person_id is None):
        raise InvalidRequest("Say whom to compare `image` with: send either `other_image` or `person_id`.")
    if options.person_id is None:
        found = _compared_images(upload, options, deadline)
    else:
        check_key_again("recognize")  # the person's faces are in the database
        found = _compared_with_person(upload.images[0], options.person_id, options, deadline)
    observation.note_work(len(found.faces), found.timings_ms, runtime().metrics, same=found.same)
    return {"request_id": g.request_id, **_comparison(found, options)}


def _compared_images(upload: Upload, options: VerifyOptions, deadline: Deadline) -> Comparison:
    assert upload.other_image is not None
    return runtime().comparer.images(
        upload.images[0],
        upload.other_image,
        deadline,
        threshold=options.threshold,
        single_face=options.face == "single",
        min_face_pixels=options.min_face_pixels,
    )


def _compared_with_person(image: bytes, person_id: str, options: VerifyOptions, deadline: Deadline) -> Comparison:
    return runtime().comparer.with_person(
        image,
        person_id,
        deadline,
        collection=only_collection(),
        threshold=options.threshold,
        single_face=options.face == "single",
        min_face_pixels=options.min_face_pixels,
        min_revision=options.min_revision,
    )


def _comparison(found: Comparison, options: VerifyOptions) -> dict[str, Any]:
    candidate = found.candidate
    body: dict[str, Any] = {
        "same": found.same,
        "distance": round(candidate.neighbour.distance, 6),
        "threshold": round(candidate.threshold, 6),
        "confidence": round(candidate.confidence, 6),
        **_look("image", "face", found.look, options),
    }
    if found.other:
        body |= _look("other_image", "other_face", found.other, options)
    if found.person:
        body |= {
            "collection": found.person.collection.name,
            "gallery_revision": found.person.collection.revision,
            "person": {"id": found.person.person.id, "name": found.person.person.name},
            "matched_face_id": candidate.neighbour.face_id,
        }
    return body | shapes.timings(found.timings_ms, options.include)


def _look(image: str, face: str, look: Look, options: VerifyOptions) -> dict[str, Any]:
    return {image: shapes.image(look.analysis), face: shapes.found_face(look.face, options.include)}


# -- many images --


def recognize_batch() -> ResponseReturnValue:
    """Recognise the faces of up to 32 images, one after the other; each gets its result, or an error of its own."""
    deadline = request_deadline()
    upload = uploads.read(request, max_images=MAX_BATCH, empty_ones=True)
    options = uploads.options_as(RecognizeOptions, upload.options)
    collection = allowed_collection(options.collection)

    def recognize(image: bytes) -> Recognition:
        return runtime().service.recognize(
            image,
            collection,
            deadline,
            threshold=options.threshold,
            top_k=options.top_k,
            min_face_pixels=options.min_face_pixels,
            min_revision=options.min_revision,
            unique=options.unique,
        )

    outcomes = recognize_each(upload.images, recognize, deadline)
    observation.note_batch(outcomes, runtime().metrics)
    return {"request_id": g.request_id, "results": _results(outcomes, options)}


def _results(outcomes: Sequence[Recognition | RecognizerError], options: RecognizeOptions) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, RecognizerError):
            results.append({"index": index, "error": {"code": outcome.code, "detail": str(outcome)}})
        else:
            results.append({"index": index, "result": shapes.recognition(outcome, options.top_k, options.include)})
    return results
