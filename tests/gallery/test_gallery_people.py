"""Listing, showing and erasing people."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Any

import pytest

from recognizer.deadline import Deadline
from recognizer.errors import (
    CollectionNotFound,
    Conflict,
    DeadlineExceeded,
    FaceNotFound,
    InvalidRequest,
    PersonNotFound,
    PreconditionFailed,
)
from recognizer.faces import Box, NewFace, Quality
from recognizer.gallery.people import ERASE
from recognizer.gallery.store import Gallery, Idempotency

EITHER_FORM = pytest.mark.usefixtures("either_form")

Sql = Callable[[str], list[tuple[Any, ...]]]
NewFaces = Callable[..., NewFace]


@pytest.fixture
def add(gallery: Gallery, new_face: NewFaces) -> Callable[..., str]:
    """Enrols a name with one face; returns the person's id."""
    return lambda name, **options: (
        gallery.enrol(
            options.pop("collection", "default"), [new_face()], name=name, deadline=Deadline(60), **options
        ).person_id
    )


Add = Callable[..., str]


def names(gallery: Gallery, **options: Any) -> list[str]:
    people, _ = gallery.people("default", deadline=Deadline(60), **options)
    return [person.name for person in people]


def test_the_default_collection_is_there(gallery: Gallery, deadline: Deadline) -> None:
    found = gallery.collection("DEFAULT", deadline)
    assert (found.name, found.threshold, found.revision) == ("default", None, 0)
    with pytest.raises(CollectionNotFound):
        gallery.collection("nowhere", deadline)


def test_a_collection_has_its_own_threshold(gallery: Gallery, sql: Sql, deadline: Deadline) -> None:
    sql("INSERT INTO collections (name, name_key, threshold) VALUES ('Strict', 'strict', 0.45)")
    assert gallery.collection("strict", deadline).threshold == 0.45


def test_people_come_by_name_with_the_number_of_their_faces(
    gallery: Gallery, add: Add, new_face: NewFaces, deadline: Deadline
) -> None:
    for name in ("grace", "Ada", "ada", "Émile"):
        add(name)
    people, cursor = gallery.people("default", deadline=deadline)
    assert [(person.name, person.faces) for person in people] == [("Ada", 2), ("grace", 1), ("Émile", 1)]
    assert cursor is None
    assert people[0].collection == "default"
    assert people[0].created_at.tzinfo is not None
    assert people[0].created_at.utcoffset() == UTC.utcoffset(None)


def test_pages_follow_on_one_another_whatever_changes_meanwhile(gallery: Gallery, add: Add, deadline: Deadline) -> None:
    ids = {name: add(name) for name in (f"person {number:02}" for number in range(10))}
    seen, cursor = gallery.people("default", limit=4, deadline=deadline)
    assert cursor is not None
    gallery.delete_person(ids["person 03"], deadline)  # the very one the cursor stands on
    add("person 00a")  # before the cursor
    add("person 05a")  # after it
    while cursor is not None:
        page, cursor = gallery.people("default", limit=4, cursor=cursor, deadline=deadline)
        seen += page
    assert [person.name for person in seen] == sorted([*ids, "person 05a"])


def test_an_exact_last_page_has_no_next(gallery: Gallery, add: Add, deadline: Deadline) -> None:
    for name in "abcd":
        add(name)
    first, cursor = gallery.people("default", limit=2, deadline=deadline)
    second, end = gallery.people("default", limit=2, cursor=cursor, deadline=deadline)
    assert [person.name for person in first + second] == list("abcd")
    assert end is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("ADA", ["50% Ada_x", "Ada Lovelace"]),
        ("a", ["50% Ada_x", "Ada Lovelace", "back\\slash", "ÉMILE ZOLA"]),
        ("émile", ["ÉMILE ZOLA"]),
        ("E\u0301mile", ["ÉMILE ZOLA"]),
        ("%", ["50% Ada_x"]),
        ("_", ["50% Ada_x"]),
        ("\\", ["back\\slash"]),
        ("a_a", []),
        ("' OR '1'='1", []),
    ],
)
def test_a_query_finds_what_contains_it_literally(gallery: Gallery, add: Add, query: str, found: list[str]) -> None:
    for name in ("Ada Lovelace", "50% Ada_x", "back\\slash", "ÉMILE ZOLA"):
        add(name)
    assert names(gallery, query=query) == found


