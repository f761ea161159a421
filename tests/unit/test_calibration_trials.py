"""What the photos score as probes, against a slow computation that takes people out one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from enrolled import Crowd as Synthetic
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.calibration import trials as trials_module
from recognizer.calibration.cohorts import cohorts
from recognizer.calibration.people import crowd, sift
from recognizer.calibration.trials import Trials, hold
from recognizer.deadline import Deadline
from recognizer.errors import DeadlineExceeded
from recognizer.gallery.reading import EnrolledPerson

Embeddings = NDArray[np.float32]


def trials_of(people: Sequence[EnrolledPerson]) -> Trials:
    gathered = crowd(sift(people).people)
    return hold(gathered, cohorts(gathered.templates, Deadline(60)), Deadline(60))


def likeness(probe: Embeddings, faces: Embeddings) -> float:
    nearest = (evidence.unit(faces) @ probe).max() - evidence.NEAREST_DISCOUNT
    return float(max(evidence.template(faces) @ probe, nearest))


def directly(probe: Embeddings, gallery: list[Embeddings], stored: list[Embeddings]) -> NDArray[np.float64]:
    """Scores of one probe by the plain rule, (people,); `stored` are the faces that the others' cohorts know."""
    probe = evidence.unit(probe)
    templates = np.array([evidence.template(faces) for faces in gallery])
    known = np.array([evidence.template(faces) for faces in stored])
    of_probe = evidence.cohort_likenesses(probe, templates @ probe, len(gallery))
    of_people = [
        evidence.cohort_likeness(mine, np.delete(known @ mine, place), len(gallery) - 1)
        for place, mine in enumerate(templates)
    ]
    alike = np.array([likeness(probe, faces) for faces in gallery])
    return evidence.scores(alike, of_probe, np.array(of_people))


@pytest.mark.parametrize("count", [2, 3, 12, 70])
def test_scores_are_those_of_the_plain_rule(count: int) -> None:
    people = Synthetic(count).people(count, 3)
    people[1] = EnrolledPerson("one", "one", ("one",), people[1].embeddings[:1])
    found, face = trials_of(people), 0
    for place, person in enumerate(people):
        faces = [each.embeddings for each in people]
        for number, probe in enumerate(person.embeddings):
            if count > 20 and (place + number) % 7:  # a sample, for it is slow
                face += 1
                continue
            left = [each for other, each in enumerate(faces) if other != place]
            assert found.stranger[face] == pytest.approx(directly(probe, left, left).max(), abs=1e-5)
            if len(person.embeddings) > 1:
                without = [*faces]
                without[place] = np.delete(person.embeddings, number, axis=0)
                scores = directly(probe, without, faces)
                assert found.genuine[face] == pytest.approx(scores[place], abs=1e-5)
                scores[place] = -np.inf
                assert found.rival[face] == pytest.approx(scores.max(), abs=1e-5)
                assert scores[found.rival_person[face]] == pytest.approx(scores.max(), abs=1e-5)
            else:
                assert np.isnan([found.genuine[face], found.rival[face]]).all()
            face += 1
    assert face == len(found.owner)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    people = Synthetic().people(30, 3)
    whole = trials_of(people)
    monkeypatch.setattr("recognizer.calibration.cohorts.CHUNK_BYTES", 2000)
    parts = trials_of(people)
    np.testing.assert_allclose(parts.genuine, whole.genuine, atol=1e-6)
    np.testing.assert_allclose(parts.stranger, whole.stranger, atol=1e-6)
    np.testing.assert_allclose(parts.pairs, whole.pairs, atol=1e-6)


def test_each_photo_is_paired_with_every_other_person() -> None:
    assert len(trials_of(Synthetic().people(10, 3)).pairs) == 30 * 9


def test_of_very_many_photos_some_are_probes_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "MAX_PROBES", 10)
    people = Synthetic().people(20, 2)
    first, second = trials_of(people), trials_of(people)
    assert np.isfinite(first.genuine).sum() == np.isfinite(first.stranger).sum() == 10
    np.testing.assert_array_equal(first.genuine, second.genuine)


def test_one_person_has_genuine_scores_only() -> None:
    found = trials_of(Synthetic().people(1, 4))
    assert np.isfinite(found.genuine).all()
    assert found.right.all()
    assert np.isnan(found.rival).all()
    assert np.isnan(found.stranger).all()
    assert not len(found.pairs)


def test_two_people_with_one_photo_each_have_strangers_only() -> None:
    found = trials_of(Synthetic().people(2, 1))
    assert np.isnan(found.genuine).all()
    assert np.isfinite(found.stranger).all()


def test_what_is_not_finite_and_what_is_repeated_is_left_out() -> None:
    people = Synthetic().people(4, 4)
    people[0].embeddings[1, 5] = np.nan
    people[1].embeddings[2] = np.inf
    people[2].embeddings[:] = people[2].embeddings[0]
    people[2].embeddings[1, 0] += 5e-7
    people[3].embeddings[:] = np.nan
    sifted = sift(people)
    assert (sifted.not_finite, sifted.repeated) == (6, 3)
    kept = [person.face_ids for person in sifted.people]
    assert kept == [("p0-0", "p0-2", "p0-3"), ("p1-0", "p1-1", "p1-3"), ("p2-0",)]
    assert all(np.isfinite(person.embeddings).all() for person in sifted.people)


def test_a_passed_deadline_ends_the_trials() -> None:
    gathered = crowd(Synthetic().people(10, 2))
    prepared = cohorts(gathered.templates, Deadline(60))
    with pytest.raises(DeadlineExceeded):
        hold(gathered, prepared, Deadline(0))
    with pytest.raises(DeadlineExceeded):
        cohorts(gathered.templates, Deadline(0))


def test_progress_is_told_to_the_end() -> None:
    gathered = crowd(Synthetic().people(10, 2))
    told: list[tuple[int, int]] = []
    hold(gathered, cohorts(gathered.templates, Deadline(60)), Deadline(60), lambda *done: told.append(done))
    assert told[-1] == (20, 20)
