"""The arithmetic of open-set identification: who is enrolled, TPIR at an FPIR, and how far chance moves either.

A probe shows either an enrolled person (then naming that person is right) or a stranger (then naming anybody is wrong).
TPIR is the share of the former that is named rightly, FPIR the share of the latter that is named at all (ISO/IEC
19795-1: true and false positive identification rates).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Figures = NDArray[np.float64]
Marks = NDArray[np.bool_]
Weights = NDArray[np.float64]
"""(resamples, probes): how often each probe counts."""

MAX_WEIGHTS = 4_000_000
"""Held at a time, 32 MB."""


# -- who is enrolled --


@dataclass(frozen=True)
class Person:
    """Somebody and the photos there are, in the order in which they are used."""

    name: str
    photos: tuple[Path, ...]


class Shown(NamedTuple):
    """A photo and who is in it, as a number among people and strangers."""

    person: int
    photo: Path


@dataclass(frozen=True)
class Draw:
    """One gallery and what it is asked: photos to enrol by person, probes of people enrolled, probes of strangers."""

    enrolled: dict[int, tuple[Path, ...]]
    probes: tuple[Shown, ...]
    strangers: tuple[Shown, ...]


@dataclass(frozen=True)
class Plan:
    """How galleries are drawn."""

    photos: int
    """enrolled of each person"""
    size: int | None = None
    """people in the gallery; None: all who have enough photos"""
    distractors: bool = True
    """whether people of whom no photo is left for a probe are enrolled as well"""
    probes_per_person: int | None = None
    shuffle: bool = False
    """whether chance says which photos are enrolled, instead of their order"""


def drawn(
    people: Sequence[Person],
    strangers: Sequence[Person],
    faces: Collection[Path],
    plan: Plan,
    random: np.random.Generator,
) -> Draw:
    """Draw one gallery. People who are left over become strangers too.

    Those with photos left for probes are drawn first, for only they tell how many are found again.

    Args:
        faces: the photos with a face; others cannot be enrolled and are probes.

    Raises:
        ValueError: there are not enough people.
    """
    parted = {number: _parted(person, faces, plan, random) for number, person in enumerate(people)}
    able = {number: parts for number, parts in parted.items() if len(parts[0]) == plan.photos}
    with_probes = [number for number, (_, rest) in able.items() if rest]
    alone = [number for number, (_, rest) in able.items() if not rest] if plan.distractors else []
    if not with_probes:
        raise ValueError(f"Nobody has more than {plan.photos} photos with a face, so nobody can be looked for.")
    order = [int(number) for group in (with_probes, alone) for number in random.permutation(np.array(group, int))]
    size = len(order) if plan.size is None else plan.size
    if size > len(order):
        raise ValueError(
            f"A gallery of {size:,} is too large: of {len(people):,} people {len(order):,} can be enrolled."
        )
    inside = order[:size]
    outside = sorted(set(parted) - set(inside))
    everybody = [*people, *strangers]
    probes = (Shown(n, photo) for n in inside for photo in able[n][1][: plan.probes_per_person])
    others = [*outside, *range(len(people), len(everybody))]
    unknown = (Shown(n, photo) for n in others for photo in everybody[n].photos[: plan.probes_per_person])
    return Draw({number: able[number][0] for number in inside}, tuple(probes), tuple(unknown))


def _parted(
    person: Person, faces: Collection[Path], plan: Plan, random: np.random.Generator
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The photos to enrol, and the others."""
    photos = list(person.photos)
    if plan.shuffle:
        photos = [photos[place] for place in random.permutation(len(photos))]
    chosen = [photo for photo in photos if photo in faces][: plan.photos]
    return tuple(chosen), tuple(photo for photo in photos if photo not in chosen)


# -- what came of it --


@dataclass(frozen=True)
class Probes:
    """All probes of all draws: who was shown, in which draw, and whether that person was enrolled."""

    person: NDArray[np.int_]
    draw: NDArray[np.int_]
    enrolled: Marks

    @property
    def people(self) -> int:
        """How many people enrolled were looked for."""
        return len(np.unique(self.person[self.enrolled]))

    @property
    def strangers(self) -> int:
        return len(np.unique(self.person[~self.enrolled]))


@dataclass(frozen=True)
class Judged:
    """What one rule made of each probe.

    `score` orders probes by how sure the best candidate is (-inf: there is none, or no face), `right` says whether that
    candidate is who was shown, `match` whether the rule names it with its threshold as it is.
    """

    score: Figures
    right: Marks
    match: Marks


def plain(probes: Probes) -> Weights:
    """Every probe counts once."""
    return np.ones((1, len(probes.person)))


