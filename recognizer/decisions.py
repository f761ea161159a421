"""From likenesses to a decision with its reasons. No pixels, no SQL, no HTTP.

Two rules, of which a collection has one in force:

- **TargetRule**, the usual one: a name is given where the score of the best candidate (`evidence.scores`) is one that
  only the share `target_fpir` of strangers reaches with anybody in a gallery of this size.
- **FixedThreshold**, where a distance is given: the nearest face within it is a match, as in face_recognition,
  however near others are.

Either gives each candidate log-odds: 0 at the decision point. `confidence` is their logistic function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, Protocol

import numpy as np

from recognizer import evidence
from recognizer.faces import Decision, Embedding, Face, Neighbour, Neighbourhood, Quality

DISTANCE_SLOPE: Final = 20.0
"""Log-odds per unit of L2 distance under a fixed threshold.

Chosen for readable figures around dlib's usual threshold 0.6: distance 0.4, a sure match, gives 0.98,
and 0.8, surely somebody else, gives 0.02. It orders candidates and never moves the decision.
"""

SCORE_SLOPE: Final = 20.0
"""Log-odds per unit of score. Genuine scores lie 0.2 to 0.4 above the decision point (confidence 0.98 and more)."""

AMBIGUOUS_ODDS: Final = 1.0
"""A second person whose log-odds are less than this below the best one's, 0.05 of score, is too near to tell."""

REJECTED_ODDS: Final = -3.0
"""What a candidate has at most whose rejected face is nearer than any of their own: confidence 0.05."""

POOR_QUALITY: Final = 0.4
"""A face of less that matches nobody is not unknown: it may be somebody, seen badly. (One that matches is no less sure
than others: what poor faces have in common is taken off with the cohort.)"""

