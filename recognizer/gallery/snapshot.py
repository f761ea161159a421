"""The decrypted embeddings of one space in memory, and which people are nearest to a probe among them.

A snapshot never changes, so that many threads may search it; a newer one shares all chunks with it in which nobody has
changed. Distances between likely candidates are reckoned as the database does; a faster formula, which is less exact
for what is very near, only says who they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.evidence import Vector

CHUNK_FACES = 4096
"""As many faces as are copied when one person changes: 2 MB."""

SPARE = 16
"""So many more candidates are ranked exactly than are asked for, in case the faster formula mistakes their order. Where
more than so many tie for the last place, any of them may be left out."""

VECTORS_AT_ONCE = 16
"""As many as are compared with all people at a time: 16 MB at 250,000."""

ID_BYTES = 93
"""What an id takes in memory, with the place it stands in."""


class OpenPerson(NamedTuple):
    """A person's embeddings in one space: the template, (128,), and the faces, (n, 128), by id."""

    id: str
    template: Vector
    face_ids: tuple[str, ...]
    faces: Vector


class Near(NamedTuple):
    """A person near a probe, as `faces.Neighbour` has it, without what the database has to say."""

    person_id: str
    face_id: str
    distance: float
    radius: float
    likeness: float


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some people with their embeddings in arrays; the faces of one person stand together, by id."""

    people: tuple[str, ...]
    templates: Vector = field(repr=False)
    """(people, 128)"""
    face_ids: tuple[str, ...]
    faces: Vector = field(repr=False)
    """(faces, 128)"""
    starts: NDArray[np.intp] = field(repr=False)
    """(people + 1,): where each person's faces begin, and where the last one's end."""

    @classmethod
    def of(cls, people: Sequence[OpenPerson]) -> Self:
        """At least one person."""
        return cls(
            tuple(person.id for person in people),
            np.stack([person.template for person in people]),
            tuple(face_id for person in people for face_id in person.face_ids),
            np.concatenate([person.faces for person in people]),
            np.cumsum([0, *(len(person.faces) for person in people)]),
        )

    @cached_property
    def face_squares(self) -> NDArray[np.float32]:
        """(faces, 1): the square of the length of each."""
        return _squares(self.faces)

    @cached_property
    def template_squares(self) -> NDArray[np.float32]:
        """(people, 1)"""
        return _squares(self.templates)

    def person(self, place: int) -> OpenPerson:
        """One of the people; their arrays are parts of the chunk's."""
        mine = slice(self.starts[place], self.starts[place + 1])
        return OpenPerson(self.people[place], self.templates[place], self.face_ids[mine], self.faces[mine])

    def face_order(self, probes: Vector) -> NDArray[np.float32]:
        """(people, probes): what orders people by their nearest face to each probe, (probes, 128)."""
        apart = self.face_squares - 2 * (self.faces @ probes.T)
        nearest: NDArray[np.float32] = np.minimum.reduceat(apart, self.starts[:-1], axis=0)
        return nearest

    def template_order(self, directions: Vector) -> NDArray[np.float32]:
        """The same by the templates."""
        apart: NDArray[np.float32] = self.template_squares - 2 * (self.templates @ directions.T)
        return apart


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All people of a space at one revision of its collection.

    `server` is when the database server began: after a failover, which may have lost what was committed last, the same
    revision may be another state.
    """

    server: datetime | None = None
    revision: int = -1
    chunks: tuple[Chunk, ...] = ()

    @cached_property
    def offsets(self) -> NDArray[np.intp]:
        """(chunks + 1,): how many people stand before each chunk, and how many there are."""
        return np.cumsum([0, *(len(chunk.people) for chunk in self.chunks)])

    @property
    def count(self) -> int:
        """How many people there are."""
        return int(self.offsets[-1])

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        vectors = sum(chunk.faces.nbytes + chunk.templates.nbytes for chunk in self.chunks)
        ids = sum(len(chunk.face_ids) + len(chunk.people) for chunk in self.chunks)
        return vectors + ids * ID_BYTES

    @property
    def people(self) -> Iterator[str]:
        """The ids of all."""
        return (person_id for chunk in self.chunks for person_id in chunk.people)

    def person(self, place: int) -> OpenPerson:
        """The person at one of the places that `by_templates` and the like speak of."""
        chunk = int(np.searchsorted(self.offsets, place, "right")) - 1
        return self.chunks[chunk].person(place - int(self.offsets[chunk]))

    def changed(self, gone: Set[str], came: Sequence[OpenPerson] = ()) -> Snapshot:
        """The same without those who are gone, and with those who came; who has changed is both."""
        kept: list[Chunk] = []
        loose: list[OpenPerson] = []
        for chunk in self.chunks:
            if 2 * len(chunk.face_ids) >= CHUNK_FACES and gone.isdisjoint(chunk.people):
                kept.append(chunk)
            else:
                loose += (chunk.person(n) for n, person_id in enumerate(chunk.people) if person_id not in gone)
        return Snapshot(self.server, self.revision, (*kept, *_packed([*loose, *came])))

    def nearest(self, probes: Vector, count: int, *, by_faces: bool) -> list[list[Near]]:
        """The `count` nearest people of each probe, (n, 128), nearest first; equals by id (see SPARE).

        Args:
            by_faces: they are those with the nearest faces; else those with the nearest templates. Either way it is
                the distance to the nearest face that orders them.
        """
        if not self.chunks or not len(probes):
            return [[] for _ in probes]
        directions = _half(evidence.unit(probes))
        if by_faces:
            places = self._first(Chunk.face_order, probes, count + SPARE)
        else:
            places = self._first(Chunk.template_order, directions, count + SPARE)
        found = []
        for probe, direction, likely in zip(probes, directions, places.T, strict=True):
            people = [self.person(place) for place in likely]
            if not by_faces:
                people = _nearest_templates(people, direction, count)
            near = [_near(person, probe, direction) for person in people]
            found.append(sorted(near, key=attrgetter("distance", "person_id"))[:count])
        return found

    def by_templates(self, templates: Vector, count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The people whose templates are nearest to each of `templates`, (n, 128), in no order.

        Returns:
            Their places and likenesses, both (n, people); there are `count` people or all.
        """
        places = self._first(Chunk.template_order, templates, count)
        alike = [
            [self.person(place).template @ template for place in likely]
            for template, likely in zip(templates, places.T, strict=True)
        ]
        return places.T, np.array(alike, np.float32)

    def _first(
        self, order: Callable[[Chunk, Vector], NDArray[np.float32]], asked: Vector, count: int
    ) -> NDArray[np.intp]:
        """The places of the first `count` people, or of all, for each vector: (people, vectors)."""
        found = []
        for start in range(0, len(asked), VECTORS_AT_ONCE):
            some = asked[start : start + VECTORS_AT_ONCE]
            whole = np.concatenate([order(chunk, some) for chunk in self.chunks])
            wanted = min(count, len(whole))
            found.append(np.argpartition(whole, wanted - 1, axis=0)[:wanted])
        return np.concatenate(found, axis=1)


def _packed(people: Iterable[OpenPerson]) -> Iterator[Chunk]:
    full: list[OpenPerson] = []
    faces = 0
    for person in people:
        full.append(person)
        faces += len(person.face_ids)
        if faces >= CHUNK_FACES:
            yield Chunk.of(full)
            full, faces = [], 0
    if full:
        yield Chunk.of(full)


def _near(person: OpenPerson, probe: Vector, direction: Vector) -> Near:
    distances = np.linalg.norm(person.faces - probe, axis=1)
    nearest = int(distances.argmin())
    return Near(
        person.id,
        person.face_ids[nearest],
        float(distances[nearest]),
        evidence.radius(person.faces[nearest]),
        float(person.template @ direction),
    )


def _nearest_templates(people: list[OpenPerson], direction: Vector, count: int) -> list[OpenPerson]:
    def place(person: OpenPerson) -> tuple[float, str]:
        return float(np.linalg.norm(person.template - direction)), person.id

    return sorted(people, key=place)[:count]


def _squares(vectors: Vector) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = np.einsum("ij,ij->i", vectors, vectors)[:, None]
    return squares


def _half(vectors: Vector) -> Vector:
    """As the database rounds directions."""
    return vectors.astype(np.float16).astype(np.float32)
