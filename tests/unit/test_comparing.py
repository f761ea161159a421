"""Comparing one to one, on embeddings that are made for it."""

from __future__ import annotations

import numpy as np
import pytest

from recognizer import evidence
from recognizer.comparing import compare
from recognizer.decisions import FixedThreshold, TargetRule

RULE = TargetRule(0.01, people=1, shift=0.0)


@pytest.fixture
def people() -> evidence.Vector:
    """Three photos each of 40 imaginary people, (40, 3, 128)."""
    random = np.random.default_rng(7)
    known = evidence.learned()
    chosen = known.imaginary[random.choice(len(known.imaginary), 40, replace=False)]
    photos = chosen[:, None] * 0.5 + random.normal(0, 0.02, (40, 3, 128)).astype(np.float32)
    return (photos + known.centre).astype(np.float32)


def test_the_order_of_two_faces_means_nothing(people: evidence.Vector) -> None:
    for one, other in ((people[0, 0], people[0, 1]), (people[0, 0], people[1, 0])):
        there, back = compare(one, other[None], RULE), compare(other, one[None], RULE)
        assert there.score == pytest.approx(back.score, abs=1e-4)
        assert there.threshold == pytest.approx(back.threshold, abs=1e-4)


def test_photos_of_one_person_are_the_same_and_others_hardly_ever(people: evidence.Vector) -> None:
    same = [compare(person[0], person[1:2], RULE).score >= 0 for person in people]
    others = [compare(people[a, 0], people[b, :1], RULE).score >= 0 for a in range(len(people)) for b in range(a)]
    assert np.mean(same) > 0.95
    assert np.mean(others) < 0.03


def test_all_photos_of_a_person_say_more_than_one(people: evidence.Vector) -> None:
    one = [compare(person[0], person[1:2], RULE).score for person in people]
    both = [compare(person[0], person[1:], RULE).score for person in people]
    assert np.mean(both) > np.mean(one)


def test_a_stricter_target_calls_fewer_the_same(people: evidence.Vector) -> None:
    strict = TargetRule(0.0001, people=1, shift=0.0)
    usual, less = (compare(people[0, 0], people[0, 1:], rule) for rule in (RULE, strict))
    assert less.score < usual.score
    assert less.threshold < usual.threshold


def test_a_threshold_is_the_distance_to_the_nearest_photo(people: evidence.Vector) -> None:
    distances = np.linalg.norm(people[0, 1:] - people[0, 0], axis=1)
    nearest = int(distances.argmin())
    for threshold, same in ((distances.min() + 0.001, True), (distances.min() - 0.001, False)):
        found = compare(people[0, 0], people[0, 1:], FixedThreshold(float(threshold)), None, ("a", "b"))
        assert (found.score >= 0) is same
        assert found.neighbour.face_id == "ab"[nearest]
        assert found.neighbour.distance == pytest.approx(distances.min())


def test_what_was_rejected_is_not_the_person(people: evidence.Vector) -> None:
    probe, enrolled = people[0, 0], people[0, 1:]
    for rule in (RULE, FixedThreshold(1.9)):
        assert compare(probe, enrolled, rule).score > 0
        assert compare(probe, enrolled, rule, probe[None]).score < 0
        assert compare(probe, enrolled, rule, people[1]).score > 0, "a rejected face that is farther means nothing"
