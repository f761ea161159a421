"""What the routes of `images` answer: the types, see `answers`, and what builds them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from recognizer.api import answers, shapes
from recognizer.api.answers import Answered, FoundFace, ImageFacts, PersonRef, Score, Timed
from recognizer.comparing import Comparison
from recognizer.errors import RecognizerError
from recognizer.service import Recognition


class Detection(Timed):
    """The faces of an image."""

    image: ImageFacts
    faces: Annotated[list[FoundFace], Field(description="The largest first; empty where there is no face.")]


class DetectionAnswer(Answered, Detection):
    """The answer of /v1/detect: the faces have `landmarks`."""


class EmbeddingAnswer(Answered, Detection):
    """The answer of /v1/embed: the faces have an `embedding`."""

    model_id: Annotated[str, Field(description="Embeddings whose ids are equal up to the last slash can be compared.")]


class Verification(Timed):
    """Whether a face is that of another image, or of a person."""

    same: Annotated[bool, Field(description="Whether both are the same person: the confidence is at least 0.5.")]
    distance: Annotated[float, Field(description="To the other face, or to the nearest of the person's.")]
    threshold: Annotated[float, Field(description="The distance at which the confidence would be 0.5.")]
    confidence: Score
    image: ImageFacts
    face: FoundFace
    other_image: NotRequired[ImageFacts]
    other_face: NotRequired[FoundFace]
    person: NotRequired[PersonRef]
    matched_face_id: NotRequired[Annotated[str, Field(description="The nearest of the person's faces.")]]
    collection: NotRequired[str]
    gallery_revision: NotRequired[int]


class VerificationAnswer(Answered, Verification):
    """The answer of /v1/verify; what is said of `other_image`, or of the person, is there if it was compared with."""


class ImageError(TypedDict):
    """Why there is no result for an image."""

    code: Annotated[str, Field(description="As of a problem.")]
    detail: Annotated[str, Field(description="A sentence that says what to do.")]


class BatchResult(TypedDict):
    """What came of one image of a batch: either `result` or `error`."""

    index: Annotated[int, Field(description="Which image of the request, counted from 0.")]
    result: NotRequired[answers.Recognition]
    error: NotRequired[ImageError]


class BatchAnswer(Answered):
    """The answer of /v1/recognize/batch."""

    results: Annotated[list[BatchResult], Field(description="One for each image, in order.")]


def verification(found: Comparison, include: Collection[str]) -> Verification:
    """The answer of /v1/verify, without its request id."""
    candidate = found.candidate
    body: Verification = {
        "same": found.same,
        "distance": round(candidate.neighbour.distance, 6),
        "threshold": round(candidate.threshold, 6),
        "confidence": round(candidate.confidence, 6),
        "image": shapes.image(found.look.analysis),
        "face": shapes.found_face(found.look.face, include),
    }
    if "timings" in include:
        body["timings_ms"] = shapes.rounded(found.timings_ms)
    if found.other:
        body["other_image"] = shapes.image(found.other.analysis)
        body["other_face"] = shapes.found_face(found.other.face, include)
    if found.person:
        body["person"] = {"id": found.person.person.id, "name": found.person.person.name}
        body["matched_face_id"] = candidate.neighbour.face_id
        body["collection"] = found.person.collection.name
        body["gallery_revision"] = found.person.collection.revision
    return body


def batch_results(
    outcomes: Sequence[Recognition | RecognizerError], top_k: int, include: Collection[str]
) -> list[BatchResult]:
    """What came of the images of a batch, in order."""
    results: list[BatchResult] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, RecognizerError):
            results.append({"index": index, "error": {"code": outcome.code, "detail": str(outcome)}})
        else:
            results.append({"index": index, "result": shapes.recognition(outcome, top_k, include)})
    return results