def resampled(probes: Probes, count: int, seed: int) -> Iterator[Weights]:
    """What each probe counts when people are drawn again, with replacement, `count` times: parts of all resamples.

    All probes of a person come and go together, for they are alike. Where there are several draws these are drawn again
    too, for the probes of one gallery have its people in common.
    """
    random = np.random.default_rng(seed)
    rows = max(1, MAX_WEIGHTS // max(1, len(probes.person)))
    for first in range(0, count, rows):
        size = min(rows, count - first)
        weights = _times(probes.person, _roles(probes), size, random)
        if len(np.unique(probes.draw)) > 1:
            weights *= _times(probes.draw, np.zeros(len(probes.draw), int), size, random)
        yield weights


def _roles(probes: Probes) -> NDArray[np.int_]:
    """1: the person is enrolled in all draws, 2: in none, 3: in some; each kind is drawn anew by itself."""
    roles = np.zeros(int(probes.person.max()) + 1, int)
    roles[probes.person[probes.enrolled]] |= 1
    roles[probes.person[~probes.enrolled]] |= 2
    return np.asarray(roles[probes.person])


def _times(groups: NDArray[np.int_], kinds: NDArray[np.int_], count: int, random: np.random.Generator) -> Weights:
    """(count, len(groups)): how often each group is drawn out of its kind."""
    weights = np.empty((count, len(groups)))
    for kind in np.unique(kinds):
        inside = kinds == kind
        members, place = np.unique(groups[inside], return_inverse=True)
        times = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=count)
        weights[:, inside] = times[:, place]
    return weights


def share(what: Marks, among: Marks, weights: Weights) -> Figures:
    """The share of the probes in `among` that are in `what`, in each resample; nan where there are none."""
    with np.errstate(invalid="ignore"):
        shares: Figures = (weights @ (what & among)) / (weights @ among.astype(float))
    return shares


def expected(rate: float, probes: Probes) -> float:
    """How many strangers may be named at this FPIR: below 1 nothing can be said, below 10 little."""
    return rate * float((~probes.enrolled).sum()) + 1e-9


def tpir(judged: Judged, probes: Probes, rates: Sequence[float], weights: Weights) -> Figures:
    """(resamples, rates): the share of enrolled people's probes named rightly where at most `rate` of strangers are.

    The threshold is the lowest that names no more of them: only scores above that of the first stranger too many.
    """
    limits = _thresholds(judged.score[~probes.enrolled], rates, weights[:, ~probes.enrolled])
    found = probes.enrolled & judged.right
    order = np.argsort(-judged.score[found], kind="stable")
    falling = judged.score[found][order]
    sums = np.cumsum(weights[:, found][:, order], axis=1)
    sums = np.concatenate([np.zeros((len(weights), 1)), sums], axis=1)
    above = np.searchsorted(-falling, -limits, side="left")
    everybody = weights[:, probes.enrolled].sum(axis=1, keepdims=True)
    rates_found: Figures = np.take_along_axis(sums, above, axis=1) / np.maximum(everybody, 1e-12)
    return rates_found


def _thresholds(scores: Figures, rates: Sequence[float], weights: Weights) -> Figures:
    """(resamples, rates): the score that must be exceeded."""
    order = np.argsort(-scores, kind="stable")
    falling = np.append(scores[order], -np.inf)
    sums = np.cumsum(weights[:, order], axis=1)
    total = sums[:, -1] if sums.shape[1] else np.zeros(len(weights))
    allowed = np.floor(np.outer(total, rates) + 1e-9)
    first_too_many = [np.searchsorted(row, at_most, side="right") for row, at_most in zip(sums, allowed, strict=True)]
    return np.asarray(falling[np.array(first_too_many)])


def det(judged: Judged, probes: Probes) -> tuple[Figures, Figures]:
    """FPIR and miss rate (1 - TPIR) at every threshold that changes either, the strictest first."""
    order = np.argsort(-judged.score, kind="stable")
    score = judged.score[order]
    strangers = ~probes.enrolled[order]
    found = probes.enrolled[order] & judged.right[order]
    ends = np.append(np.flatnonzero(score[:-1] != score[1:]), len(score) - 1)  # no threshold parts equal scores
    ends = ends[score[ends] > -np.inf]
    wrong, right = np.cumsum(strangers)[ends], np.cumsum(found)[ends]
    return wrong / max(1, strangers.sum()), 1 - right / max(1, (~strangers).sum())


def limits(value: float, values: Figures, people: int) -> tuple[float, float]:
    """95 % limits of a share, from its resamples.

    Where all or none of the probes are in it the resamples are too; then the rule of three says how far from that
    the truth may be (with 95 % probability, had each of the `people` one probe).
    """
    if value == 0:
        return 0.0, min(1.0, 3 / max(1, people))
    if value == 1:
        return max(0.0, 1 - 3 / max(1, people)), 1.0
    return percentiles(values)


def percentiles(values: Figures) -> tuple[float, float]:
    """Between which 95 % of the resamples are."""
    usable = values[np.isfinite(values)]
    if not len(usable):
        return float("nan"), float("nan")
    low, high = np.percentile(usable, (2.5, 97.5))
    return float(low), float(high)
