"""Likeness to a cohort with one or two people taken out, for everybody at once.

Taking a person out changes the cohorts of the few who have that person in theirs, so these few are kept beside the
value that holds for all others: 5,000 people need no table of 5,000 by 5,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.evidence import Vector

Scores = NDArray[np.float64]

NEAREST: Final = int(evidence.MAX_COHORT) + 2
"""So many real people are looked at: whoever comes last is outside of every cohort."""
CHUNK_BYTES: Final = 32 * 2**20
"""A chunk of likenesses has no more bytes than this."""


def rows_per_chunk(columns: int) -> int:
    """How many rows of float32 with so many columns make a chunk."""
    return max(1, CHUNK_BYTES // (4 * max(1, columns)))


def nearest(likenesses: Vector, count: int = NEAREST) -> NDArray[np.int_]:
    """The places of the `count` largest, or of all."""
    if len(likenesses) <= count:
        return np.arange(len(likenesses))
    fewer = len(likenesses) - count
    places: NDArray[np.int_] = np.argpartition(likenesses, min(fewer, len(likenesses) - 1))[fewer:]
    return places


def without_each(vector: Vector, likenesses: Vector, people: int) -> tuple[NDArray[np.int_], Scores, float]:
    """The likeness of `vector` to its cohort, each of the people in turn not belonging to it.

    Args:
        vector: (128,).
        likenesses: to all real people, (m,); those who are not there have -inf.
        people: how many are there.

    Returns:
        Places, the values for those, and the value for everybody else.
    """
    places = nearest(likenesses, min(NEAREST, people))
    if not len(places):
        return places, np.zeros(0), evidence.cohort_likeness(vector, [], 0)
    values = evidence.cohort_likenesses(vector, likenesses[places], people)
    return places, values, float(values.max())


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Of every person's template the likeness to its cohort: (p,) each, or by pairs.

    among_all: all others may belong to it; what the service has stored.
    usual, person, without, change: the same with one more person taken out. It is `usual`, but for the pairs
    (`person`, `without`), sorted by `without`, where `change` is to be added.
    """

    among_all: Scores
    usual: Scores
    person: NDArray[np.int_]
    without: NDArray[np.int_]
    change: Scores

    def lacking(self, gone: int) -> Scores:
        """(p,): everybody's when the person `gone` is not enrolled."""
        values = self.usual.copy()
        of_gone = slice(*np.searchsorted(self.without, [gone, gone + 1]))
        values[self.person[of_gone]] += self.change[of_gone]
        return values


def cohorts(templates: Vector, deadline: Deadline) -> Cohorts:
    """Reckon the cohorts of p people, (p, 128)."""
    count = len(templates)
    among_all, usual = np.zeros(count), np.zeros(count)
    owners, places, changes = [], [], []  # of the pairs
    step = rows_per_chunk(count)
    for start in range(0, count, step):
        deadline.check()
        alike = templates[start : start + step] @ templates.T
        for row, person in enumerate(range(start, start + len(alike))):
            alike[row, person] = -np.inf
            near, values, usual[person] = without_each(templates[person], alike[row], count - 1)
            among_all[person] = evidence.cohort_likeness(templates[person], alike[row, near], count - 1)
            owners.append(np.full(len(near), person))
            places.append(near)
            changes.append(values - usual[person])
    order = np.argsort(np.concatenate(places), kind="stable")
    pairs = (np.concatenate(each)[order] for each in (owners, places, changes))
    return Cohorts(among_all, usual, *pairs)
