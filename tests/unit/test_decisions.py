"""Decisions: what is said of a face, given the people near it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recognizer import evidence
from recognizer.decisions import (
    IN_WORDS,
    Candidate,
    FixedThreshold,
    TargetRule,
    Verdict,
    decide,
    flaws,
    in_force,
    logistic,
    rule_for,
)
from recognizer.faces import Box, Face, Neighbour, Neighbourhood, Quality
from recognizer.vision import quality

RANDOM = np.random.default_rng(5)
CENTRE = evidence.learned().centre


def embedding(radius: float = 0.6) -> np.ndarray:
    direction = RANDOM.normal(size=128)
    return (CENTRE + radius * direction / np.linalg.norm(direction)).astype(np.float32)


def face(quality: float = 1.0, *issues: str, of: np.ndarray | None = None) -> Face:
    vector = embedding() if of is None else of
    return Face(Box(0, 0, 100, 100), 1.0, Quality(quality, issues), (), vector)


def near(name: str, likeness: float, **given: float | None) -> Neighbour:
    """A person of whom one face is stored, as alike as the template; the probe is at 0.6 from the centre too."""
    distance = math.sqrt(2 * 0.36 * (1 - likeness))
    plain = {"distance": distance, "likeness": likeness, "face_radius": 0.6, "cohort": 0.3}
    return Neighbour(f"id of {name}", name, f"face of {name}", **{**plain, **given})


def around(*of_probes: list[Neighbour], people: int = 30) -> Neighbourhood:
    return Neighbourhood(1, people, 0.0, tuple(tuple(of_probe) for of_probe in of_probes))


def one(*neighbours: Neighbour, quality: float = 1.0, threshold: float | None = None, target: float = 0.01) -> Verdict:
    found = around(list(neighbours))
    (verdict,) = decide([face(quality, "LOW_SHARPNESS")], found, rule_for(threshold, target, found))
    return verdict


# -- the rule of the target --


def test_who_is_clearly_alike_is_a_match() -> None:
    verdict = one(near("Ada", 0.8), near("Bob", 0.1))
    assert (verdict.decision, verdict.best.neighbour.name) == ("match", "Ada")
    assert verdict.best.confidence > 0.95
    assert verdict.margin == pytest.approx(verdict.best.confidence - verdict.candidates[1].confidence)
    assert "1 % of strangers" in verdict.reasons[0]


def test_who_is_like_many_is_unknown() -> None:
    verdict = one(near("Ada", 0.3), near("Bob", 0.2))
    assert verdict.decision == "unknown"
    assert verdict.best.confidence < 0.5


def test_confidence_is_a_half_where_the_score_is_the_one_needed() -> None:
    assert (logistic(0), logistic(10**6), logistic(-(10**6))) == (0.5, 1.0, pytest.approx(0, abs=1e-200))
    probe = face()
    found = around([near("Ada", 0.5)])
    rule = TargetRule(0.01, 30, 0.0)
    (score,) = rule.scores(probe.embedding, found.of_probes[0])
    (candidate,) = rule.candidates(probe.embedding, found.of_probes[0])
    assert candidate.score == pytest.approx(20 * (score - rule.needed))


@pytest.mark.parametrize("likeness", [0.2, 0.45, 0.6, 0.9])
def test_the_threshold_is_the_distance_at_which_the_candidate_would_be_at_the_decision_point(likeness: float) -> None:
    probe, rule = face(), TargetRule(0.01, 30, 0.0)
    (candidate,) = rule.candidates(probe.embedding, [near("Ada", likeness)])
    at_threshold = 1 - candidate.threshold**2 / (2 * 0.36)
    # a person as much less alike as goes with that distance; the probe's cohort is hardly moved by one of 230
    (moved,) = rule.candidates(probe.embedding, [near("Ada", at_threshold)])
    assert moved.score == pytest.approx(0, abs=0.3)
    assert (candidate.neighbour.distance < candidate.threshold) == (candidate.score > 0)


def test_a_stricter_target_asks_for_more() -> None:
    scores = [one(near("Ada", 0.6), target=target).best.score for target in (0.1, 0.01, 0.001)]
    assert scores == sorted(scores, reverse=True)


def test_who_is_like_everybody_needs_to_be_more_alike() -> None:
    usual, everybodys_double = near("Ada", 0.6, cohort=0.2), near("Bob", 0.6, cohort=0.6)
    verdict = one(everybodys_double, usual)
    assert [candidate.neighbour.name for candidate in verdict.candidates] == ["Ada", "Bob"]
    assert verdict.candidates[0].score > verdict.candidates[1].score + 2


def test_a_cohort_that_is_not_known_yet_is_taken_to_be_the_probes() -> None:
    assert np.isfinite(one(near("Ada", 0.6, cohort=None)).best.score)


def test_a_single_face_that_is_very_alike_counts_for_a_person_who_looks_different_now() -> None:
    changed = near("Ada", 0.2, distance=0.1)
    assert one(changed).decision == "match"
    assert one(near("Ada", 0.2)).decision == "unknown"


def test_two_who_are_about_equally_alike_are_ambiguous() -> None:
    verdict = one(near("Ada", 0.8), near("Bob", 0.79))
    assert verdict.decision == "ambiguous"
    assert "Ada" in verdict.reasons[0]
    assert "Bob" in verdict.reasons[0]
    assert one(near("Ada", 0.8), near("Bob", 0.7)).decision == "match"


def test_a_poor_face_that_matches_nobody_is_not_called_unknown() -> None:
    verdict = one(near("Ada", 0.3), quality=0.2)
    assert verdict.decision == "low_quality"
    assert "blurred" in verdict.reasons[0]


def test_a_poor_face_that_matches_all_the_same_is_a_match() -> None:
    assert one(near("Ada", 0.9), quality=0.2).decision == "match"


def test_a_face_nearer_to_a_rejected_one_is_no_match() -> None:
    mine = near("Ada", 0.8)
    rejected = near("Ada", 0.8, rejected_distance=mine.distance - 0.01)
    verdict = one(rejected, near("Bob", 0.1))
    assert (verdict.decision, verdict.best.confidence <= 0.05) == ("unknown", True)
    assert verdict.best.threshold < mine.distance
    assert "was said not to be" in verdict.reasons[0]
    assert one(near("Ada", 0.8, rejected_distance=mine.distance + 0.01)).decision == "match"
    assert one(rejected, near("Bob", 0.75)).best.neighbour.name == "Bob"


def test_the_very_face_that_was_rejected_is_rejected() -> None:
    assert one(near("Ada", 1.0, distance=0.0, rejected_distance=0.0)).decision == "unknown"


def test_nobody_to_compare_with_is_said() -> None:
    verdict = one()
    assert (verdict.decision, verdict.best, verdict.margin) == ("unknown", None, None)
    assert "nobody in this collection" in verdict.reasons[0]


def test_every_flaw_that_vision_names_has_words() -> None:
    named = {value for name, value in vars(quality).items() if isinstance(value, str) and name == value}
    assert named == set(IN_WORDS)
    assert flaws(Quality(0.1, ("TOO_DARK", "FACE_TURNED"))) == "too dark and turned away"
    assert flaws(Quality(0.1)) == "hard to make out"


@pytest.mark.parametrize(
    ("own_threshold", "own_target", "decides"),
    [
        (None, None, (0.6, 0.01)),
        (0.5, None, (0.5, 0.01)),
        (None, 0.001, (None, 0.001)),
        (0.5, 0.001, (0.5, 0.001)),
    ],
)
def test_a_collection_that_says_anything_is_not_decided_by_the_usual_threshold(
    own_threshold: float | None, own_target: float | None, decides: tuple[float | None, float]
) -> None:
    assert in_force(own_threshold, own_target, 0.6, 0.01) == decides


# -- a fixed threshold --


@pytest.mark.parametrize(("distance", "decision"), [(0.59, "match"), (0.6, "match"), (0.61, "unknown")])
def test_a_fixed_threshold_decides_by_distance_alone(distance: float, decision: str) -> None:
    verdict = one(near("Ada", 0.9, distance=distance, cohort=0.9), threshold=0.6)
    assert (verdict.decision, verdict.best.threshold) == (decision, 0.6)
    assert (verdict.best.confidence >= 0.5) == (decision == "match")


def test_under_a_fixed_threshold_the_nearest_is_a_match_however_near_others_are() -> None:
    verdict = one(near("Ada", 0.9, distance=0.400), near("Bob", 0.9, distance=0.401), threshold=0.6)
    assert (verdict.decision, verdict.best.neighbour.name) == ("match", "Ada")


def test_the_nearest_comes_first_under_a_fixed_threshold() -> None:
    verdict = one(near("Far", 0.9, distance=0.5), near("Near", 0.1, distance=0.3), threshold=0.6)
    assert [candidate.neighbour.name for candidate in verdict.candidates] == ["Near", "Far"]


# -- several faces of one image --


def test_nobody_is_in_an_image_twice_when_that_is_asked_for() -> None:
    better, worse = face(), face()
    found = around([near("Ada", 0.9), near("Bob", 0.1)], [near("Ada", 0.8), near("Bob", 0.1)])
    rule = rule_for(None, 0.01, found)
    both = decide([better, worse], found, rule)
    assert [verdict.decision for verdict in both] == ["match", "match"]
    first, second = decide([better, worse], found, rule, unique=True)
    assert (first.decision, first.best.neighbour.name) == ("match", "Ada")
    assert (second.decision, second.best.neighbour.name) == ("unknown", "Bob")
    assert "Ada is in this image with another face" in second.reasons[0]


def test_people_go_to_faces_so_that_all_together_are_most_alike() -> None:
    """The first face is a little more like Ada; but only it can be Bob, and the second can only be Ada."""
    found = around([near("Ada", 0.80), near("Bob", 0.72)], [near("Ada", 0.79), near("Bob", 0.0)])
    verdicts = decide([face(), face()], found, rule_for(None, 0.01, found), unique=True)
    assert [verdict.best.neighbour.name for verdict in verdicts] == ["Bob", "Ada"]
    assert [verdict.decision for verdict in verdicts] == ["match", "match"]


def test_unique_changes_nothing_where_nobody_is_found_twice() -> None:
    found = around([near("Ada", 0.9)], [near("Bob", 0.9)], [], [near("Eve", 0.1)])
    probes = [face() for _ in range(4)]
    rule = rule_for(None, 0.01, found)
    assert decide(probes, found, rule, unique=True) == decide(probes, found, rule)


def test_a_rule_is_the_threshold_where_there_is_one() -> None:
    found = around(people=7)
    assert rule_for(0.5, 0.01, found) == FixedThreshold(0.5)
    assert rule_for(None, 0.02, found) == TargetRule(0.02, 7, 0.0)
    assert Candidate(near("Ada", 0.5), 0.0, 0.5).confidence == 0.5
