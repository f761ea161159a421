"""One face against one person: whether two images show the same person, or one image a person of the gallery.

It is recognition in a gallery of that one person: with `people=1` the score needed is one that only the share
`target_fpir` of pairs of different people reaches (the false match rate), and the cohort are the imaginary people of
`evidence` alone. So two images need no database, and whoever else is enrolled changes nothing.
docs/adr/0007-decisions.md has the measurements.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.decisions import Candidate, FixedThreshold, Rule, TargetRule, in_force, judged
from recognizer.errors import Conflict, MultipleFaces, NoFace, Unusable
from recognizer.faces import Analysis, Embedding, Face, Neighbour
from recognizer.gallery.store import Gallery, PersonFaces
from recognizer.vision.engine import Engine


@dataclass(frozen=True, slots=True)
class Look:
    """An image and the one face of it that is compared."""

    analysis: Analysis
    face: Face


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was decided about a face and another image's (`other`) or a person's (`person`)."""

    candidate: Candidate
    look: Look
    other: Look | None
    person: PersonFaces | None
    timings_ms: Mapping[str, float]

    @property
    def faces(self) -> tuple[Face, ...]:
        """All faces that were found, in both images."""
        return self.look.analysis.faces + (self.other.analysis.faces if self.other else ())

    @property
    def same(self) -> bool:
        """Whether both are the same person."""
        return self.candidate.score >= 0


class Comparer:
    """Compares one to one, over one engine and one gallery. Safe to use from many threads."""

    def __init__(self, engine: Engine, gallery: Gallery, settings: Settings) -> None:
        self._engine = engine
        self._gallery = gallery
        self._settings = settings

    def images(
        self,
        photo: bytes,
        other_photo: bytes,
        deadline: Deadline,
        *,
        threshold: float | None = None,
        single_face: bool = False,
        min_face_pixels: int | None = None,
    ) -> Comparison:
        """Compare the faces of two images (encoded); the database is not asked.

        Args:
            threshold: the L2 distance up to which they are the same; default: the settings'; where they have none,
                the rule follows from their target.
            single_face: refuse images with several faces; otherwise the largest is taken.

        Raises:
            Unusable: an image cannot be read, or does not show the face that is meant; the message says which image.
            Busy, DeadlineExceeded
        """
        began = time.perf_counter()
        look = self._look(photo, "image", deadline, single_face, min_face_pixels)
        deadline.check()
        other = self._look(other_photo, "other_image", deadline, single_face, min_face_pixels)
        candidate = compare(look.face.embedding, other.face.embedding[None], self._rule(threshold))
        return Comparison(candidate, look, other, None, _timings(began, look.analysis, other.analysis))

    def with_person(
        self,
        photo: bytes,
        person_id: str,
        deadline: Deadline,
        *,
        collection: str | None = None,
        threshold: float | None = None,
        single_face: bool = False,
        min_face_pixels: int | None = None,
        min_revision: int = 0,
    ) -> Comparison:
        """Compare the face of an image with all faces of a person; other arguments and errors as for `images`.

        Args:
            collection: when given, only if the person is in it.
            threshold: default: the collection's, else as for `images`.
            min_revision: refuse to answer from an older state of the gallery than this.

        Raises:
            PersonNotFound, GalleryBehind, DatabaseUnavailable
            Conflict: the person has no face that can be compared.
        """
        began = time.perf_counter()
        model_id = self._engine.model_id
        person = self._gallery.person_faces(
            person_id, model_id, deadline, collection=collection, min_revision=min_revision
        )
        if not len(person.embeddings):
            raise Conflict("This person has no face that can be compared with the image; enrol a photo of them first.")
        look = self._look(photo, "image", deadline, single_face, min_face_pixels)
        rule = self._rule(threshold, person.collection.threshold, person.collection.target_fpir)
        candidate = compare(look.face.embedding, person.embeddings, rule, person.rejected, person.face_ids)
        return Comparison(candidate, look, None, person, _timings(began, look.analysis))

    def _rule(self, threshold: float | None, own: float | None = None, own_target: float | None = None) -> Rule:
        """The rule in force: the request's threshold, else a collection's own, else the settings'."""
        usual, target = in_force(own, own_target, self._settings.threshold, self._settings.target_fpir)
        usual = usual if threshold is None else threshold
        return TargetRule(target, people=1, shift=0.0) if usual is None else FixedThreshold(usual)

    def _look(self, photo: bytes, which: str, deadline: Deadline, single: bool, min_face_pixels: int | None) -> Look:
        try:
            analysis = self._engine.analyse(photo, deadline, min_face_pixels=min_face_pixels)
        except Unusable as error:
            raise type(error)(f"`{which}`: {error}") from error
        if not analysis.faces:
            raise NoFace(f"`{which}` shows no face that can be found; use a sharper photo from the front.")
        if single and len(analysis.faces) > 1:
            raise MultipleFaces(
                f"`{which}` shows {len(analysis.faces)} faces; crop it to one, or leave out face=single."
            )
        return Look(analysis, analysis.faces[0])


def compare(
    probe: Embedding,
    embeddings: NDArray[np.float32],
    rule: Rule,
    rejected: NDArray[np.float32] | None = None,
    face_ids: Sequence[str] = (),
) -> Candidate:
    """Judge whether a face is that of the person whose faces the others are.

    Args:
        probe: (128,).
        embeddings: the person's faces, (n, 128); n is at least 1.
        rejected: faces that were said not to be that person's, (m, 128).
        face_ids: of the person's faces, in order.
    """
    distances = np.linalg.norm(embeddings - probe, axis=1)
    nearest = int(distances.argmin())
    template = evidence.template(embeddings)
    neighbour = Neighbour(
        person_id="",
        name="",
        face_id=face_ids[nearest] if face_ids else "",
        distance=float(distances[nearest]),
        likeness=float(evidence.unit(probe) @ template),
        face_radius=evidence.radius(embeddings[nearest]),
        cohort=evidence.cohort_likeness(template, [], 0),
        rejected_distance=_nearest(probe, rejected),
    )
    (candidate,) = judged(rule.candidates(probe, [neighbour]))
    return candidate


def _nearest(probe: Embedding, embeddings: NDArray[np.float32] | None) -> float | None:
    if embeddings is None or not len(embeddings):
        return None
    return float(np.linalg.norm(embeddings - probe, axis=1).min())


def _timings(began: float, *analyses: Analysis) -> dict[str, float]:
    """Milliseconds by stage, of all images together, and in all."""
    stages: Counter[str] = Counter()
    for analysis in analyses:
        stages.update(analysis.timings_ms)
    return {**stages, "total": (time.perf_counter() - began) * 1000}
