"""What leaves a collection and comes into one: the lines of an export. docs/moving.md describes them one by one.

These classes are the format: their members are written as JSON by their names and checked when they are read. Unknown
members are passed over, so that a later version may add some.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationInfo, field_validator

from recognizer.errors import InvalidRequest
from recognizer.faces import Box, Quality
from recognizer.gallery.names import comparable, tidy
from recognizer.gallery.photos import Kind
from recognizer.moments import Moment

Vectors = NDArray[np.float32]
"""(n, 128) float32"""

SETTINGS = ("target_fpir", "threshold", "retention_days", "encrypt_embeddings")
"""What is set for a collection and goes along; not `keep_photos`: whether photos are kept is decided where they go."""

INT4 = 2**31
MAX_PHOTO_BYTES = 2**30
MAX_CHIP_BYTES = 2**20

Id = Annotated[UUID, PlainSerializer(str)]
Word = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[!-~]+$")]
"""Visible ASCII: a model's id, a key's."""
ImageType = Literal["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff"]
"""What may be kept, and so be shown in a browser."""


class Record(BaseModel):
    """What all lines have in common."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class CohortFigures(Record):
    """What `cohorts` has reckoned of a person in a space, when the space had changed `seen` times (-1: not yet)."""

    space: Word
    likeness: float | None
    rival: float | None
    seen: int = Field(ge=-1, lt=2**62)


class PersonRecord(Record):
    """A person without faces."""

    id: Id
    name: str
    external_id: str | None = None
    metadata: dict[str, Any] = {}
    created_at: Moment
    cohorts: tuple[CohortFigures, ...] = ()

    @field_validator("name", "external_id")
    @classmethod
    def _as_kept(cls, value: str | None) -> str | None:
        try:
            return None if value is None else tidy(value)
        except InvalidRequest as error:
            raise ValueError(str(error)) from None

    @field_validator("metadata")
    @classmethod
    def _storable(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
            text.encode()
        except (ValueError, RecursionError):
            raise ValueError("must hold plain text, numbers, lists and objects only") from None
        if "\\u0000" in text:
            raise ValueError("must not hold the character NUL")
        return value

    @property
    def name_key(self) -> str:
        """The name as it is compared."""
        return comparable(self.name)


def _checked_box(box: Box) -> Box:
    edges = (box.left, box.top, box.right, box.bottom)
    if not (box.left < box.right and box.top < box.bottom and all(-INT4 <= edge < INT4 for edge in edges)):
        raise ValueError("must have left < right and top < bottom, in pixels")
    return box


def _checked_quality(quality: Quality) -> Quality:
    if not 0 <= quality.score <= 1 or not all(issue.isascii() and issue.isprintable() for issue in quality.issues):
        raise ValueError("must have a score from 0 to 1 and words as issues")
    return quality


class VectorRecord(Record):
    """Something of a person that an embedding goes with: the row of the same number in the array beside."""

    id: Id
    person_id: Id
    model_id: Word
    created_at: Moment


class FaceRecord(VectorRecord):
    """A face without its embedding."""

    box: Box
    quality: Quality
    photo_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    _box = field_validator("box")(_checked_box)
    _quality = field_validator("quality")(_checked_quality)


class RejectionRecord(VectorRecord):
    """A face that was said not to be the person's, without its embedding."""

    created_by: Word


class Member(Record):
    """A member of the ZIP."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PhotoRecord(Record):
    """What is kept of the photo of a face, without the two pictures: each of them is a member of its own."""

    face_id: Id
    media_type: ImageType
    photo: Member
    chip: Member

    @field_validator("photo", "chip")
    @classmethod
    def _bounded(cls, value: Member, about: ValidationInfo) -> Member:
        most = MAX_PHOTO_BYTES if about.field_name == "photo" else MAX_CHIP_BYTES
        if value.bytes > most:
            raise ValueError(f"must have at most {most:,} bytes")
        return value


class SpaceRecord(Record):
    """How much lies in a space, and what its decisions rest on besides people; see the table `spaces`."""

    name: Word
    people: int = Field(ge=0)
    faces: int = Field(ge=0)
    changes: int = Field(ge=0)
    shift: float


class CollectionRecord(Record):
    """A collection: what is set for it, and how much it holds."""

    name: str
    settings: dict[str, float | int | bool | None]
    revision: int = Field(ge=0, lt=2**62)
    people: int = Field(ge=0)
    faces: int = Field(ge=0)
    rejections: int = Field(ge=0)
    photos: int = Field(0, ge=0)
    """How many kept photos go along."""
    models: dict[Word, int]
    spaces: tuple[SpaceRecord, ...]
    constants: str
    """`evidence_constants()` of the program that has reckoned the cohorts' figures."""


@dataclass(frozen=True, slots=True)
class IncomingPhoto:
    """The photo of a face and its chip, which are read when they are needed: one photo may be as large as all else."""

    record: PhotoRecord
    read: Callable[[Kind], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A person with all that is held on them; `place` says where it was read, for whoever has to look it up."""

    place: str
    person: PersonRecord
    faces: tuple[FaceRecord, ...]
    embeddings: Vectors = field(repr=False, compare=False)
    """(n, 128), in the order of `faces`; n may be 0."""
    rejections: tuple[RejectionRecord, ...] = ()
    rejected: Vectors = field(default_factory=lambda: np.zeros((0, 128), np.float32), repr=False, compare=False)
    """(m, 128), in the order of `rejections`."""
    photos: Mapping[UUID, IncomingPhoto] = field(default_factory=dict)
    """By face, of those that come with one."""


def evidence_constants() -> str:
    """What tells the constants of `evidence` from those of another version of the program."""
    return hashlib.sha256((resources.files("recognizer") / "evidence.npz").read_bytes()).hexdigest()[:16]
