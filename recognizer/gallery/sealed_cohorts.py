"""What the keeper of the cohorts needs of encrypted spaces: who is most like whom, reckoned in memory."""

from __future__ import annotations

import time
from collections.abc import Container
from typing import NamedTuple

import numpy as np

from recognizer import evidence
from recognizer.gallery.snapshot import Snapshot

SHUT_SECONDS = 60.0
"""So long is a space left alone that cannot be decrypted."""


class Shut:
    """The spaces that cannot be decrypted, which are left alone for a while; requests to them are told why."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def note(self, space_id: int) -> None:
        """Leave the space alone from now on."""
        self._until[space_id] = time.monotonic() + SHUT_SECONDS

    def spaces(self) -> list[int]:
        """Those that are left alone now."""
        return [space_id for space_id, until in self._until.items() if until > time.monotonic()]


class Around(NamedTuple):
    """A person's template, (128,), and who is most like it, falling."""

    template: evidence.Vector
    others: list[str]
    likenesses: list[float]


def around(snapshot: Snapshot, wanted: Container[str]) -> dict[str, Around]:
    """Who is most like each of the people wanted, as far as they are in the snapshot; most alike first."""
    places = [place for place, person_id in enumerate(snapshot.people) if person_id in wanted]
    if not places:
        return {}
    people = [snapshot.person(place) for place in places]
    near = snapshot.by_templates(np.array([person.template for person in people]), round(evidence.MAX_COHORT) + 2)
    found = {}
    for person, (others, likenesses) in zip(people, zip(*near, strict=True), strict=True):
        alike = sorted(((snapshot.person(n).id, float(a)) for n, a in zip(others, likenesses, strict=True)), key=_fall)
        alike = [(other, likeness) for other, likeness in alike if other != person.id]
        found[person.id] = Around(person.template, [each for each, _ in alike], [likeness for _, likeness in alike])
    return found


def _fall(alike: tuple[str, float]) -> float:
    return -alike[1]
