"""Enrolling: who it goes to, what is stored, what is refused, and what happens when many do it at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg2
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import (
    CollectionNotFound,
    Conflict,
    EnrolmentRefused,
    InvalidRequest,
    PersonNotFound,
)
from recognizer.faces import NewFace, Quality, Remark
from recognizer.gallery.store import Enrolment, Gallery, Idempotency

Sql = Callable[[str], list[tuple[Any, ...]]]
NewFaces = Callable[..., NewFace]


@pytest.fixture
def enrol(gallery: Gallery, new_face: NewFaces) -> Callable[..., Enrolment]:
    """Enrols one new face unless other faces are given."""

    def do(name: str | None = None, faces: list[NewFace] | None = None, **options: Any) -> Enrolment:
        collection = options.pop("collection", "default")
        faces = [new_face()] if faces is None else faces
        return gallery.enrol(collection, faces, name=name, deadline=Deadline(60), **options)

    return do


Enrol = Callable[..., Enrolment]


def rows(sql: Sql) -> dict[str, int]:
    return {
        table: sql(f"SELECT count(*) FROM {table}")[0][0]  # type: ignore[misc]
        for table in ("people", "faces", "idempotency_keys")
    }


def test_a_new_name_makes_a_person_with_its_faces(enrol: Enrol, gallery: Gallery, new_face: NewFaces) -> None:
    faces = [new_face(0), new_face(2)]
    done = enrol("Ada", faces, external_id="7", metadata={"role": "staff"}, refused=[Remark(1, "no_face", "None.")])
    assert (done.name, done.faces, done.revision) == ("Ada", 2, 1)
    assert [(face.index, face.box, face.quality) for face in done.enrolled] == [
        (face.index, face.box, face.quality) for face in faces
    ]
    assert done.refused == (Remark(1, "no_face", "None."),)
    person, stored = gallery.person(done.person_id, Deadline(60))
    assert (person.name, person.external_id, person.metadata) == ("Ada", "7", {"role": "staff"})
    assert {face.id for face in stored} == {face.face_id for face in done.enrolled}


def test_the_same_name_without_case_adds_to_the_person_and_the_first_spelling_stays(
    enrol: Enrol, gallery: Gallery
) -> None:
    first = enrol("Zoë  Strauß")
    again = enrol(" ZOE\u0308 STRAUSS ")
    assert again.person_id == first.person_id
    assert (again.name, again.faces, again.revision) == ("Zoë Strauß", 2, 2)


@pytest.mark.parametrize("name", ["李小龍", "Ольга", "محمد", "O'Brien; DROP TABLE people", "100 % \\ _", "👩‍🔬"])
def test_names_of_all_kinds_are_kept(enrol: Enrol, gallery: Gallery, name: str) -> None:
    assert gallery.person(enrol(name).person_id, Deadline(60))[0].name == name


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "nul\x00", "\ud800"])
def test_impossible_names_are_refused(enrol: Enrol, sql: Sql, name: str) -> None:
    with pytest.raises(InvalidRequest):
        enrol(name)
    assert rows(sql)["people"] == 0


def test_names_are_of_their_collection(enrol: Enrol, sql: Sql) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    here, there = enrol("Ada"), enrol("Ada", collection="VISITORS")
    assert here.person_id != there.person_id
    assert there.revision == 1
    with pytest.raises(PersonNotFound):
        enrol(person_id=here.person_id, collection="visitors")
    with pytest.raises(CollectionNotFound):
        enrol("Ada", collection="nowhere")


def test_a_person_id_adds_to_that_person(enrol: Enrol) -> None:
    first = enrol("Ada")
    assert enrol(person_id=first.person_id.upper()).person_id == first.person_id


@pytest.mark.parametrize("person_id", ["nobody", "", "00000000-0000-4000-8000-000000000000", "\x00"])
def test_an_unknown_person_id_is_not_found(enrol: Enrol, person_id: str) -> None:
    with pytest.raises(PersonNotFound):
        enrol(person_id=person_id)


def test_either_a_name_or_an_id(enrol: Enrol) -> None:
    for who in ({}, {"name": "Ada", "person_id": "x"}):
        with pytest.raises(InvalidRequest):
            enrol(**who)


def test_a_photo_that_the_person_has_is_a_duplicate(enrol: Enrol, new_face: NewFaces) -> None:
    enrol("Ada", [new_face(photo="a")])
    done = enrol("Ada", [new_face(0, photo="a"), new_face(1, photo="b"), new_face(2, photo="b")])
    assert [face.index for face in done.enrolled] == [1]
    assert [(refusal.index, refusal.code) for refusal in done.refused] == [
        (0, "duplicate_photo"),
        (2, "duplicate_photo"),
    ]
    assert done.faces == 2
    assert enrol("Grace", [new_face(photo="a")]).faces == 1, "another person may be in the same photo"


def test_when_nothing_is_stored_nothing_is_changed(enrol: Enrol, gallery: Gallery, new_face: NewFaces) -> None:
    ada = enrol("Ada", [new_face(photo="a")])
    with pytest.raises(EnrolmentRefused) as raised:
        enrol("Ada", [new_face(1, photo="a")], metadata={"new": 1}, refused=[Remark(0, "no_face", "None.")])
    assert [refusal.code for refusal in raised.value.refused] == ["no_face", "duplicate_photo"]
    assert gallery.person(ada.person_id, Deadline(60))[0].metadata == {}
    assert gallery.collection("default", Deadline(60)).revision == 1


def test_nobody_is_left_behind_when_a_new_name_gets_no_face(enrol: Enrol, sql: Sql) -> None:
    with pytest.raises(EnrolmentRefused):
        enrol("Ada", [], refused=[Remark(0, "no_face", "None.")])
    assert rows(sql)["people"] == 0


def test_an_error_in_the_middle_leaves_nothing_behind(enrol: Enrol, new_face: NewFaces, sql: Sql) -> None:
    bad = new_face(1, embedding=np.full(128, np.nan, np.float32))
    with pytest.raises(psycopg2.DataError):
        enrol("Ada", [new_face(0), bad], idempotency=Idempotency("key", b"request"))
    assert set(rows(sql).values()) == {0}
    assert sql("SELECT revision FROM collections") == [(0,)]


def test_metadata_is_replaced_when_given(enrol: Enrol, gallery: Gallery) -> None:
    ada = enrol("Ada", metadata={"a": 1, "b": "ü"})
    enrol("Ada")
    assert gallery.person(ada.person_id, Deadline(60))[0].metadata == {"a": 1, "b": "ü"}
    enrol("Ada", metadata={"c": [None, True]})
    assert gallery.person(ada.person_id, Deadline(60))[0].metadata == {"c": [None, True]}


@pytest.mark.parametrize("value", [float("nan"), "nul\x00", "\ud800", object(), {1, 2}])
def test_metadata_that_is_no_json_is_refused(enrol: Enrol, sql: Sql, value: object) -> None:
    with pytest.raises(InvalidRequest):
        enrol("Ada", metadata={"key": value})
    assert rows(sql)["people"] == 0


def test_an_external_id_belongs_to_one_person_and_stays(enrol: Enrol, gallery: Gallery) -> None:
    ada = enrol("Ada")
    enrol("Ada", external_id="7")
    assert enrol("Ada", external_id="7").faces == 3
    assert gallery.person(ada.person_id, Deadline(60))[0].external_id == "7"
    with pytest.raises(Conflict):
        enrol("Grace", external_id="7")
    with pytest.raises(Conflict):
        enrol("Ada", external_id="8")
    with pytest.raises(InvalidRequest):
        enrol("Ada", external_id="")


def test_numpy_numbers_are_stored_as_numbers(enrol: Enrol, gallery: Gallery, new_face: NewFaces) -> None:
    done = enrol("Ada", [new_face(quality=Quality(np.float32(0.5), ()))])
    assert gallery.person(done.person_id, Deadline(60))[1][0].quality == Quality(0.5, ())


def test_the_same_new_name_from_many_threads_is_one_person(enrol: Enrol, sql: Sql, new_face: NewFaces) -> None:
    faces = [new_face() for _ in range(24)]
    spellings = ["Ada", "ADA", "ada"]
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda n: enrol(spellings[n % 3], [faces[n]]), range(24)))
    assert len({enrolment.person_id for enrolment in done}) == 1
    assert sorted(enrolment.revision for enrolment in done) == list(range(1, 25))
    assert sorted(enrolment.faces for enrolment in done) == list(range(1, 25))
    assert rows(sql) == {"people": 1, "faces": 24, "idempotency_keys": 0}


def test_the_same_photo_from_many_threads_is_stored_once(enrol: Enrol, sql: Sql, new_face: NewFaces) -> None:
    face = new_face()

    def attempt(_: int) -> str:
        try:
            enrol("Ada", [face])
        except EnrolmentRefused as error:
            return error.refused[0].code
        return "stored"

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(attempt, range(8)))
    assert sorted(outcomes) == ["duplicate_photo"] * 7 + ["stored"]
    assert rows(sql)["faces"] == 1


# -- idempotency keys --


def test_the_same_key_and_request_gets_the_first_answer_again(
    enrol: Enrol, gallery: Gallery, sql: Sql, new_face: NewFaces
) -> None:
    key = Idempotency("key-1", b"digest of the request")
    assert gallery.earlier_answer("default", key, Deadline(60)) is None
    first = enrol("Ada", [new_face(1)], refused=[Remark(0, "no_face", "None.")], idempotency=key)
    enrol("Ada")
    assert enrol("Ada", [new_face(1)], idempotency=key) == first
    assert gallery.earlier_answer("Default", key, Deadline(60)) == first
    assert rows(sql)["faces"] == 2


def test_the_same_key_with_another_request_is_a_conflict(enrol: Enrol, gallery: Gallery) -> None:
    enrol("Ada", idempotency=Idempotency("key-1", b"one"))
    other = Idempotency("key-1", b"two")
    with pytest.raises(Conflict):
        enrol("Ada", idempotency=other)
    with pytest.raises(Conflict):
        gallery.earlier_answer("default", other, Deadline(60))
    assert enrol("Ada", idempotency=other._replace(key="key-2")).faces == 2


def test_the_same_key_from_many_threads_enrols_once(enrol: Enrol, sql: Sql, new_face: NewFaces) -> None:
    key = Idempotency("key-1", b"one")
    faces = [new_face() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda face: enrol("Ada", [face], idempotency=key), faces))
    assert len(set(map(dataclasses.astuple, done))) == 1
    assert rows(sql) == {"people": 1, "faces": 1, "idempotency_keys": 1}


def test_keys_are_forgotten_after_a_day(enrol: Enrol, gallery: Gallery, sql: Sql) -> None:
    key = Idempotency("key-1", b"one")
    enrol("Ada", idempotency=key)
    sql("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    assert gallery.earlier_answer("default", key, Deadline(60)) is None
    assert enrol("Ada", idempotency=key).faces == 2
    sql("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    enrol("Ada", idempotency=Idempotency("key-2", b"two"))
    assert rows(sql)["idempotency_keys"] == 1


def test_an_enrolment_that_was_refused_uses_no_key_up(enrol: Enrol, new_face: NewFaces) -> None:
    key = Idempotency("key-1", b"one")
    with pytest.raises(EnrolmentRefused):
        enrol("Ada", [], refused=[Remark(0, "no_face", "None.")], idempotency=key)
    assert enrol("Ada", idempotency=key).faces == 1