@pytest.mark.parametrize("cursor", ["?", "%%%", "a", "gICA", "AA==", "ü"])
def test_a_cursor_of_somebody_elses_is_refused(gallery: Gallery, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        names(gallery, cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_impossible_limits_are_refused(gallery: Gallery, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        names(gallery, limit=limit)


def test_people_of_an_unknown_collection_are_not_found(gallery: Gallery, deadline: Deadline) -> None:
    with pytest.raises(CollectionNotFound):
        gallery.people("nowhere", deadline=deadline)


def test_a_person_is_shown_with_the_faces(gallery: Gallery, add: Add, new_face: NewFaces, deadline: Deadline) -> None:
    person_id = add("Ada", external_id="7", metadata={"x": 1})
    person, faces = gallery.person(person_id.upper(), deadline)
    assert (person.id, person.name, person.external_id, person.metadata) == (person_id, "Ada", "7", {"x": 1})
    assert person.faces == len(faces) == 1
    assert faces[0].box == Box(1, 2, 30, 40)
    assert faces[0].quality == Quality(0.75, ("LOW_SHARPNESS",))
    assert faces[0].model_id == "model-1"


@pytest.mark.parametrize("person_id", ["nobody", "", "00000000-0000-4000-8000-000000000000", "1; DROP TABLE people"])
def test_unknown_and_malformed_ids_are_not_found(gallery: Gallery, deadline: Deadline, person_id: str) -> None:
    with pytest.raises(PersonNotFound):
        gallery.person(person_id, deadline)
    with pytest.raises(PersonNotFound):
        gallery.delete_person(person_id, deadline)


def test_a_key_to_one_collection_does_not_see_the_people_of_another(
    gallery: Gallery, add: Add, sql: Sql, deadline: Deadline
) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    person_id = add("Ada")
    assert gallery.person(person_id, deadline, collection="Default")[0].name == "Ada"
    with pytest.raises(PersonNotFound):
        gallery.person(person_id, deadline, collection="visitors")
    with pytest.raises(PersonNotFound):
        gallery.delete_person(person_id, deadline, collection="visitors")
    assert sql("SELECT count(*) FROM faces") == [(1,)]


def test_erasing_leaves_nothing_and_says_what_went(gallery: Gallery, add: Add, sql: Sql, deadline: Deadline) -> None:
    person_id = add("Ada", idempotency=Idempotency("key", b"request"))
    add("Ada")
    add("Grace")
    receipt = gallery.delete_person(person_id, deadline)
    assert receipt.deleted == {
        "people": 1,
        "faces": 2,
        "photos": 0,
        "templates": 1,
        "rejections": 0,
        "idempotency_keys": 1,
    }
    assert (receipt.person_id, receipt.left, receipt.revision) == (person_id, 0, 4)
    assert sql("SELECT name FROM people") == [("Grace",)]
    assert sql("SELECT count(*) FROM faces") == [(1,)]
    with pytest.raises(PersonNotFound):
        gallery.delete_person(person_id, deadline)
    assert add("Ada") != person_id, "the name is free again"


def test_erasing_reaches_every_table_that_refers_to_people(gallery: Gallery, sql: Sql) -> None:
    referring = sql(
        "SELECT DISTINCT conrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND confrelid = 'people'::regclass"
    )
    assert {table for (table,) in referring} | {"people"} == set(ERASE)


def test_erasing_and_enrolling_at_once_never_fails_halfway(gallery: Gallery, new_face: NewFaces, sql: Sql) -> None:
    faces = [new_face() for _ in range(20)]

    def enrol(face: NewFace) -> None:
        gallery.enrol("default", [face], name="Ada", deadline=Deadline(60))

    def erase(_: object) -> None:
        people, _ = gallery.people("default", deadline=Deadline(60))
        for person in people:
            with contextlib.suppress(PersonNotFound):
                gallery.delete_person(person.id, Deadline(60))

    with ThreadPoolExecutor(6) as threads:
        jobs = [threads.submit(job, face) for face in faces for job in (enrol, erase)]
        for job in jobs:
            job.result(60)
    erase(None)
    assert sql("SELECT count(*) FROM people") == sql("SELECT count(*) FROM faces") == [(0,)]


def test_a_change_is_what_was_given_and_nothing_else(gallery: Gallery, add: Add, deadline: Deadline) -> None:
    person_id = add("Ada", external_id="7", metadata={"x": 1})
    renamed, revision = gallery.change_person(person_id.upper(), {"name": " ADA  Lovelace"}, deadline)
    assert revision == 2 == gallery.collection("default", deadline).revision
    assert (renamed.person.name, renamed.person.external_id, renamed.person.metadata) == ("ADA Lovelace", "7", {"x": 1})
    changed, _ = gallery.change_person(person_id, {"external_id": None, "metadata": {"y": ["ü"]}}, deadline)
    assert changed == gallery.person(person_id, deadline)
    assert (changed.person.name, changed.person.external_id, changed.person.metadata) == (
        "ADA Lovelace",
        None,
        {"y": ["ü"]},
    )
    assert gallery.change_person(person_id, {"metadata": None}, deadline)[0].person.metadata == {}
    assert add("ada lovelace") == person_id
    assert add("Ada") != person_id, "the former name is free"


def test_a_name_may_change_its_spelling(gallery: Gallery, add: Add, deadline: Deadline) -> None:
    person_id = add("ada", external_id="7")
    changed, _ = gallery.change_person(person_id, {"name": "Ada", "external_id": "7"}, deadline)
    assert (changed.person.name, changed.person.external_id) == ("Ada", "7")


@pytest.mark.parametrize(
    "values", [{"name": "GRACE", "metadata": {"new": 1}}, {"external_id": "8", "name": "New"}, {"external_id": " 8 "}]
)
def test_what_is_another_persons_is_refused_and_changes_nothing(
    gallery: Gallery, add: Add, sql: Sql, deadline: Deadline, values: dict[str, Any]
) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    person_id = add("Ada", external_id="7", metadata={"old": 1})
    add("Grace", external_id="8")
    before = gallery.person(person_id, deadline), gallery.collection("default", deadline)
    with pytest.raises(Conflict):
        gallery.change_person(person_id, values, deadline)
    assert (gallery.person(person_id, deadline), gallery.collection("default", deadline)) == before
    elsewhere = add("Ada", collection="visitors")
    gallery.change_person(elsewhere, values, deadline)  # in another collection they are free


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": None},
        {"name": ""},
        {"name": " "},
        {"name": "x" * 201},
        {"name": "a\u0000b"},
        {"external_id": ""},
        {"external_id": "x" * 201},
        {"metadata": {"x": float("nan")}},
        {"metadata": {"x": "\u0000"}},
        {"metadata": {"x": "\ud800"}},
        {"metadata": "text"},
        {"collection_id": 2},
        {"name": "New", "id": "x"},
    ],
)
def test_impossible_changes_of_a_person_are_refused(
    gallery: Gallery, add: Add, deadline: Deadline, values: dict[str, Any]
) -> None:
    person_id = add("Ada", external_id="7", metadata={"old": 1})
    before = gallery.person(person_id, deadline)
    with pytest.raises(InvalidRequest):
        gallery.change_person(person_id, values, deadline)
    assert gallery.person(person_id, deadline) == before


def test_of_two_who_want_the_same_name_one_gets_it(gallery: Gallery, add: Add, sql: Sql) -> None:
    ids = [add(name) for name in ("a", "b", "c", "d")]

    def rename(person_id: str) -> str:
        try:
            return gallery.change_person(person_id, {"name": "Ada", "external_id": "7"}, Deadline(60))[0].person.name
        except Conflict as error:
            return error.code

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(rename, ids)) == ["Ada", "conflict", "conflict", "conflict"]
    assert sql("SELECT count(*) FROM people WHERE name = 'Ada' AND external_id = '7'") == [(1,)]
    assert sql("SELECT count(*) FROM people WHERE name = 'Ada' OR external_id IS NOT NULL") == [(1,)]


