"""The words everybody uses: faces, people and what was decided about them. Frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An upright image: (H, W, 3) uint8, RGB, C-contiguous."""

Embedding = NDArray[np.float32]
"""One face: (128,) float32, as dlib's ResNet gives it (not normalised); compared by L2 distance."""

Decision = Literal["match", "ambiguous", "unknown", "low_quality"]


def space_of(model_id: str) -> str:
    """The space of a model's embeddings: all of its id but the last part, which says how many crops were averaged.

    Embeddings of one space are comparable with each other, those of different spaces never.
    """
    return model_id.rsplit("/", 1)[0]


@dataclass(frozen=True, slots=True)
class Box:
    """A face's rectangle in pixels of the upright image, as it was sent; its landmarks were found in it.

    It may reach beyond the image's edge where a face is cut off.
    """

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def area(self) -> int:
        return self.width * self.height

    def overlap(self, other: Box) -> float:
        """Intersection over union, from 0 (apart) to 1 (equal)."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(0, width) * max(0, height)
        return shared / max(1, self.area + other.area - shared)


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a face is as evidence: `score` from 0 (useless) to 1, `issues` as vision names them."""

    score: float
    issues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Face:
    """A face found in an image.

    `detection_score` is the detector's own figure: 0 at its decision point, larger is surer.
    `landmarks` are dlib's five points as (x, y) pixels of the upright image: the person's left eye, outer
    and inner corner, the right eye, outer and inner corner, and the base of the nose. `chip` is the upright face that
    the embedding was made of, 150 x 150 pixels, as a PNG file; there only where it was asked for.
    """

    box: Box
    detection_score: float
    quality: Quality
    landmarks: tuple[tuple[int, int], ...]
    embedding: Embedding = field(repr=False, compare=False)
    chip: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What an engine found in one image: its upright size, its format and the faces, largest first."""

    width: int
    height: int
    format: str
    faces: tuple[Face, ...]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A person near a probe, and what a decision needs to know of both (`evidence` has the terms).

    `distance` is the L2 distance to the nearest of the person's faces, `face_id` that face and `face_radius` its
    distance from the centre of all faces. `likeness` is the cosine to the person's template, `cohort` the template's
    likeness to its own cohort (None: not known yet), `rejected_distance` the distance to the nearest face that was said
    not to be this person's.
    """

    person_id: str
    name: str
    face_id: str
    distance: float
    likeness: float
    face_radius: float
    cohort: float | None = None
    rejected_distance: float | None = None


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The nearest people of each probe, nearest first, and the gallery they were found in.

    `people` is how many can be compared with the probes, `shift` by how much they are more alike than those that the
    constants of `evidence` come from.
    """

    revision: int
    people: int
    shift: float
    of_probes: tuple[tuple[Neighbour, ...], ...]


@dataclass(frozen=True, slots=True)
class StoredFace:
    """A face in the gallery, without its embedding; `photo` says whether its photo is kept."""

    id: str
    box: Box
    quality: Quality
    model_id: str
    created_at: datetime
    photo: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """A face that was said not to be a person's, without its embedding; `created_by` is an API key's id or "local"."""

    id: str
    model_id: str
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class Person:
    """A person in a collection; `faces` is how many faces are stored."""

    id: str
    collection: str
    name: str
    external_id: str | None
    metadata: Mapping[str, Any]
    faces: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PersonRef:
    """Which person is meant."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Remark:
    """What is said of photo number `index` of an enrolment: why it was refused, or what somebody should look at.

    `person` is the other person whom it is about, if it is about one. The detail never names anybody: it is kept with
    the answer, and the other person may be erased meanwhile. `issues` are those of a face that is of low quality.
    """

    index: int
    code: str
    detail: str
    person: PersonRef | None = None
    issues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptPhoto:
    """What a collection that keeps photos stores of a face: the image file as it was sent, and the chip as PNG."""

    media_type: str
    photo: bytes = field(repr=False)
    chip: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewFace:
    """A face to be stored: what was seen, by which model, in which photo (SHA-256 of its bytes).

    `kept` is what is stored of the photo itself, encrypted, where the collection keeps photos.
    """

    index: int
    box: Box
    quality: Quality
    embedding: Embedding = field(repr=False, compare=False)
    model_id: str
    photo_sha256: bytes
    kept: KeptPhoto | None = field(default=None, repr=False, compare=False)
