"""What the routes answer, as types: `shapes` builds them under mypy's eyes, the document shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic reads that of `typing` from Python 3.12 on

from recognizer.faces import Decision

Score = Annotated[float, Field(ge=0, le=1)]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


@dataclass(frozen=True, slots=True)
class Media:
    """An answer that is not JSON: its content type, and what it is."""

    type: str
    description: str


class Answered(TypedDict):
    """What every answer to a change or to work on images has."""

    request_id: Annotated[str, Field(description="As in the header X-Request-ID and in the service's log.")]


class Revised(TypedDict):
    """What an answer from a gallery has."""

    gallery_revision: Annotated[int, Field(description="Give it as `min_revision` to see this state or a later one.")]


class Problem(TypedDict):
    """An error: RFC 9457 problem details with a code word."""

    type: str
    title: str
    status: int
    code: Annotated[str, Field(description="Stable: programs decide by it.")]
    detail: Annotated[str, Field(description="A sentence that says what to do.")]
    request_id: str
    refused: NotRequired[Annotated[list[Remark], Field(description="Why none could be used, image by image.")]]


class Document(TypedDict):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


class PersonRef(TypedDict):
    """Which person is meant."""

    id: str
    name: str


class Remark(TypedDict):
    """What is said of one image of a request."""

    index: Annotated[int, Field(description="Which image of the request, counted from 0.")]
    code: str
    detail: str
    person: NotRequired[Annotated[PersonRef, Field(description="The other person whom it is about.")]]
    issues: NotRequired[Annotated[list[str], Field(description="What is wrong with a face of low quality.")]]


class Box(TypedDict):
    """A rectangle in pixels of the upright image; it may reach beyond the edge."""

    left: int
    top: int
    right: int
    bottom: int


class Point(TypedDict):
    """A pixel of the upright image."""

    x: int
    y: int


class Quality(TypedDict):
    """How good a face is as evidence."""

    score: Score
    issues: list[str]


class ImageFacts(TypedDict):
    """The image, upright."""

    width: int
    height: int
    format: str


class Candidate(TypedDict):
    """Somebody whom a face may be."""

    person: PersonRef
    distance: float
    confidence: Score


class FoundFace(TypedDict):
    """One face of an image."""

    box: Box
    detection_score: Annotated[float, Field(description="The detector's own figure: 0 at its decision point.")]
    quality: Quality
    landmarks: NotRequired[Annotated[list[Point], Field(description="Five points, when included.")]]
    embedding: NotRequired[Annotated[list[float], Field(description="128 numbers, when included.")]]


class SeenFace(FoundFace):
    """One face of an image with its decision; what is said of the best candidate is null in an empty gallery."""

    decision: Decision
    person: Annotated[PersonRef | None, Field(description="Null unless the decision is `match`.")]
    distance: Annotated[float | None, Field(description="Of the best candidate's nearest stored face.")]
    threshold: Annotated[float | None, Field(description="The distance at which the confidence would be 0.5.")]
    confidence: Annotated[float | None, Field(ge=0, le=1, description="0.5 is the decision point.")]
    margin: Annotated[float | None, Field(description="The confidence minus the second person's.")]
    matched_face_id: str | None
    candidates: Annotated[list[Candidate], Field(description="`top_k` people, the surest first.")]
    reasons: list[str]


class Timed(TypedDict):
    """What an answer about images may have."""

    timings_ms: NotRequired[Annotated[dict[str, float], Field(description="Per stage, when included.")]]


class Recognition(Revised, Timed):
    """Who is in an image."""

    collection: str
    image: ImageFacts
    faces: Annotated[list[SeenFace], Field(description="The largest first; empty where there is no face.")]


class RecognitionAnswer(Answered, Recognition):
    """The answer of /recognize."""


class CountedPerson(PersonRef):
    """A person and how many of their faces are stored."""

    faces: int


class EnrolledFace(TypedDict):
    """A face that is remembered from now on."""

    index: Annotated[int, Field(description="Which photo of the request, counted from 0.")]
    face_id: str
    box: Box
    quality: Quality


class Enrolment(Revised):
    """What came of an enrolment, photo by photo."""

    person: CountedPerson
    enrolled: list[EnrolledFace]
    refused: list[Remark]
    warnings: list[Remark]


class EnrolmentAnswer(Answered, Enrolment):
    """The answer of /enroll."""