def test_a_version_is_of_what_is_shown(gallery: Gallery, add: Add, deadline: Deadline) -> None:
    person_id = add("Ada", metadata={"a": 1})
    versions = [gallery.person(person_id, deadline).version]

    def seen() -> str:
        return gallery.person(person_id, deadline).version

    add("Grace")  # of which Ada knows nothing
    assert seen() == versions[0]
    gallery.change_person(person_id, {"metadata": {"a": 2}}, deadline)
    versions.append(seen())
    add("Ada")
    versions.append(seen())
    gallery.remove_face(person_id, gallery.person(person_id, deadline).faces[0].id, deadline)
    versions.append(seen())
    assert len(set(versions)) == 4


def test_what_was_not_seen_is_not_changed(gallery: Gallery, add: Add, deadline: Deadline) -> None:
    person_id = add("Ada")
    read = gallery.person(person_id, deadline)
    other = add("Grace")
    gallery.change_person(person_id, {"name": "Ada B"}, deadline, only_if=read.version.__eq__)
    face = read.faces[0].id
    for change in (
        lambda: gallery.change_person(person_id, {"name": "Ada C"}, deadline, only_if=read.version.__eq__),
        lambda: gallery.remove_face(person_id, face, deadline, only_if=read.version.__eq__),
        lambda: gallery.merge_people(person_id, other, deadline, only_if=read.version.__eq__),
        lambda: gallery.delete_person(person_id, deadline, only_if=read.version.__eq__),
    ):
        with pytest.raises(PreconditionFailed):
            change()
    assert gallery.person(person_id, deadline).person.name == "Ada B"
    assert gallery.collection("default", deadline).revision == 3
    assert gallery.delete_person(person_id, deadline, only_if=lambda version: True).left == 0


