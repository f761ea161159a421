"""Embeddings in memory: who is nearest is as numpy says it, whoever came and went."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from recognizer import evidence
from recognizer.gallery import snapshot
from recognizer.gallery.snapshot import OpenPerson, Snapshot


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_FACES", 16)


def make(random: np.random.Generator, faces: int) -> OpenPerson:
    vectors = random.normal(0, 0.12, (faces, 128)).astype(np.float32)
    ids = tuple(sorted(str(uuid.UUID(bytes=random.bytes(16))) for _ in range(faces)))
    return OpenPerson(str(uuid.UUID(bytes=random.bytes(16))), evidence.template(vectors), ids, vectors)


def check(known: Snapshot, people: dict[str, OpenPerson], random: np.random.Generator) -> None:
    """That the snapshot holds these people, and finds those that a loop over all of them finds."""
    assert sorted(known.people) == sorted(people)
    assert known.count == len(people)
    probes = random.normal(0, 0.12, (3, 128)).astype(np.float32)
    if people:
        probes[0] = people[min(people)].faces[0]
    for probe, found in zip(probes, known.nearest(probes, 5, by_faces=True), strict=True):
        distances = {each.id: np.linalg.norm(each.faces - probe, axis=1) for each in people.values()}
        expected = sorted(people, key=lambda each: (distances[each].min(), each))[:5]
        assert [near.person_id for near in found] == expected
        for near in found:
            face = int(distances[near.person_id].argmin())
            assert near.face_id == people[near.person_id].face_ids[face]
            assert near.distance == pytest.approx(distances[near.person_id].min(), abs=1e-6)


def test_whoever_comes_and_goes_the_nearest_are_those_of_numpy() -> None:
    random = np.random.default_rng(5)
    people: dict[str, OpenPerson] = {}
    known = Snapshot()
    check(known, people, random)
    for _ in range(40):
        gone = {each for each in people if random.random() < 0.1}
        came = [make(random, int(random.choice([1, 2, 5, 40]))) for _ in range(int(random.integers(0, 6)))]
        again = [make(random, 3)._replace(id=each) for each in list(gone)[:1]]
        people = {each: person for each, person in people.items() if each not in gone}
        people |= {person.id: person for person in (*came, *again)}
        known = known.changed(gone, [*came, *again])
        check(known, people, random)


def test_by_templates_the_same_people_are_ordered_by_their_faces() -> None:
    random = np.random.default_rng(6)
    people = [make(random, 2) for _ in range(60)]
    probe = random.normal(0, 0.12, 128).astype(np.float32)
    direction = evidence.unit(probe).astype(np.float16).astype(np.float32)
    (found,) = Snapshot().changed(set(), people).nearest(probe[None], 7, by_faces=False)
    alike = sorted(people, key=lambda each: float(np.linalg.norm(each.template - direction)))[:7]
    nearest = sorted(alike, key=lambda each: float(np.linalg.norm(each.faces - probe, axis=1).min()))
    assert [near.person_id for near in found] == [each.id for each in nearest]
    assert [near.likeness for near in found] == pytest.approx([each.template @ direction for each in nearest], abs=1e-6)


def test_what_is_the_very_same_is_at_distance_0() -> None:
    random = np.random.default_rng(7)
    people = [make(random, 3) for _ in range(9)]
    known = Snapshot().changed(set(), people)
    for person in people:
        near = known.nearest(person.faces[1][None], 1, by_faces=True)[0][0]
        assert (near.person_id, near.face_id, near.distance) == (person.id, person.face_ids[1], 0.0)


def test_a_change_copies_little_of_the_rest() -> None:
    random = np.random.default_rng(8)
    known = Snapshot().changed(set(), [make(random, 4) for _ in range(200)])
    person_id = next(iter(known.people))
    later = known.changed({person_id}, [make(random, 4)])
    assert len(set(known.chunks) - set(later.chunks)) == 1
    assert known.count == later.count == 200
    assert person_id in known.people
    assert person_id not in later.people


def test_chunks_do_not_stay_small_for_ever() -> None:
    random = np.random.default_rng(9)
    known = Snapshot()
    for _ in range(200):
        known = known.changed(set(), [make(random, 1)])
    assert len(known.chunks) <= 200 / 8
