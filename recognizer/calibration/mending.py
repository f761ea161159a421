"""What to mend among the enrolled people: photos that are not like their person, people who are like each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.calibration.cohorts import Cohorts, Scores, rows_per_chunk
from recognizer.calibration.people import Crowd
from recognizer.calibration.trials import Trials
from recognizer.deadline import Deadline
from recognizer.decisions import AMBIGUOUS_ODDS, SCORE_SLOPE
from recognizer.faces import PersonRef
from recognizer.gallery.reading import EnrolledPerson

MAX_LISTED: Final = 50

OUTLIER_LIKENESS: Final = 0.2
"""A photo less like the person's others than this is hardly ever of the same person, seen well."""
RIVAL_LEAD: Final = AMBIGUOUS_ODDS / SCORE_SLOPE
"""Somebody else has to score so much more with a photo than its own person; less is too near to tell."""
DUPLICATE_LIKENESS: Final = 0.45
"""People whose templates are less alike than this are not taken for one."""
DUPLICATE_RATE: Final = 0.001
"""And neither are those who score less than so many strangers do."""
SAME_LIKENESS: Final = 0.9
"""People more alike than this are one whatever they score: who is enrolled six times is their own cohort."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """Photos that are not like their person: `likeness` to the others, and who is more alike, if anybody is."""

    person: PersonRef
    face_ids: tuple[str, ...]
    likeness: float
    rival: PersonRef | None
    suggestion: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two people, how alike their templates are, and what one scores as a candidate for the other."""

    people: tuple[PersonRef, PersonRef]
    likeness: float
    score: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What to mend, worst first, at most `MAX_LISTED` of each kind; and how many there are."""

    outliers: tuple[Outlier, ...] = ()
    outlier_count: int = 0
    duplicates: tuple[Pair, ...] = ()
    duplicate_count: int = 0
    confusable: tuple[Pair, ...] = ()
    confusable_count: int = 0
    counted_all: bool = True
    """False where there were so many pairs of people that only a part was looked at."""


def find(
    people: Crowd, cohorts: Cohorts, trials: Trials, shift: float, in_force: float, deadline: Deadline
) -> Findings:
    """Look for what to mend; `in_force` is the score from which the rule gives a name.

    Raises:
        DeadlineExceeded
    """
    surely = evidence.score_at(DUPLICATE_RATE, len(people.people), shift)
    found = _alike(people, cohorts, min(in_force, surely), deadline)
    is_one = (found.likeness >= DUPLICATE_LIKENESS) & (found.score > surely) | (found.likeness >= SAME_LIKENESS)
    is_confusable = ~is_one & (found.score > in_force)
    outliers = _outliers(people, _rivals(people, trials, found.places[is_one]))
    return Findings(
        outliers=tuple(outliers[:MAX_LISTED]),
        outlier_count=len(outliers),
        duplicates=_listed(people, found, is_one),
        duplicate_count=int(is_one.sum()),
        confusable=_listed(people, found, is_confusable),
        confusable_count=int(is_confusable.sum()),
        counted_all=len(found.likeness) <= MAX_PAIRS,
    )


# -- people who are like each other --


@dataclass(frozen=True, slots=True)
class _Alike:
    places: NDArray[np.int_]
    """(k, 2)"""
    likeness: Scores
    score: Scores


MAX_PAIRS: Final = 200_000
"""More pairs are not looked at: a gallery where everybody is like everybody has another trouble."""


def _alike(people: Crowd, cohorts: Cohorts, above: float, deadline: Deadline) -> _Alike:
    """All pairs of people whose templates score more than that with each other, or are the same."""
    count, templates = len(people.people), people.templates
    firsts, seconds, likenesses, scores = [], [], [], []
    kept = 0
    step = rows_per_chunk(4 * count)
    for start in range(0, count, step):
        deadline.check()
        rows = np.arange(start, min(count, start + step))
        alike = (templates[rows] @ templates.T).astype(np.float64)
        of_others = np.array([cohorts.lacking(int(row)) for row in rows])
        of_rows = np.repeat(cohorts.usual[rows, None], count, axis=1)
        mine = (cohorts.person >= start) & (cohorts.person <= rows[-1])
        of_rows[cohorts.person[mine] - start, cohorts.without[mine]] += cohorts.change[mine]
        score = evidence.scores(alike, of_rows, of_others)
        close = (score > above) | (alike >= SAME_LIKENESS)
        row, second = np.nonzero(close & (rows[:, None] < np.arange(count)))
        firsts.append(rows[row])
        seconds.append(second)
        likenesses.append(alike[row, second])
        scores.append(score[row, second])
        kept += len(row)
        if kept > MAX_PAIRS:
            break
    places = np.column_stack([np.concatenate(firsts), np.concatenate(seconds)])
    return _Alike(places, np.concatenate(likenesses), np.concatenate(scores))


def _listed(people: Crowd, found: _Alike, chosen: NDArray[np.bool_]) -> tuple[Pair, ...]:
    places = np.flatnonzero(chosen)
    best = places[np.lexsort((-found.likeness[places], -found.score[places]))][:MAX_LISTED]
    return tuple(
        Pair(
            (known(people.people[found.places[each, 0]]), known(people.people[found.places[each, 1]])),
            float(found.likeness[each]),
            float(found.score[each]),
        )
        for each in best
    )


def known(person: EnrolledPerson) -> PersonRef:
    """How a report names a person."""
    return PersonRef(person.id, person.name)


# -- photos that are not like their person --


def _rivals(people: Crowd, trials: Trials, same: NDArray[np.int_]) -> NDArray[np.int_]:
    """(n,): who scores clearly more with a photo than its own person does, or -1.

    `same`, (k, 2), are pairs of people, the smaller place first, who are probably one: they are no rivals.
    """
    first = np.minimum(trials.owner, trials.rival_person)
    second = np.maximum(trials.owner, trials.rival_person)
    count = len(people.people)
    are_one = np.isin(first * count + second, same[:, 0] * count + same[:, 1])
    leads = (trials.rival_person >= 0) & (trials.rival > trials.genuine + RIVAL_LEAD) & ~are_one
    rivals: NDArray[np.int_] = np.where(leads, trials.rival_person, -1)
    return rivals


def _outliers(people: Crowd, rivals: NDArray[np.int_]) -> list[Outlier]:
    """Photos far from the others of their person, farthest first."""
    found = []
    for person in range(len(people.people)):
        photos = people.photos_of(person)
        if photos.stop - photos.start == 1:
            continue
        likeness, better = evidence.likeness_to_others(people.units[photos]), rivals[photos]
        if len(better) == 2 and likeness[0] < OUTLIER_LIKENESS and (better >= 0).sum() != 1:
            found.append(_unlike_each_other(people, person, float(likeness[0])))
            continue
        found += [
            _outlier(people, photos.start + place, float(likeness[place]), int(better[place]))
            for place in np.flatnonzero((better >= 0) | (likeness < OUTLIER_LIKENESS)).tolist()
        ]
    return sorted(found, key=lambda outlier: outlier.likeness)


def _outlier(people: Crowd, face: int, likeness: float, rival: int) -> Outlier:
    person = people.people[people.owner[face]]
    if rival < 0:
        said = f"Unlike the other photos of {person.name}: look at it, and delete it if it is poor or of somebody else."
        return Outlier(known(person), (people.face_id(face),), likeness, None, said)
    other = people.people[rival]
    said = f"More like {other.name} than like {person.name}: look whose photo it is, and delete it if it is poor."
    return Outlier(known(person), (people.face_id(face),), likeness, known(other), said)


def _unlike_each_other(people: Crowd, person: int, likeness: float) -> Outlier:
    who = people.people[person]
    said = f"These two photos of {who.name} are unlike each other: look at both, and enrol a third, good one."
    return Outlier(known(who), who.face_ids, likeness, None, said)