@EITHER_FORM
def test_a_removed_face_is_found_no_more(gallery: Gallery, add: Add, new_face: NewFaces, sql: Sql) -> None:
    wrong, right = new_face(), new_face()
    deadline = Deadline(60)
    done = gallery.enrol("default", [wrong, right], name="Ada", deadline=deadline)
    add("Grace")
    details, revision = gallery.remove_face(done.person_id, done.enrolled[0].face_id.upper(), deadline)
    assert revision == 3
    assert [face.id for face in details.faces] == [done.enrolled[1].face_id]
    assert details.person.faces == 1
    near = gallery.nearest("default", [wrong.embedding, right.embedding], "model-1", 1, deadline).of_probes
    ((of_wrong,), (of_right,)) = ([each for each in probe if each.name == "Ada"] for probe in near)
    assert of_right.distance == pytest.approx(0, abs=1e-4)
    assert of_right.likeness > 0.99, "the template is of that face alone"
    assert of_wrong.distance > 0.5
    assert sql("SELECT people, faces FROM spaces") == [(2, 2)]
    with pytest.raises(FaceNotFound):
        gallery.remove_face(done.person_id, done.enrolled[0].face_id, deadline)
    gallery.enrol("default", [wrong], person_id=done.person_id, deadline=deadline)  # its photo is no duplicate now


@EITHER_FORM
def test_without_the_last_face_the_person_stays(gallery: Gallery, add: Add, sql: Sql, deadline: Deadline) -> None:
    person_id = add("Ada", external_id="7")
    details, _ = gallery.remove_face(person_id, gallery.person(person_id, deadline).faces[0].id, deadline)
    assert (details.person.faces, details.faces) == (0, ())
    assert names(gallery) == ["Ada"]
    assert sql("SELECT people, faces FROM spaces") == [(0, 0)]
    assert sql("SELECT count(*) FROM templates") == sql("SELECT count(*) FROM cohorts") == [(0,)]
    assert gallery.stale_cohorts(deadline) == 0
    assert add("Ada") == person_id
    assert sql("SELECT people, faces FROM spaces") == [(1, 1)]


def test_only_faces_of_that_person_are_removed(gallery: Gallery, add: Add, sql: Sql, deadline: Deadline) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    ada, grace = add("Ada"), add("Grace")
    hers = gallery.person(grace, deadline).faces[0].id
    for face_id in (hers, "nothing", "", "1; DROP TABLE faces", "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(FaceNotFound):
            gallery.remove_face(ada, face_id, deadline)
    with pytest.raises(PersonNotFound):
        gallery.remove_face(grace, hers, deadline, collection="visitors")
    assert sql("SELECT count(*) FROM faces") == [(2,)]
    assert gallery.collection("default", deadline).revision == 2


def test_every_method_keeps_the_deadline(gallery: Gallery, new_face: NewFaces) -> None:
    late = Deadline(0)
    nobody = "00000000-0000-4000-8000-000000000000"
    for call in (
        lambda: gallery.collection("default", late),
        lambda: gallery.nearest("default", [], "model-1", 1, late),
        lambda: gallery.enrol("default", [new_face()], name="Ada", deadline=late),
        lambda: gallery.earlier_answer("default", Idempotency("key", b""), late),
        lambda: gallery.people("default", deadline=late),
        lambda: gallery.person(nobody, late),
        lambda: gallery.delete_person(nobody, late),
        lambda: gallery.change_person(nobody, {"name": "Ada"}, late),
        lambda: gallery.merge_people(nobody, nobody, late),
        lambda: gallery.remove_face(nobody, nobody, late),
        lambda: gallery.create_collection("Visitors", {}, late),
        lambda: gallery.delete_collection("default", late),
        lambda: gallery.reject(nobody, new_face().embedding, "model-1", "local", late),
        lambda: gallery.rejections(nobody, late),
        lambda: gallery.undo_rejection(nobody, nobody, late),
        lambda: gallery.collections(late),
        lambda: gallery.collection_overview("default", late),
        lambda: gallery.change_collection("default", {"threshold": 0.5}, late),
    ):
        with pytest.raises(DeadlineExceeded):
            call()
