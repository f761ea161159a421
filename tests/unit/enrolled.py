"""Synthetic people for the tests of calibration: embeddings that lie to each other about as dlib's do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.gallery.reading import EnrolledPeople, EnrolledPerson


class Crowd:
    """Draws people and photos of them; the same seed draws the same ones.

    `closeness` is how much two photos of one person are alike, in the mean: the cosine from the centre of all faces.
    """

    def __init__(self, seed: int = 0, closeness: float = 0.6) -> None:
        self.random = np.random.default_rng(seed)
        self.closeness = closeness

    def direction(self) -> NDArray[np.float64]:
        """Somebody, (128,)."""
        return self._drawn(48)

    def photos(self, of: NDArray[np.float64], count: int, closeness: float | None = None) -> NDArray[np.float32]:
        """(count, 128) embeddings of photos of somebody."""
        closeness = closeness or self.closeness
        noise = np.array([self._drawn(128) for _ in range(count)])
        units = np.sqrt(closeness) * of + np.sqrt(1 - closeness) * noise
        return (evidence.learned().centre + 0.6 * units).astype(np.float32)

    def person(self, name: str, embeddings: NDArray[np.float32]) -> EnrolledPerson:
        return EnrolledPerson(f"id-{name}", name, tuple(f"{name}-{n}" for n in range(len(embeddings))), embeddings)

    def people(self, count: int, photos: int) -> list[EnrolledPerson]:
        """So many people with so many photos each, named p0, p1, ..."""
        return [self.person(f"p{n}", self.photos(self.direction(), photos)) for n in range(count)]

    def _drawn(self, directions: int) -> NDArray[np.float64]:
        vector = np.zeros(128)
        vector[:directions] = self.random.standard_normal(directions)
        return vector / np.linalg.norm(vector)


def enrolled(people: list[EnrolledPerson], **given: object) -> EnrolledPeople:
    """The people as the gallery gives them."""
    plain = {
        "collection": "default",
        "revision": 7,
        "threshold": None,
        "target_fpir": None,
        "shift": 0.0,
        "people_enrolled": len(people),
        "faces_enrolled": sum(len(person.face_ids) for person in people),
        "faces_elsewhere": 0,
        "people": tuple(people),
    }
    return EnrolledPeople(**{**plain, **given})
