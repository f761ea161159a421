"""Collections: how much they hold and what is set for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Any

import pytest

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound, Conflict, InvalidRequest, PreconditionFailed
from recognizer.faces import NewFace
from recognizer.gallery.collections import ERASE
from recognizer.gallery.keys import Keys
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery, Idempotency

Sql = Callable[[str], list[tuple[Any, ...]]]
NewFaces = Callable[..., NewFace]
OpenPool = Callable[..., Pool]


@pytest.fixture
def visitors(gallery: Gallery, sql: Sql, new_face: NewFaces) -> None:
    """A second collection with two people and three faces."""
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    for name in ("Ada", "Grace", "Ada"):
        gallery.enrol("visitors", [new_face()], name=name, deadline=Deadline(60))


@pytest.mark.usefixtures("visitors")
def test_collections_come_by_name_with_how_much_they_hold(gallery: Gallery, deadline: Deadline) -> None:
    found = gallery.collections(deadline)
    assert [(each.collection.name, each.people, each.faces) for each in found] == [
        ("default", 0, 0),
        ("Visitors", 2, 3),
    ]
    assert [each.collection.revision for each in found] == [0, 3]
    assert found[0].created_at.utcoffset() == UTC.utcoffset(None)
    assert gallery.collections(deadline, only="VISITORS") == found[1:]
    assert gallery.collection_overview("visitors", deadline) == found[1]


@pytest.mark.usefixtures("visitors")
def test_a_large_collection_has_the_time_of_its_request_to_be_erased(open_pool: OpenPool, sql: Sql) -> None:
    sql("CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.8); RETURN OLD; END'")
    sql("CREATE TRIGGER rest BEFORE DELETE ON people FOR EACH ROW EXECUTE FUNCTION rest()")
    try:
        erased = Gallery(open_pool(statement_timeout_seconds=0.2)).delete_collection("visitors", Deadline(30))
    finally:
        sql("DROP FUNCTION rest CASCADE")
    assert (erased.deleted["people"], erased.left) == (2, 0)


@pytest.mark.usefixtures("visitors")
def test_what_is_set_holds_for_that_collection_until_it_is_taken_back(gallery: Gallery, deadline: Deadline) -> None:
    changed = gallery.change_collection("VISITORS", {"target_fpir": 0.001, "threshold": 0.45}, deadline)
    assert (changed.collection.target_fpir, changed.collection.threshold) == (0.001, 0.45)
    assert gallery.collection("visitors", deadline) == changed.collection
    gallery.change_collection("visitors", {"threshold": None}, deadline)
    kept = gallery.collection("visitors", deadline)
    assert (kept.target_fpir, kept.threshold) == (0.001, None), "what is not named stays"
    assert gallery.collection("default", deadline).target_fpir is None
    assert kept.revision == 3, "the people are the same"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"revision": 7},
        {"threshold": 0.5, "name; DROP TABLE people": 1},
        {"threshold": 0},
        {"threshold": 2},
        {"threshold": math.nan},
        {"threshold": True},
        {"target_fpir": 0.0},
        {"target_fpir": 1},
        {"target_fpir": -math.inf},
        {"threshold": 0.5, "target_fpir": math.inf},
        {"keep_photos": None},
        {"keep_photos": 1},
        {"retention_days": 0},
        {"retention_days": 1.5},
        {"retention_days": True},
        {"retention_days": 36_501},
    ],
)
def test_impossible_changes_are_refused_and_nothing_is_changed(
    gallery: Gallery, deadline: Deadline, values: dict[str, float | None]
) -> None:
    before = gallery.collection("default", deadline)
    with pytest.raises(InvalidRequest):
        gallery.change_collection("default", values, deadline)
    assert gallery.collection("default", deadline) == before


def test_what_a_collection_keeps_is_set_like_its_rule(gallery: Gallery, deadline: Deadline) -> None:
    made = gallery.create_collection("Guests", {"retention_days": 30}, deadline)
    assert (made.collection.keep_photos, made.collection.retention_days) == (False, 30)
    changed = gallery.change_collection("guests", {"keep_photos": True, "retention_days": None}, deadline)
    assert (changed.collection.keep_photos, changed.collection.retention_days) == (True, None)
    assert changed.version.partition(".")[0] != made.version.partition(".")[0], "the ETag of the settings is another"
    assert gallery.collection("guests", deadline) == changed.collection


def test_an_unknown_collection_is_not_found(gallery: Gallery, deadline: Deadline) -> None:
    with pytest.raises(CollectionNotFound):
        gallery.collection_overview("nowhere", deadline)
    with pytest.raises(CollectionNotFound):
        gallery.change_collection("nowhere", {"threshold": 0.5}, deadline)
    assert gallery.collections(deadline, only="nowhere") == []


def test_a_new_collection_is_empty_and_has_what_was_given(gallery: Gallery, deadline: Deadline) -> None:
    made = gallery.create_collection("  Front   Door", {"target_fpir": 0.001}, deadline)
    assert (made.collection.name, made.people, made.faces) == ("Front Door", 0, 0)
    assert (made.collection.target_fpir, made.collection.threshold, made.collection.revision) == (0.001, None, 0)
    assert gallery.collection_overview("front door", deadline) == made
    assert [each.collection.name for each in gallery.collections(deadline)] == ["default", "Front Door"]


def test_a_collection_is_made_once(gallery: Gallery, sql: Sql) -> None:
    def make(number: int) -> str:
        try:
            return gallery.create_collection(("Door", "DOOR")[number % 2], {}, Deadline(60)).collection.name.lower()
        except Conflict as error:
            return error.code

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(make, range(6))) == ["conflict"] * 5 + ["door"]
    assert sql("SELECT count(*) FROM collections") == [(2,)]


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a/b", ".", "..", "a\u0000b", "a\u202eb"])
def test_names_that_no_path_can_say_are_refused(gallery: Gallery, sql: Sql, deadline: Deadline, name: str) -> None:
    with pytest.raises(InvalidRequest):
        gallery.create_collection(name, {}, deadline)
    for values in ({"threshold": 2.0}, {"name": 0.5}):
        with pytest.raises(InvalidRequest):
            gallery.create_collection("Door", values, deadline)
    assert sql("SELECT count(*) FROM collections") == [(1,)]


@pytest.mark.usefixtures("visitors")
def test_deleting_a_collection_leaves_nothing_of_it_and_all_of_the_others(
    gallery: Gallery, sql: Sql, new_face: NewFaces, deadline: Deadline
) -> None:
    gallery.enrol("default", [new_face()], name="Ada", deadline=deadline)
    once = Idempotency("key", b"request")
    ada = gallery.enrol("visitors", [new_face()], name="Ada", idempotency=once, deadline=deadline).person_id
    gallery.reject(ada, new_face().embedding, "model-1", "local", deadline)
    receipt = gallery.delete_collection("VISITORS", deadline)
    assert receipt.name == "Visitors"
    assert receipt.deleted == {
        "idempotency_keys": 1,
        "rejections": 1,
        "templates": 2,
        "spaces": 1,
        "photos": 0,
        "faces": 4,
        "people": 2,
        "collections": 1,
    }
    assert (receipt.left, receipt.revoked_keys, receipt.revision) == (0, 0, None)
    for table in ("people", "faces", "templates", "cohorts", "spaces", "collections"):
        assert sql(f"SELECT count(*) FROM {table}") == [(1,)], table
    for call in (
        lambda: gallery.delete_collection("visitors", deadline),
        lambda: gallery.people("visitors", deadline=deadline),
    ):
        with pytest.raises(CollectionNotFound):
            call()


def test_deleting_reaches_every_table_that_refers_to_collections(sql: Sql) -> None:
    referring = sql(
        "SELECT DISTINCT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
        " AND confrelid IN ('collections'::regclass, 'people'::regclass, 'spaces'::regclass)"
    )
    assert {table for (table,) in referring} == {*ERASE, "api_keys"}


def test_the_default_collection_is_emptied_and_stays(
    gallery: Gallery, pool: Pool, sql: Sql, new_face: NewFaces, deadline: Deadline
) -> None:
    keys = Keys(pool)
    _, secret = keys.create(scopes=["recognize"], collection="default")
    gallery.change_collection("default", {"threshold": 0.5}, deadline)
    gallery.enrol("default", [new_face(), new_face()], name="Ada", deadline=deadline)
    receipt = gallery.delete_collection("Default", deadline)
    assert (receipt.deleted["people"], receipt.deleted["faces"], receipt.deleted["collections"]) == (1, 2, 0)
    assert (receipt.left, receipt.revoked_keys, receipt.revision) == (0, 0, 2)
    kept = gallery.collection_overview("default", deadline)
    assert (kept.people, kept.faces, kept.collection.threshold, kept.collection.revision) == (0, 0, 0.5, 2)
    assert keys.verify(secret) is not None
    assert sql("SELECT count(*) FROM spaces") == [(0,)]
    gallery.enrol("default", [new_face()], name="Ada", deadline=deadline)


@pytest.mark.usefixtures("visitors")
def test_keys_end_with_their_collection_and_open_nothing(gallery: Gallery, pool: Pool, deadline: Deadline) -> None:
    """A key that is deleted would leave the service open to all on loopback, as before there was any."""
    keys = Keys(pool)
    bound, secret = keys.create(scopes=["recognize"], collection="visitors")
    revoked, _ = keys.create(scopes=["recognize"], collection="visitors")
    keys.revoke(revoked.id)
    assert gallery.delete_collection("visitors", deadline).revoked_keys == 1
    assert keys.verify(secret) is None
    assert keys.any_created()
    assert not keys.any_active()
    assert {key.id for key in keys.list() if key.revoked_at is not None} == {bound.id, revoked.id}
    gallery.create_collection("Visitors", {}, deadline)
    assert keys.verify(secret) is None, "a new collection of that name is another one"


@pytest.mark.usefixtures("visitors")
def test_a_key_for_a_collection_that_is_being_deleted_is_not_made(
    pool: Pool, sql: Sql, eventually: Callable[..., None]
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads:
        with pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM people; DELETE FROM collections WHERE name_key = 'visitors'")
            making = threads.submit(Keys(pool).create, scopes=["recognize"], collection="visitors")
            eventually(lambda: sql(waiting) == [(1,)])
        with pytest.raises(CollectionNotFound):
            making.result(60)
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]


@pytest.mark.usefixtures("visitors")
def test_a_collection_that_was_not_seen_so_is_not_changed(
    gallery: Gallery, new_face: NewFaces, deadline: Deadline
) -> None:
    read = gallery.collection_overview("visitors", deadline)
    gallery.enrol("visitors", [new_face()], name="Zoe", deadline=deadline)
    for change in (
        lambda: gallery.change_collection("visitors", {"threshold": 0.5}, deadline, only_if=read.version.__eq__),
        lambda: gallery.delete_collection("visitors", deadline, only_if=read.version.__eq__),
    ):
        with pytest.raises(PreconditionFailed):
            change()
    now = gallery.collection_overview("visitors", deadline)
    assert (now.people, now.collection.threshold) == (3, None)
    changed = gallery.change_collection("visitors", {"threshold": 0.5}, deadline, only_if=now.version.__eq__)
    assert changed.version != now.version


@pytest.mark.usefixtures("visitors")
def test_deleting_a_collection_while_it_is_worked_on(gallery: Gallery, new_face: NewFaces, sql: Sql) -> None:
    faces = [new_face() for _ in range(16)]

    def enrol(face: NewFace) -> object:
        return gallery.enrol("visitors", [face], name=str(face.photo_sha256[0]), deadline=Deadline(60))

    with ThreadPoolExecutor(6) as threads:
        jobs = [threads.submit(enrol, face) for face in faces]
        receipt = threads.submit(gallery.delete_collection, "visitors", Deadline(60)).result(60)
        failures = [job.exception(60) for job in jobs]
    assert {type(failure) for failure in failures} <= {type(None), CollectionNotFound}
    assert receipt.left == 0
    assert sql("SELECT count(*) FROM faces") == sql("SELECT count(*) FROM spaces") == [(0,)]
