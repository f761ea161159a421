"""From distances to a decision with its reasons. No pixels, no SQL, no HTTP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recognizer.faces import Decision, Neighbour

CONFIDENCE_SLOPE = 20.0
"""Steepness of `confidence` per unit of L2 distance.

Chosen for readable figures around dlib's usual threshold 0.6: distance 0.4, a sure match, gives 0.98,
and 0.8, surely somebody else, gives 0.02. It orders candidates and never moves the decision.
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person the probe may show, with the confidence that it does (0..1, 0.5 at the decision point)."""

    neighbour: Neighbour
    confidence: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one probe: candidates come best first, each person once.

    `threshold` is the distance at which the best candidate would be at confidence 0.5, `margin` its
    confidence minus the second person's (0 where there is no second); both None without candidates.
    """

    decision: Decision
    candidates: tuple[Candidate, ...]
    threshold: float | None
    margin: float | None
    reasons: tuple[str, ...]

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


def confidence(distance: float, threshold: float) -> float:
    """Map an L2 distance to 0..1: falling with distance, exactly 0.5 at the threshold."""
    return 1.0 / (1.0 + math.exp(CONFIDENCE_SLOPE * (distance - threshold)))


def decide(neighbours: Sequence[Neighbour], threshold: float) -> Verdict:
    """Decide about one probe.

    Args:
        neighbours: the nearest people, nearest first, each once.
        threshold: the L2 distance up to which (inclusive) the nearest person is a match.
    """
    if not neighbours:
        return Verdict("unknown", (), None, None, ("There is nobody in this collection to compare with yet.",))
    candidates = tuple(Candidate(n, confidence(n.distance, threshold)) for n in neighbours)
    best = candidates[0]
    second = candidates[1].confidence if len(candidates) > 1 else 0.0
    near = best.neighbour.distance <= threshold
    side = "within" if near else "beyond"
    reason = f"The nearest face is at distance {best.neighbour.distance:.3f}, {side} {threshold:.3f}."
    return Verdict("match" if near else "unknown", candidates, threshold, best.confidence - second, (reason,))
