"""Retention: whose time is over is erased by itself, nobody else is, and the audit trail has the receipt."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound
from recognizer.faces import NewFace
from recognizer.gallery import audit, retention
from recognizer.gallery.pool import Pool
from recognizer.gallery.retention import BATCH, RetentionKeeper, collections_with_retention, due, erase_due
from recognizer.gallery.store import Gallery
from recognizer.gallery.turns import lock_collection

NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]
Enrol = Callable[..., str]

EXPIRED = "SELECT encode(subject, 'hex'), actor, collection, detail FROM audit WHERE action = 'expired' ORDER BY number"


@pytest.fixture(autouse=True)
def _visitors(gallery: Gallery, deadline: Deadline, sql: Sql) -> None:
    gallery.create_collection("Visitors", {"retention_days": 30}, deadline)
    sql("ALTER TABLE audit DISABLE TRIGGER keep; DELETE FROM audit WHERE action = 'expired'")  # the chain is not read
    sql("ALTER TABLE audit ENABLE TRIGGER keep")


@pytest.fixture
def enrol(gallery: Gallery, new_face: NewFaces, sql: Sql) -> Enrol:
    """Enrols somebody whose photos are so many days old."""

    def do(name: str, *days_old: float, collection: str = "visitors", made: float = 500) -> str:
        faces = [new_face(index) for index in range(len(days_old) or 1)]
        one = gallery.enrol(collection, faces, name=name, deadline=Deadline(60))
        for face, days in zip(one.enrolled, days_old, strict=False):
            age(sql, "faces", face.face_id, days)
        if not days_old:
            gallery.remove_face(one.person_id, one.enrolled[0].face_id, Deadline(60))
        age(sql, "people", one.person_id, made)
        return one.person_id

    return do


def age(sql: Sql, table: str, row: str, days: float) -> None:
    sql(f"UPDATE {table} SET created_at = now() - interval '{days} days' WHERE id = '{row}'")


def names(gallery: Gallery, collection: str = "visitors") -> list[str]:
    return [person.name for person in gallery.people(collection, limit=1000, deadline=Deadline(60))[0]]


def erase(pool: Pool, collection: str = "Visitors") -> int | None:
    with audit.acting("retention"):
        return erase_due(pool, collection, threading.Event())


def test_who_had_no_new_photo_for_longer_is_erased_and_nobody_else(gallery: Gallery, pool: Pool, enrol: Enrol) -> None:
    enrol("long ago", 400, 31)
    enrol("lately", 400, 29)
    enrol("without a photo", made=31)
    enrol("new and without a photo", made=29)
    enrol("elsewhere", 400, collection="default")
    assert collections_with_retention(pool, Deadline(60)) == ["Visitors"]
    assert sorted(each.name for each in due(pool, "visitors")) == ["long ago", "without a photo"]
    assert erase(pool) == 2
    assert names(gallery) == ["lately", "new and without a photo"]
    assert names(gallery, "default") == ["elsewhere"]
    assert erase(pool) == 0


def test_the_trail_has_the_receipt_and_names_nobody(pool: Pool, enrol: Enrol, sql: Sql, gallery: Gallery) -> None:
    person = enrol("Ada", 31, 40)
    revision = gallery.collection("visitors", Deadline(60)).revision
    assert erase(pool) == 1
    ((subject, actor, collection, detail),) = sql(EXPIRED)
    assert (subject, actor, collection) == (hashlib.sha256(person.encode()).hexdigest(), "retention", "Visitors")
    receipt = json.loads(detail)
    assert (receipt["left"], receipt["deleted"]["faces"], receipt["deleted"]["people"]) == (0, 2, 1)
    assert gallery.collection("visitors", Deadline(60)).revision == revision + 1, "recognition hears of it"
    assert sql("SELECT count(*) FROM templates") == [(0,)]


def test_the_time_can_be_tried_before_it_is_set(pool: Pool, enrol: Enrol, gallery: Gallery, sql: Sql) -> None:
    ada = enrol("Ada", 10.5, collection="default")
    enrol("Grace", 5, collection="default")
    assert collections_with_retention(pool, Deadline(60), "DEFAULT") == []
    assert collections_with_retention(pool, Deadline(60), "DEFAULT", 7) == ["default"]
    ((person_id, name, latest, days_over),) = due(pool, "default", 7)
    assert (person_id, name, days_over) == (ada, "Ada", 3)
    assert [(latest,)] == sql("SELECT created_at FROM faces ORDER BY 1 LIMIT 1")
    assert [each.name for each in due(pool, "visitors", 5)] == []
    assert names(gallery, "default") == ["Ada", "Grace"]
    assert sql("SELECT detail FROM audit WHERE action = 'listed' ORDER BY number DESC OFFSET 2 LIMIT 1") == [
        ('{"people": 1}',)
    ], "whoever lists people is in the trail"
    with pytest.raises(CollectionNotFound):
        collections_with_retention(pool, Deadline(60), "nowhere")


def test_who_is_enrolled_again_meanwhile_stays(
    gallery: Gallery, pool: Pool, enrol: Enrol, sql: Sql, eventually: Callable[..., None]
) -> None:
    """The keeper has seen that the time was over, and waits for whoever is enrolling that person."""
    ada = enrol("Ada", 40)
    enrol("Grace", 40)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads:
        with pool.connection() as connection, connection.cursor() as cursor:
            lock_collection(cursor, "visitors")
            job = threads.submit(erase, pool)
            eventually(lambda: sql(waiting) == [(1,)])
            cursor.execute("UPDATE faces SET created_at = now() WHERE person_id = %s", (ada,))
        assert job.result(60) == 1
    assert names(gallery) == ["Ada"]


def test_a_time_that_is_taken_back_meanwhile_erases_nobody(
    gallery: Gallery, pool: Pool, enrol: Enrol, sql: Sql, eventually: Callable[..., None]
) -> None:
    enrol("Ada", 40)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads:
        with pool.connection() as connection, connection.cursor() as cursor:
            lock_collection(cursor, "visitors")
            job = threads.submit(erase, pool)
            eventually(lambda: sql(waiting) == [(1,)])
            cursor.execute("UPDATE collections SET retention_days = NULL")
        assert job.result(60) == 0
    assert names(gallery) == ["Ada"]


def test_many_are_erased_a_few_at_a_time(gallery: Gallery, pool: Pool, enrol: Enrol, sql: Sql) -> None:
    for number in range(BATCH + 3):
        enrol(f"old {number}", 40)
        if not number % 5:
            enrol(f"new {number}", 1)
    assert erase(pool) == BATCH + 3
    assert all(name.startswith("new") for name in names(gallery))
    assert len(sql(EXPIRED)) == BATCH + 3


def test_it_stops_between_two_batches(pool: Pool, enrol: Enrol) -> None:
    enrol("Ada", 40)
    stop = threading.Event()
    stop.set()
    assert erase_due(pool, "visitors", stop) == 0


def test_one_worker_does_it(gallery: Gallery, pool: Pool, enrol: Enrol) -> None:
    enrol("Ada", 40)
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (retention.LOCK_ID,))
        assert erase(pool) is None
    assert names(gallery) == ["Ada"]
    with ThreadPoolExecutor(4) as threads:
        done = [job.result(60) for job in [threads.submit(erase, pool) for _ in range(4)]]
    assert sum(one or 0 for one in done) == 1


def test_the_keeper_does_it_soon_after_the_start_and_again_and_again(
    gallery: Gallery,
    pool: Pool,
    enrol: Enrol,
    sql: Sql,
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.1)
    enrol("Ada", 40)
    with RetentionKeeper(pool):
        eventually(lambda: names(gallery) == [])
        enrol("Grace", 40)
        eventually(lambda: names(gallery) == [])
    assert [actor for _, actor, _, _ in sql(EXPIRED)] == ["retention"] * 2
    assert not [thread for thread in threading.enumerate() if thread.name == "retention"]


def test_a_collection_that_fails_keeps_none_of_the_others(
    gallery: Gallery, pool: Pool, enrol: Enrol, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gallery.create_collection("All broken", {"retention_days": 1}, Deadline(60))
    gallery.create_collection("Gone", {"retention_days": 1}, Deadline(60))
    enrol("Ada", 40)
    erase_for_real = retention.erase_due

    def erase_some(pool: Pool, collection: str, stop: threading.Event) -> int | None:
        if collection == "All broken":
            raise ValueError("nobody has thought of this")
        if collection == "Gone":
            raise CollectionNotFound("There is no collection `Gone`.")
        return erase_for_real(pool, collection, stop)

    monkeypatch.setattr(retention, "erase_due", erase_some)
    with caplog.at_level(logging.INFO):
        RetentionKeeper(pool).sweep()
    assert names(gallery) == []
    said = [record.getMessage() for record in caplog.records if record.name == retention.__name__]
    assert said == [
        "People whose time is over cannot be erased; trying again within the hour: nobody has thought of this",
        "retention",
    ]
