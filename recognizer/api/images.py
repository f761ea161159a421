"""More work on images: faces found, encoded, compared one to one, and recognised in many images at once."""

from __future__ import annotations

from typing import Annotated, Literal

from flask import Blueprint, g
from pydantic import Field

from recognizer.api import observation, shapes
from recognizer.api.auth import (
    allowed_collection,
    check_key_again,
    only_collection,
    request_deadline,
    route,
    runtime,
)
from recognizer.api.image_answers import (
    BatchAnswer,
    DetectionAnswer,
    EmbeddingAnswer,
    VerificationAnswer,
    batch_results,
    verification,
)
from recognizer.api.operations import SEALED
from recognizer.api.takes import Images
from recognizer.api.uploads import Options, Words
from recognizer.api.v1 import RecognizeOptions
from recognizer.batch import recognize_each
from recognizer.comparing import Comparison
from recognizer.errors import CollectionNotFound, Conflict, InvalidRequest, MultipleFaces, NoFace, PersonNotFound
from recognizer.faces import Analysis
from recognizer.service import Recognition

MAX_BATCH = 32
"""Images in one request; how many bytes they may have together, the setting `max_request_bytes` says."""


class DetectOptions(Options):
    min_face_pixels: int | None = Field(None, ge=20, le=10_000)
    include: Annotated[frozenset[Literal["landmarks", "embedding", "timings"]], Words()] = frozenset()


class EmbedOptions(DetectOptions):
    face: Literal["all", "largest"] = "all"


class VerifyOptions(DetectOptions):
    person_id: str | None = Field(None, min_length=1, max_length=100)
    threshold: float | None = Field(None, gt=0, lt=2, allow_inf_nan=False)
    face: Literal["largest", "single"] = "largest"
    min_revision: int = Field(0, ge=0, lt=2**63)


class BatchOptions(RecognizeOptions):
    """As of /recognize, for all images."""


def blueprint() -> Blueprint:
    """What can be asked of images. Two images are compared, and faces found, while the database is away."""
    images = Blueprint("image_work", __name__)
    route(
        images,
        "/detect",
        detect,
        methods=["POST"],
        scope="recognize",
        takes=Images(DetectOptions),
        answers={200: DetectionAnswer},
        needs_database=False,
    )
    route(
        images,
        "/embed",
        embed,
        methods=["POST"],
        scope="recognize",
        takes=Images(EmbedOptions),
        answers={200: EmbeddingAnswer},
        needs_database=False,
    )
    route(
        images,
        "/verify",
        verify,
        methods=["POST"],
        scope="recognize",
        takes=Images(VerifyOptions, with_other=True),
        answers={200: VerificationAnswer},
        errors=(NoFace, MultipleFaces, PersonNotFound, Conflict, *SEALED),
        needs_database=False,
    )
    route(
        images,
        "/recognize/batch",
        recognize_batch,
        methods=["POST"],
        scope="recognize",
        takes=Images(BatchOptions, at_most=MAX_BATCH, empty_ones=True),
        answers={200: BatchAnswer},
        errors=(CollectionNotFound, *SEALED),
    )
    return images


# -- one image by itself --


def detect(images: tuple[bytes, ...], options: DetectOptions) -> DetectionAnswer:
    """Find the faces of one image: where they are, their landmarks, and how good they are as evidence.

    No face is not an error: `faces` is empty then. Nothing is compared with anybody, and no database is needed.
    """
    analysis = _analysed(images[0], options)
    include = options.include | {"landmarks"}
    return {
        "request_id": g.request_id,
        "image": shapes.image(analysis),
        "faces": [shapes.found_face(face, include) for face in analysis.faces],
        **shapes.timings(analysis.timings_ms, include),
    }


def embed(images: tuple[bytes, ...], options: EmbedOptions) -> EmbeddingAnswer:
    """Turn the faces of one image, or the largest one, into embeddings.

    No face is not an error: `faces` is empty then. No database is needed.
    """
    analysis = _analysed(images[0], options)
    include = options.include | {"embedding"}
    faces = analysis.faces[:1] if options.face == "largest" else analysis.faces
    return {
        "request_id": g.request_id,
        "model_id": runtime().engine.model_id,
        "image": shapes.image(analysis),
        "faces": [shapes.found_face(face, include) for face in faces],
        **shapes.timings(analysis.timings_ms, include),
    }


def _analysed(image: bytes, options: DetectOptions) -> Analysis:
    analysis = runtime().engine.analyse(image, request_deadline(), min_face_pixels=options.min_face_pixels)
    observation.note_work(len(analysis.faces), analysis.timings_ms, runtime().metrics)
    return analysis


# -- one to one --


def verify(images: tuple[bytes, ...], other_image: bytes | None, options: VerifyOptions) -> VerificationAnswer:
    """Say whether two images show the same person, or one image a person who is enrolled.

    `image` is compared with `other_image`, for which no database is needed, or with all photos of `person_id`. The
    largest face of an image counts; `face=single` refuses images with several.
    """
    if (other_image is None) == (options.person_id is None):
        raise InvalidRequest("Say whom to compare `image` with: send either `other_image` or `person_id`.")
    if other_image is not None:
        found = _compared_images(images[0], other_image, options)
    else:
        found = _compared_with_person(images[0], options.person_id or "", options)
    observation.note_work(len(found.faces), found.timings_ms, runtime().metrics, same=found.same)
    return {"request_id": g.request_id, **verification(found, options.include)}


def _compared_images(image: bytes, other_image: bytes, options: VerifyOptions) -> Comparison:
    return runtime().comparer.images(
        image,
        other_image,
        request_deadline(),
        threshold=options.threshold,
        single_face=options.face == "single",
        min_face_pixels=options.min_face_pixels,
    )


def _compared_with_person(image: bytes, person_id: str, options: VerifyOptions) -> Comparison:
    check_key_again("recognize")  # this takes the database after all
    return runtime().comparer.with_person(
        image,
        person_id,
        request_deadline(),
        collection=only_collection(),
        threshold=options.threshold,
        single_face=options.face == "single",
        min_face_pixels=options.min_face_pixels,
        min_revision=options.min_revision,
    )


# -- many images --


def recognize_batch(images: tuple[bytes, ...], options: BatchOptions) -> BatchAnswer:
    """Say who is in each of up to 32 images; each has its result, or an error of its own.

    They are worked through one by one. Those whose turn has not come when the request's time is over have the error
    `deadline_exceeded`. Where nothing could be done for any of them, the request as a whole is answered 503 or 504.
    """
    collection, deadline = allowed_collection(options.collection), request_deadline()

    def recognize(image: bytes) -> Recognition:
        return runtime().service.recognize(
            image,
            collection,
            deadline,
            options.terms,
        )

    outcomes = recognize_each(images, recognize, deadline)
    observation.note_batch(outcomes, runtime().metrics)
    return {"request_id": g.request_id, "results": batch_results(outcomes, options.top_k, options.include)}