IN_WORDS: Final = {
    "SMALL_FACE": "too small",
    "LOW_SHARPNESS": "blurred",
    "TOO_DARK": "too dark",
    "TOO_BRIGHT": "too bright",
    "LOW_CONTRAST": "too low in contrast",
    "FACE_TURNED": "turned away",
}
"""What `vision.quality` calls a flaw, as an end to "The face is ..."."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person the probe may show.

    `score` are the rule's log-odds, 0 at the decision point; `threshold` the distance that goes with 0, were the
    person less alike by just that much (`distance` is below it where the score is above 0, and the other way round);
    `rejected` says that this face was said not to be that person.
    """

    neighbour: Neighbour
    score: float
    threshold: float
    rejected: bool = False

    @property
    def confidence(self) -> float:
        """The score as 0..1, 0.5 at the decision point."""
        return logistic(self.score)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one probe: candidates come best first, each person once.

    `margin` is the best candidate's confidence minus the second person's (0 where there is no second);
    None without candidates.
    """

    decision: Decision
    candidates: tuple[Candidate, ...]
    margin: float | None
    reasons: tuple[str, ...]

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


class Rule(Protocol):
    """What is asked of a candidate."""

    ambiguous_odds: ClassVar[float]
    """By more than this the best candidate must be ahead of the second to be told from them."""

    def candidates(self, probe: Embedding, near: Sequence[Neighbour]) -> list[Candidate]:
        """The neighbours of a probe as candidates, in no particular order."""
        ...

    def said_of(self, best: Candidate) -> str:
        """In a sentence, on which side of the decision point the best candidate is."""
        ...


@dataclass(frozen=True, slots=True)
class FixedThreshold:
    """The L2 distance up to which (inclusive) the nearest person is a match."""

    threshold: float
    ambiguous_odds: ClassVar[float] = 0.0

    def candidates(self, probe: Embedding, near: Sequence[Neighbour]) -> list[Candidate]:
        """By the distance to the nearest face alone."""
        return [Candidate(each, DISTANCE_SLOPE * (self.threshold - each.distance), self.threshold) for each in near]

    def said_of(self, best: Candidate) -> str:
        """Within or beyond the threshold."""
        side = "within" if best.score >= 0 else "beyond"
        return f"The nearest face is at distance {best.neighbour.distance:.3f}, {side} {self.threshold:.3f}."


@dataclass(frozen=True)
class TargetRule:
    """The share of strangers that may be given a name, in a gallery of so many `people` who are alike by `shift`."""

    target_fpir: float
    people: int
    shift: float
    ambiguous_odds: ClassVar[float] = AMBIGUOUS_ODDS

    @cached_property
    def needed(self) -> float:
        """The score at the decision point."""
        return evidence.score_at(self.target_fpir, max(1, self.people), self.shift)

    def candidates(self, probe: Embedding, near: Sequence[Neighbour]) -> list[Candidate]:
        """By likeness, less what either side has in common with its cohort."""
        if not near:
            return []
        scores = self.scores(probe, near)
        around, needed = evidence.radius(probe), self.needed
        found = []
        for each, score in zip(near, scores, strict=True):
            # the distance at which the likeness would be less by score - needed (law of cosines)
            squared = each.distance**2 + 2 * around * each.face_radius * (score - needed)
            found.append(Candidate(each, SCORE_SLOPE * (score - needed), math.sqrt(max(0.0, squared))))
        return found

    def scores(self, probe: Embedding, near: Sequence[Neighbour]) -> list[float]:
        """The normalised score of each neighbour."""
        to_template = np.array([each.likeness for each in near])
        of_probe = evidence.cohort_likenesses(evidence.unit(probe), to_template, max(1, self.people))
        of_people = np.array(
            [own if each.cohort is None else each.cohort for each, own in zip(near, of_probe, strict=True)]
        )
        around = evidence.radius(probe)
        to_nearest = np.array([_cosine(around, each.face_radius, each.distance) for each in near])
        alike = np.maximum(to_template, to_nearest - evidence.NEAREST_DISCOUNT)
        return [float(score) for score in evidence.scores(alike, of_probe, of_people)]

    def said_of(self, best: Candidate) -> str:
        """How many strangers would be as much alike."""
        here = "the one person here" if self.people == 1 else f"one of the {self.people:,} people here"
        share = f"{self.target_fpir * 100:.3g} %"
        if best.score >= 0:
            return f"At most {share} of strangers would be as much like {here}."
        return f"More than {share} of strangers would be as much like {here}."


def _cosine(one: float, other: float, distance: float) -> float:
    """Of the angle between two points at these distances from the centre and from each other."""
    return (one**2 + other**2 - distance**2) / max(1e-9, 2 * one * other)


def logistic(odds: float) -> float:
    """Log-odds as a share, 0..1."""
    return 1.0 / (1.0 + math.exp(-min(500.0, max(-500.0, odds))))


def rule_for(threshold: float | None, target_fpir: float, around: Neighbourhood) -> Rule:
    """The rule in force: a threshold, where there is one, else the target."""
    if threshold is not None:
        return FixedThreshold(threshold)
    return TargetRule(target_fpir, around.people, around.shift)


def in_force(
    threshold: float | None, target_fpir: float | None, usual_threshold: float | None, usual_target: float
) -> tuple[float | None, float]:
    """What decides in a collection: a fixed threshold, if any, and the target.

    The collection's own values come first; the usual threshold holds only where the collection says nothing at all.
    """
    says_nothing = threshold is None and target_fpir is None
    return usual_threshold if says_nothing else threshold, usual_target if target_fpir is None else target_fpir


def decide(faces: Sequence[Face], around: Neighbourhood, rule: Rule, *, unique: bool = False) -> list[Verdict]:
    """Decide about the faces of one photo.

    Args:
        faces: the probes.
        around: the people near each of them, in the same order.
        unique: nobody is in the photo twice; a person goes to the face for which all faces together score best.
    """
    ranked = [
        _ranked(rule.candidates(face.embedding, near)) for face, near in zip(faces, around.of_probes, strict=True)
    ]
    taken: list[str | None] = [None] * len(faces)
    if unique and len(faces) > 1:
        ranked, taken = _without_doubles(ranked)
    return [_verdict(face, found, rule, who) for face, found, who in zip(faces, ranked, taken, strict=True)]


def judged(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, those marked who were rejected."""
    return [_if_not_rejected(candidate) for candidate in candidates]


