"""Reading all of a collection: what is in the space asked for, by person, at most so much, always the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound, GalleryBehind, PersonNotFound
from recognizer.faces import NewFace
from recognizer.gallery import reading
from recognizer.gallery.pool import Pool
from recognizer.gallery.reading import EnrolledPeople, ReadingLimits
from recognizer.gallery.store import Gallery

EITHER_FORM = pytest.mark.usefixtures("either_form")

MakeFace = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[object, ...]]]


@pytest.fixture
def enrol(gallery: Gallery, new_face: MakeFace) -> Callable[..., list[NewFace]]:
    """Enrols a person with so many photos."""

    def enrol(name: str, photos: int, model_id: str = "space/1crop") -> list[NewFace]:
        faces = [new_face(index, model_id=model_id) for index in range(photos)]
        gallery.enrol("default", faces, name=name, deadline=Deadline(60))
        return faces

    return enrol


def faces_read(found: EnrolledPeople) -> dict[str, int]:
    return {person.name: len(person.face_ids) for person in found.people}


@EITHER_FORM
def test_the_faces_of_each_person_are_read_in_the_order_of_their_ids(
    gallery: Gallery, deadline: Deadline, enrol: Callable[..., list[NewFace]]
) -> None:
    sent = {name: enrol(name, photos) for name, photos in (("Ada", 3), ("Bob", 1), ("Cleo", 2))}
    found = gallery.embeddings("DEFAULT", "space/1crop", deadline)
    assert (found.collection, found.revision, found.people_enrolled, found.faces_enrolled) == ("default", 3, 3, 6)
    assert (found.threshold, found.target_fpir, found.faces_elsewhere) == (None, None, 0)
    assert faces_read(found) == {"Ada": 3, "Bob": 1, "Cleo": 2}
    for person in found.people:
        assert person.embeddings.dtype == np.float32
        assert person.embeddings.shape == (len(person.face_ids), 128)
        expected = {face.embedding.tobytes() for face in sent[person.name]}
        assert {row.tobytes() for row in person.embeddings} == expected
        _, stored = gallery.person(person.id, deadline)
        assert {face.id for face in stored} == set(person.face_ids)


@EITHER_FORM
def test_faces_of_other_spaces_are_counted_only(
    gallery: Gallery, deadline: Deadline, enrol: Callable[..., list[NewFace]]
) -> None:
    enrol("Ada", 2)
    enrol("Ada", 1, "space/6crop-cnn")
    enrol("Ada", 1, "other/1crop")
    enrol("Bob", 2, "other/1crop")
    found = gallery.embeddings("default", "space/1crop", deadline)
    assert faces_read(found) == {"Ada": 3}
    assert (found.people_enrolled, found.faces_enrolled, found.faces_elsewhere) == (1, 3, 3)


def test_what_the_collection_says_about_its_rule_is_read(
    gallery: Gallery, deadline: Deadline, enrol: Callable[..., list[NewFace]], sql: Sql
) -> None:
    enrol("Ada", 1)
    sql("INSERT INTO collections (name, name_key, target_fpir, threshold) VALUES ('Door', 'door', 0.001, 0.5)")
    sql("UPDATE spaces SET shift = 0.03 RETURNING 1")
    assert gallery.embeddings("default", "space/1crop", deadline).shift == 0.03
    found = gallery.embeddings("door", "space/1crop", deadline)
    assert (found.collection, found.target_fpir, found.threshold) == ("Door", 0.001, 0.5)
    assert (found.people, found.people_enrolled, found.faces_enrolled, found.shift) == ((), 0, 0, 0)


def test_of_very_many_a_sample_is_read_and_always_the_same(
    pool: Pool, deadline: Deadline, enrol: Callable[..., list[NewFace]]
) -> None:
    for number in range(8):
        enrol(f"p{number}", 3)
    enrol("many", 20)

    def read(**limits: int) -> EnrolledPeople:
        return reading.embeddings(pool, "default", "space/1crop", deadline, ReadingLimits(**limits))

    few = read(people=4)
    assert len(few.people) == 4
    assert (few.people_enrolled, few.faces_enrolled) == (9, 44)
    assert faces_read(few) == faces_read(read(people=4))
    assert faces_read(read(faces_per_person=5))["many"] == 5
    scarce = read(faces=9 * 2)
    assert set(faces_read(scarce).values()) == {2}, "the one with many photos loses some before anybody loses all"
    assert [person.face_ids for person in scarce.people] == [person.face_ids for person in read(faces=9 * 2).people]


def test_an_unknown_collection_is_not_found(gallery: Gallery, deadline: Deadline) -> None:
    with pytest.raises(CollectionNotFound):
        gallery.embeddings("nope", "space/1crop", deadline)


@EITHER_FORM
def test_one_persons_faces_are_those_of_the_space_newest_first_with_what_was_rejected(
    gallery: Gallery, deadline: Deadline, enrol: Callable[..., list[NewFace]], new_face: MakeFace, sql: Sql
) -> None:
    older = enrol("Ada", 1)
    newer = enrol("Ada", 1, "space/6crop")
    enrol("Ada", 2, "other/1crop")
    enrol("Bob", 1)
    (person_id,) = (person.id for person in gallery.people("default", query="Ada", deadline=deadline)[0])
    not_hers, elsewhere = new_face().embedding, new_face().embedding
    gallery.reject(person_id, not_hers, "space/1crop", "local", deadline)
    _, revision = gallery.reject(person_id, elsewhere, "other/1crop", "local", deadline)
    found = gallery.person_faces(person_id.upper(), "space/1crop", deadline, collection="Default")
    assert (found.person.id, found.person.name) == (person_id, "Ada")
    assert (found.collection.name, found.collection.revision) == ("default", revision)
    assert [row.tobytes() for row in found.embeddings] == [face.embedding.tobytes() for face in newer + older]
    stored = {face.id for face in gallery.person(person_id, deadline).faces}
    assert len(set(found.face_ids) & stored) == 2
    assert np.array_equal(found.rejected, not_hers[None])
    nothing = gallery.person_faces(person_id, "third/1crop", deadline)
    assert (nothing.embeddings.shape, nothing.rejected.shape, nothing.face_ids) == ((0, 128), (0, 128), ())


def test_one_persons_faces_are_not_read_for_others_or_from_an_older_state(
    gallery: Gallery, deadline: Deadline, enrol: Callable[..., list[NewFace]]
) -> None:
    enrol("Ada", 1)
    ((ada,), _) = gallery.people("default", deadline=deadline)
    with pytest.raises(PersonNotFound):
        gallery.person_faces(ada.id, "space/1crop", deadline, collection="another")
    with pytest.raises(GalleryBehind):
        gallery.person_faces(ada.id, "space/1crop", deadline, min_revision=2)
