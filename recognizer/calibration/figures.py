"""Rates with limits of confidence, and when there is too little to state one.

Photos of one person are alike, so people and not photos are drawn anew for the limits (bootstrap, 95 %). Where fewer
than five people are on one side of a rate, drawing anew cannot show what is possible; Wilson's limits for as many
trials as there are people are taken then, if they are wider. Of 20 people without a single miss it says: at least 84 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recognizer.calibration.cohorts import Scores
from recognizer.calibration.trials import Trials

RESAMPLES: Final = 500
FEW_PEOPLE: Final = 5
Z: Final = 1.959964
"""Of the normal distribution, 95 % lie within so many standard deviations."""

STRANGERS_BEYOND: Final = 3.0
"""So many photos of strangers must be expected beyond a measured score, or it is the score of one or two photos."""
PEOPLE_BEYOND: Final = 0.3
"""And so many people, counting all their photos as one."""
MIN_PEOPLE: Final = 10
"""Fewer people than this tell nothing about a rate among strangers, nor among people with a second photo."""

PERCENTILES: Final = (1, 5, 25, 50, 75, 95, 99)

Weights = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of trials, 0..1, with 95 % limits; from how many events of how many trials of how many people."""

    share: float
    low: float
    high: float
    events: int
    trials: int
    people: int

    @property
    def stated(self) -> bool:
        """Whether there are people enough to say the share aloud; else the counts and limits have to do."""
        return self.people >= MIN_PEOPLE


@dataclass(frozen=True, slots=True)
class AtScore:
    """What happens at one score: genuine photos given the right name (TPIR), strangers given any (FPIR).

    `tpir` is None where nobody has a second photo, `fpir` where there is one person only.
    """

    score: float
    tpir: Rate | None
    fpir: Rate | None


@dataclass(frozen=True, slots=True)
class Figure:
    """What to expect at one false positive identification rate.

    measured: at the score that this share of the enrolled photos reaches as strangers; None where `too_few` says why.
    rule: at the score that the rule takes for that rate.
    """

    fpir: float
    measured: AtScore | None
    too_few: str | None
    rule: AtScore


@dataclass(frozen=True, slots=True)
class Spread:
    """How `count` scores lie: the score below which so many percent of them are."""

    count: int
    percentiles: tuple[tuple[int, float], ...]


def spread(scores: Scores) -> Spread | None:
    """Of scores that may hold NaN; None where there is none."""
    known = scores[np.isfinite(scores)]
    if not len(known):
        return None
    values = np.percentile(known, PERCENTILES)
    return Spread(len(known), tuple((at, float(value)) for at, value in zip(PERCENTILES, values, strict=True)))


class Figures:
    """Reckons rates from trials; the same trials always give the same figures."""

    def __init__(self, trials: Trials) -> None:
        self._trials = trials
        people = int(trials.owner.max()) + 1 if len(trials.owner) else 0
        draws = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), RESAMPLES)
        self._resamples: Weights = draws.astype(np.float64)
        """(resamples, people): how often each person was drawn."""
        self._is_genuine: Flags = np.isfinite(trials.genuine)
        self._is_stranger: Flags = np.isfinite(trials.stranger)

    def figure(self, fpir: float, rule_score: float) -> Figure:
        """What to expect at a rate."""
        too_few = self.too_few(fpir)
        return Figure(fpir, None if too_few else self._measured(fpir), too_few, self.at(rule_score))

    def at(self, score: float) -> AtScore:
        """What happens when names are given from this score on."""
        named: Flags = self._trials.right & (self._trials.genuine > score)
        false: Flags = self._trials.stranger > score
        return AtScore(score, self._rate(named, self._is_genuine), self._rate(false, self._is_stranger))

    def too_few(self, fpir: float) -> str | None:
        """Why nothing can be measured at that rate, if so, and how much it would take."""
        photos, people = int(self._is_stranger.sum()), self._people(self._is_stranger)
        with_two = self._people(self._is_genuine)
        needed_photos = math.ceil(round(STRANGERS_BEYOND / fpir, 6))
        needed_people = max(MIN_PEOPLE, math.ceil(round(PEOPLE_BEYOND / fpir, 6)))
        missing = []
        if photos < needed_photos or people < needed_people:
            missing.append(f"{needed_photos:,} photos of {needed_people:,} people (there are {photos:,} of {people:,})")
        if with_two < MIN_PEOPLE:
            missing.append(f"{MIN_PEOPLE} people with two photos or more (there are {with_two})")
        return f"too few photos for that figure: it needs {' and '.join(missing)}" if missing else None

    def _people(self, trials: Flags) -> int:
        return len(np.unique(self._trials.owner[trials]))

    def _rate(self, events: Flags, trials: Flags) -> Rate | None:
        if not trials.any():
            return None
        of_people = [self._by_person(flags) for flags in (events & trials, trials)]
        drawn_events, drawn_trials = (self._resamples @ counts for counts in of_people)
        shares = drawn_events[drawn_trials > 0] / drawn_trials[drawn_trials > 0]
        return self._limited(events & trials, trials, shares)

    def _by_person(self, flags: Flags) -> Weights:
        return np.bincount(self._trials.owner[flags], minlength=self._resamples.shape[1]).astype(np.float64)

    def _limited(self, events: Flags, trials: Flags, resampled: Weights) -> Rate:
        count, total, people = int(events.sum()), int(trials.sum()), self._people(trials)
        low, high = np.percentile(resampled, (2.5, 97.5))
        share = count / total
        if min(self._people(events), self._people(trials & ~events)) < FEW_PEOPLE:
            wilson = _wilson(share, people)
            low, high = min(low, wilson[0]), max(high, wilson[1])
        return Rate(share, float(low), float(high), count, total, people)

    def _measured(self, fpir: float) -> AtScore:
        """At the score that this share of strangers exceeds; in each resample that is another score."""
        trials = self._trials
        owner, scores = trials.owner[self._is_stranger], trials.stranger[self._is_stranger]
        falling = np.argsort(-scores, kind="stable")
        owner, scores = owner[falling], scores[falling]
        score = _exceeded_by(fpir, scores, np.ones(len(scores)))
        shares = [self._tpir(_exceeded_by(fpir, scores, drawn[owner]), drawn) for drawn in self._resamples]
        named: Flags = trials.right & (trials.genuine > score)
        tpir = self._limited(named, self._is_genuine, np.array([share for share in shares if share is not None]))
        return AtScore(score, tpir, self._rate(trials.stranger > score, self._is_stranger))

    def _tpir(self, score: float, drawn: Weights) -> float | None:
        weights = drawn[self._trials.owner] * self._is_genuine
        if not weights.sum():
            return None
        return float(weights[self._trials.right & (self._trials.genuine > score)].sum() / weights.sum())


def _exceeded_by(share: float, falling: Scores, weights: Weights) -> float:
    """The lowest of the scores that at most this share of them, by weight, exceeds."""
    beyond = np.cumsum(weights)
    place = int(np.searchsorted(beyond, share * beyond[-1] * (1 + 1e-9), side="right"))
    return float(falling[min(place, len(falling) - 1)])


def _wilson(share: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % limits of a share."""
    middle = share + Z**2 / (2 * trials)
    reach = Z * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    scale = 1 + Z**2 / trials
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)