def _ranked(candidates: list[Candidate]) -> list[Candidate]:
    return sorted(judged(candidates), key=lambda each: (-each.score, each.neighbour.distance, each.neighbour.person_id))


def is_rejected(neighbour: Neighbour) -> bool:
    """Whether the probe is nearer to a face that was said not to be this person's than to any of their own."""
    return neighbour.rejected_distance is not None and neighbour.rejected_distance <= neighbour.distance


def _if_not_rejected(candidate: Candidate) -> Candidate:
    neighbour = candidate.neighbour
    if not is_rejected(neighbour):
        return candidate
    threshold = min(candidate.threshold, neighbour.rejected_distance or 0.0)  # nearer, it would not be rejected
    return Candidate(neighbour, min(candidate.score, REJECTED_ODDS), threshold, rejected=True)


def _without_doubles(ranked: list[list[Candidate]]) -> tuple[list[list[Candidate]], list[str | None]]:
    """Leave each person to one face: candidates without those who went to another face, and the best of those."""
    from scipy.optimize import linear_sum_assignment  # 30 MB of memory, which only those pay who ask for `unique`

    wanted = [(face, each) for face, found in enumerate(ranked) for each in found if each.score >= 0]
    people = sorted({each.neighbour.person_id for _, each in wanted})
    column = {person: number for number, person in enumerate(people)}
    gains = np.zeros((len(ranked), len(people)))
    for face, each in wanted:
        gains[face, column[each.neighbour.person_id]] = each.score + 1e-9  # a score of 0 is one, too
    pairs = zip(*linear_sum_assignment(gains, maximize=True), strict=True)
    owner = {people[person]: face for face, person in pairs if gains[face, person]}
    left, taken = [], []
    for face, found in enumerate(ranked):
        gone = [each for each in found if owner.get(each.neighbour.person_id, face) != face]
        left.append([each for each in found if each not in gone])
        first = found[0] if found else None
        taken.append(first.neighbour.name if first in gone and first.score >= 0 else None)
    return left, taken


def _verdict(face: Face, candidates: list[Candidate], rule: Rule, taken: str | None) -> Verdict:
    reasons = (
        [f"{taken} is in this image with another face; so all its faces together are most alike."] if taken else []
    )
    if not candidates:
        nobody = "There is nobody in this collection to compare with yet."
        return Verdict("unknown", (), None, tuple(reasons or [nobody]))
    best, second = candidates[0], candidates[1] if len(candidates) > 1 else None
    decision, more = _decided(face, best, second, rule)
    margin = best.confidence - (second.confidence if second else 0.0)
    return Verdict(decision, tuple(candidates), margin, (*reasons, *more))


def _decided(face: Face, best: Candidate, second: Candidate | None, rule: Rule) -> tuple[Decision, list[str]]:
    reasons = [rule.said_of(best)]
    if best.rejected:
        return "unknown", [f"A face that is nearer than any of {best.neighbour.name}'s was said not to be that person."]
    if best.score < 0 and face.quality.score < POOR_QUALITY:
        return "low_quality", [f"The face is {flaws(face.quality)}; a better image of it may tell more.", *reasons]
    if best.score < 0:
        return "unknown", reasons
    if second and second.score >= best.score - rule.ambiguous_odds:
        return "ambiguous", [f"{best.neighbour.name} and {second.neighbour.name} are about equally alike.", *reasons]
    return "match", reasons


def flaws(quality: Quality) -> str:
    """What is wrong with a face, as an end to "The face is ..."."""
    return " and ".join(IN_WORDS[issue] for issue in quality.issues) or "hard to make out"
