"""The enrolled people as the trials want them: usable photos, as directions, with the templates of all.

Nothing in here is trusted: a number that is not finite would poison every mean, and the same photo twice would say
that a person is perfectly like themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.evidence import Vector
from recognizer.gallery.reading import EnrolledPerson

SAME_PHOTO: Final = 1e-6
"""Embeddings that differ by no more than this in every number are of one photo."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """People with what can be used of their photos, and how many photos were left out for which reason."""

    people: tuple[EnrolledPerson, ...]
    not_finite: int
    repeated: int


def sift(people: Sequence[EnrolledPerson]) -> Sifted:
    """Leave out photos that are not finite or that the person has already, and people who have no others."""
    usable, not_finite, repeated = [], 0, 0
    for person in people:
        embeddings = np.asarray(person.embeddings, np.float32).reshape(len(person.face_ids), -1)
        finite = np.asarray(np.isfinite(embeddings).all(axis=1), np.bool_)
        first = _first_of_each(embeddings, finite)
        not_finite += int((~finite).sum())
        repeated += int((finite & ~first).sum())
        kept = np.flatnonzero(first)
        if len(kept):
            face_ids = tuple(person.face_ids[place] for place in kept)
            usable.append(EnrolledPerson(person.id, person.name, face_ids, embeddings[kept]))
    return Sifted(tuple(usable), not_finite, repeated)


def _first_of_each(embeddings: Vector, finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,): whether a photo is finite and no earlier one is the same."""
    first = finite.copy()
    for place in range(1, len(embeddings)):
        earlier = embeddings[:place][first[:place]]
        if first[place] and len(earlier):
            first[place] = (np.abs(earlier - embeddings[place]).max(axis=1) > SAME_PHOTO).all()
    return first


@dataclass(frozen=True, slots=True)
class Crowd:
    """All faces in one array, each person's in a row; n faces of p people.

    units: (n, 128) float32, directions from the centre of all faces.
    owner: (n,), the place of each face's person.
    starts: (p,), the place of each person's first face.
    beside: (n,), how many other photos the face's person has.
    templates: (p, 128) float32.
    without: (n, 128) float32, the template of the face's person without that face; zeros where there is no other.
    """

    people: tuple[EnrolledPerson, ...]
    units: Vector
    owner: NDArray[np.int_]
    starts: NDArray[np.int_]
    beside: NDArray[np.int_]
    templates: Vector
    without: Vector

    def photos_of(self, person: int) -> slice:
        """The places of a person's faces."""
        start = int(self.starts[person])
        return slice(start, start + len(self.people[person].face_ids))

    def face_id(self, face: int) -> str:
        """The id of a face by its place."""
        person = int(self.owner[face])
        return self.people[person].face_ids[face - int(self.starts[person])]


def crowd(people: Sequence[EnrolledPerson]) -> Crowd:
    """Prepare people, at least one of them, whose photos were sifted."""
    sizes = np.array([len(person.face_ids) for person in people])
    return Crowd(
        people=tuple(people),
        units=evidence.unit(np.concatenate([person.embeddings for person in people])),
        owner=np.repeat(np.arange(len(people)), sizes),
        starts=np.cumsum(sizes) - sizes,
        beside=np.repeat(sizes - 1, sizes),
        templates=np.array([evidence.template(person.embeddings) for person in people], np.float32),
        without=np.concatenate([_templates_without_each(person.embeddings) for person in people]),
    )


def _templates_without_each(embeddings: Vector) -> Vector:
    if len(embeddings) == 1:
        return np.zeros_like(embeddings)
    each = (np.delete(embeddings, place, axis=0) for place in range(len(embeddings)))
    return np.array([evidence.template(others) for others in each], np.float32)
