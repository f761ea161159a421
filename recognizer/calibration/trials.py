"""Every enrolled photo as a probe: once against its own person, once as a stranger.

As a genuine probe the photo is left out of its person's template, everybody else is as they are. As an impostor its
person is taken out of the gallery, cohorts included. The score is the rule's: docs/adr/0007-decisions.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.calibration.cohorts import NEAREST, Cohorts, Scores, nearest, rows_per_chunk, without_each
from recognizer.calibration.people import Crowd
from recognizer.deadline import Deadline
from recognizer.evidence import Vector

PAIRS_PER_PHOTO: Final = 200
"""With so many other people each photo is paired, when there are more: a distribution needs no hundred millions."""

MAX_PROBES: Final = 10_000
"""Of more photos so many are probes, drawn with a fixed seed; the gallery keeps all."""

Progress = Callable[[int, int], None]
"""Is told how many photos of how many are done."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What n photos scored, float64; NaN where a trial could not be made.

    owner: (n,), the place of each photo's person.
    genuine: (n,), against its own person; needs a second photo.
    rival: (n,), of the best other person in the same gallery; needs a second person.
    rival_person: (n,), who that is; -1 where there is none.
    stranger: (n,), of the best person when its own is not enrolled; needs a second person.
    pairs: (k,), against single other people, its own not being enrolled.
    """

    owner: NDArray[np.int_]
    genuine: Scores
    rival: Scores
    rival_person: NDArray[np.int_]
    stranger: Scores
    pairs: Scores

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,): whether its own person scores more than every other."""
        better: NDArray[np.bool_] = self.genuine > np.nan_to_num(self.rival, nan=-np.inf)
        return better


def hold(people: Crowd, cohorts: Cohorts, deadline: Deadline, progress: Progress | None = None) -> Trials:
    """Score every photo both ways.

    Raises:
        DeadlineExceeded
    """
    count = len(people.units)
    genuine, rival, stranger = (np.full(count, np.nan) for _ in range(3))
    rival_person = np.full(count, -1)
    random = np.random.default_rng(0)
    probes = np.sort(random.permutation(count)[:MAX_PROBES])
    paired = random.permutation(len(people.people))[: PAIRS_PER_PHOTO + 1]
    pairs = [np.zeros(0)]
    step = rows_per_chunk(count)
    for start in range(0, len(probes), step):
        faces = probes[start : start + step]
        likenesses = _Likenesses(people, faces)
        for row, face in enumerate(faces):
            deadline.check()
            if people.beside[face]:
                genuine[face], rival[face], rival_person[face] = _genuine(people, cohorts, likenesses, row, face)
            if len(people.people) > 1:
                scores = _impostor(people, cohorts, likenesses, row, face)
                stranger[face] = scores.max()
                pairs.append(scores[paired])
        if progress:
            progress(start + len(faces), len(probes))
    every = np.concatenate(pairs)
    scored = every[np.isfinite(every)]  # a photo's own person has no score
    return Trials(people.owner, genuine, rival, rival_person, stranger, scored)


class _Likenesses:
    """What r probes are like: (r, p) float32, by template and by the rule; a probe is no face of its own person."""

    def __init__(self, people: Crowd, faces: NDArray[np.int_]) -> None:
        units, rows = people.units[faces], np.arange(len(faces))
        to_faces = units @ people.units.T
        to_faces[rows, faces] = -np.inf
        to_nearest = np.maximum.reduceat(to_faces, people.starts, axis=1)
        own = people.owner[faces]
        self.to_templates = units @ people.templates.T
        self.to_templates[rows, own] = (units * people.without[faces]).sum(axis=1)
        self.by_rule: Vector = np.maximum(self.to_templates, to_nearest - np.float32(evidence.NEAREST_DISCOUNT))
        self.of_remaining = people.without[faces] @ people.templates.T
        """Of the person's template without the probe, to everybody else's."""
        self.of_remaining[rows, own] = -np.inf


def _genuine(people: Crowd, cohorts: Cohorts, likenesses: _Likenesses, row: int, face: int) -> tuple[float, float, int]:
    """The score with its own person, that of the best other one, and who that is (NaN and -1: nobody)."""
    own, count = int(people.owner[face]), len(people.people)
    to_templates, of_remaining = likenesses.to_templates[row], likenesses.of_remaining[row]
    near = np.union1d(nearest(to_templates), own)
    of_near = evidence.cohort_likenesses(people.units[face], to_templates[near], count)
    of_probe = np.full(count, of_near.max())  # somebody in `near` belongs to no cohort, if there is anybody else
    of_probe[near] = of_near
    of_people = cohorts.among_all.copy()
    to_others = of_remaining[nearest(of_remaining, min(NEAREST, count - 1))]
    of_people[own] = evidence.cohort_likeness(people.without[face], to_others, count - 1)
    scores = evidence.scores(likenesses.by_rule[row].astype(np.float64), of_probe, of_people)
    genuine, scores[own] = float(scores[own]), -np.inf
    best = int(scores.argmax())
    return (genuine, float(scores[best]), best) if count > 1 else (genuine, np.nan, -1)


def _impostor(people: Crowd, cohorts: Cohorts, likenesses: _Likenesses, row: int, face: int) -> Scores:
    """The scores of a photo whose person is not enrolled, with everybody, (p,); -inf for that person."""
    own, count = int(people.owner[face]), len(people.people)
    to_templates = likenesses.to_templates[row].copy()
    to_templates[own] = -np.inf
    near, of_near, usual = without_each(people.units[face], to_templates, count - 1)
    of_probe = np.full(count, usual)
    of_probe[near] = of_near
    scores = evidence.scores(likenesses.by_rule[row].astype(np.float64), of_probe, cohorts.lacking(own))
    scores[own] = -np.inf
    return scores
