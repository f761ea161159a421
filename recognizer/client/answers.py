"""What the service answers, as frozen dataclasses; `/docs` of the service explains every member.

Members that a later version of the service adds are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Decision = Literal["match", "ambiguous", "unknown", "low_quality"]


@dataclass(frozen=True, slots=True)
class PersonRef:
    """Which person is meant."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CountedPerson(PersonRef):
    """A person and how many of their faces are stored."""

    faces: int


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright image; it may reach beyond the edge."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True)
class Point:
    """A pixel of the upright image."""

    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a face is as evidence: from 0 (useless) to 1, and what is wrong with it."""

    score: float
    issues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image, upright."""

    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody whom a face may be."""

    person: PersonRef
    distance: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFace:
    """One face of an image; landmarks (five) and embedding (128 numbers) are there when they were included."""

    box: Box
    detection_score: float
    quality: Quality
    landmarks: tuple[Point, ...] | None = None
    embedding: tuple[float, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFace(FoundFace):
    """One face of an image with its decision; `person` is None unless that is `match`."""

    decision: Decision
    person: PersonRef | None
    distance: float | None
    threshold: float | None
    confidence: float | None
    margin: float | None
    matched_face_id: str | None
    candidates: tuple[Candidate, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recognition:
    """Who is in an image, the largest face first; no face is no error."""

    collection: str
    gallery_revision: int
    image: ImageFacts
    faces: tuple[SeenFace, ...]
    timings_ms: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """The faces of an image, the largest first, compared with nobody."""

    image: ImageFacts
    faces: tuple[FoundFace, ...]


@dataclass(frozen=True, slots=True)
class BatchError:
    """Why there is no result for an image of a batch."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one image of a batch: either `result` or `error`."""

    index: int
    result: Recognition | None = None
    error: BatchError | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One result for each image, in order."""

    results: tuple[BatchResult, ...]


@dataclass(frozen=True, slots=True)
class Remark:
    """What is said of image number `index` of a request; `person` is the other person whom it is about."""

    index: int
    code: str
    detail: str
    issues: tuple[str, ...] = ()
    person: PersonRef | None = None


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """A face that is remembered from now on, of photo number `index`."""

    index: int
    face_id: str
    box: Box
    quality: Quality


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What came of an enrolment, photo by photo."""

    person: CountedPerson
    gallery_revision: int
    enrolled: tuple[EnrolledFace, ...]
    refused: tuple[Remark, ...]
    warnings: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a face is that of another image, or of a person."""

    same: bool
    distance: float
    threshold: float
    confidence: float
    image: ImageFacts
    face: FoundFace
    other_image: ImageFacts | None = None
    other_face: FoundFace | None = None
    person: PersonRef | None = None
    matched_face_id: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A person in a listing; `faces` is a count."""

    id: str
    collection: str
    name: str
    external_id: str | None
    metadata: Mapping[str, Any]
    faces: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """A page of people."""

    people: tuple[Person, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class StoredFace:
    """A face in the gallery."""

    id: str
    box: Box
    quality: Quality
    model_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PersonDetails:
    """A person with the faces that are stored."""

    id: str
    collection: str
    name: str
    external_id: str | None
    metadata: Mapping[str, Any]
    faces: tuple[StoredFace, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Merger:
    """What came of merging two people, counted by table; `merged` is the id that is no more."""

    person: PersonDetails
    merged: str
    moved: Mapping[str, int]
    dropped: Mapping[str, int]
    gallery_revision: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of a deletion, counted by table after the fact; `left` is 0."""

    person_id: str
    deleted: Mapping[str, int]
    left: int
    gallery_revision: int


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection, what is set for it (None: as in the settings) and how much it holds."""

    name: str
    target_fpir: float | None
    threshold: float | None
    people: int
    faces: int
    gallery_revision: int
    created_at: datetime
    keep_photos: bool = False
    retention_days: int | None = None


@dataclass(frozen=True, slots=True)
class Collections:
    """The collections that the key may use, by name."""

    collections: tuple[Collection, ...]


@dataclass(frozen=True, slots=True)
class CollectionErasure:
    """The receipt of a collection's deletion, counted by table after the fact."""

    collection: str
    deleted: Mapping[str, int]
    left: int
    revoked_keys: int
    gallery_revision: int | None
