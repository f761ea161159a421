"""How much one embedding says about another: directions, templates, cohorts, and what strangers score."""

from __future__ import annotations

import numpy as np
import pytest

from recognizer import evidence
from recognizer.evidence import learned


def faces(count: int, seed: int = 0, around: np.ndarray | None = None, spread: float = 0.05) -> np.ndarray:
    """So many embeddings around one (default: the centre of all faces)."""
    middle = learned().centre if around is None else around
    return (middle + np.random.default_rng(seed).normal(0, spread, (count, 128))).astype(np.float32)


def test_the_constants_are_what_they_are_said_to_be() -> None:
    known = learned()
    assert known.centre.shape == (128,)
    assert known.imaginary.shape == (2000, 128)
    assert np.linalg.norm(known.imaginary, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(known.imaginary).all()
    assert (np.diff(known.people) > 0).all()
    assert (np.diff(known.rates) < 0).all()
    assert known.scores.shape == (len(known.people), len(known.rates))
    assert (np.diff(known.scores, axis=1) > 0).all(), "fewer strangers reach a higher score"


def test_an_embedding_at_the_centre_is_like_nobody() -> None:
    assert evidence.unit(learned().centre) == pytest.approx(np.zeros(128))
    assert evidence.radius(learned().centre) == 0


def test_a_template_of_one_face_is_its_direction() -> None:
    (face,) = faces(1)
    assert evidence.template(face[np.newaxis]) == pytest.approx(evidence.unit(face), abs=1e-6)


def test_a_wrong_photo_among_several_hardly_moves_the_template() -> None:
    person, other = faces(1, 1)[0], faces(1, 2)[0]
    right = faces(4, 3, person, 0.01)
    with_wrong = evidence.template(np.concatenate([right, other[np.newaxis]]))
    assert with_wrong @ evidence.template(right) > 0.99
    plain_mean = evidence.unit(np.concatenate([right, other[np.newaxis]])).mean(axis=0)
    assert with_wrong @ evidence.template(right) > plain_mean @ evidence.template(right) / np.linalg.norm(plain_mean)


def test_identical_faces_make_the_template_of_one() -> None:
    (face,) = faces(1)
    assert evidence.template(np.repeat(face[np.newaxis], 5, axis=0)) == pytest.approx(evidence.unit(face), abs=1e-6)


def slow_cohort(vector: np.ndarray, likenesses: np.ndarray, others: int) -> float:
    """The definition, member by member: everybody in tenths of a person, the most alike first."""
    size = min(50.0, 0.025 * (200 + others))
    tenths = np.concatenate([learned().imaginary @ vector, np.repeat(likenesses, 10)])
    alike = -np.sort(-tenths.astype(float))
    whole = int(size * 10)
    return float((alike[:whole].sum() + alike[whole] * (size * 10 - whole)) / (size * 10))


@pytest.mark.parametrize("people", [1, 2, 7, 60, 400])
def test_cohorts_are_what_their_definition_says(people: int) -> None:
    everybody = evidence.unit(faces(people + 1, people))
    probe, gallery = everybody[0], everybody[1:]
    likenesses = gallery @ probe
    assert evidence.cohort_likeness(probe, likenesses, people) == pytest.approx(
        slow_cohort(probe, likenesses, people), abs=1e-5
    )
    of_candidates = evidence.cohort_likenesses(probe, likenesses, people)
    for number in range(min(people, 20)):
        rest = np.delete(likenesses, number)
        assert of_candidates[number] == pytest.approx(slow_cohort(probe, rest, people - 1), abs=1e-5)


def test_the_cohort_of_a_large_gallery_is_of_real_people() -> None:
    probe = evidence.unit(faces(1)[0])
    near = np.linspace(0.9, 0.8, 51)  # all of them nearer than any imaginary person
    assert evidence.cohort_likeness(probe, near, 100_000) == pytest.approx(near[:50].mean())
    assert evidence.cohort_likenesses(probe, near, 100_000)[0] == pytest.approx(near[1:].mean())


def test_the_score_needed_grows_as_fewer_strangers_may_reach_it() -> None:
    for people in (1, 10, 1_000, 10**6):
        needed = [evidence.score_at(rate, people) for rate in (0.9, 0.25, 0.1, 0.01, 0.001, 0.00001)]
        assert needed == sorted(needed)
        assert len(set(needed)) == len(needed)


def test_the_score_needed_grows_with_the_gallery_until_its_own_people_are_the_cohort() -> None:
    needed = [evidence.score_at(0.01, people) for people in (1, 2, 5, 20, 100, 500, 1_000)]
    assert needed == sorted(needed)
    assert evidence.score_at(0.01, 10**6) == evidence.score_at(0.01, 100_000)


def test_people_who_are_more_alike_need_a_higher_score() -> None:
    assert evidence.score_at(0.01, 100, shift=0.05) == pytest.approx(evidence.score_at(0.01, 100) + 0.05)
