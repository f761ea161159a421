"""The audit trail: every write and every look at people is in it, in the same transaction, and nobody's name."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import psycopg2
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import (
    Conflict,
    DatabaseUnavailable,
    EnrolmentRefused,
    InvalidRequest,
    NotFound,
    PersonNotFound,
    RecognizerError,
)
from recognizer.faces import NewFace
from recognizer.gallery import audit, chain
from recognizer.gallery.keys import Keys
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery, Idempotency
from recognizer.gallery.trail import Trail, TrailQuery

NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]
Prepare = Callable[[], Callable[[], object]]
Tell = Callable[[], list[tuple[Any, ...]]]

START_ANEW = """
    ALTER TABLE audit DISABLE TRIGGER keep;
    TRUNCATE audit;
    ALTER TABLE audit ENABLE TRIGGER keep;
    UPDATE audit_head SET number = 0, hash = decode(repeat('00', 32), 'hex');
"""

NO_CHANGE = {
    "collection",
    "collection_overview",
    "collections",
    "earlier_answer",
    "embeddings",
    "home",
    "nearest",
    "person_faces",
    "require_person",
    "stale_cohorts",
}
"""What changes nothing and is not told of: parts of recognising, enrolling and calibrating, and the collections."""


@pytest.fixture(autouse=True)
def _new_trail(sql: Sql) -> None:
    sql(START_ANEW)


@pytest.fixture
def told(sql: Sql) -> Tell:
    """What has been told since the last time: action, collection, subject in hex, detail."""
    seen = [0]

    def tell() -> list[tuple[Any, ...]]:
        found = sql(
            "SELECT number, action, collection, encode(subject, 'hex'), detail FROM audit"
            f" WHERE number > {seen[0]} ORDER BY number"
        )
        seen[0] = max([seen[0], *(row[0] for row in found)])
        return [(*row[1:4], json.loads(row[4])) for row in found]

    return tell


def hashed(person_id: str) -> str:
    return hashlib.sha256(person_id.encode()).hexdigest()


def sound(pool: Pool) -> int:
    """The number of entries of a trail that is whole."""
    verdict = chain.verify(pool, [], lambda done, of: None)
    assert verdict.fault is None
    return verdict.head.number


class Preparing:
    """Prepares a call of each public method that is told of, on people of its own."""

    def __init__(self, gallery: Gallery, keys: Keys, new_face: NewFaces) -> None:
        self._gallery, self._keys, self._new_face = gallery, keys, new_face
        self._limit = Deadline(60)

    def ada(self) -> str:
        """A new person."""
        name = f"Ada {random.random()}"
        return self._gallery.enrol("default", [self._new_face()], name=name, deadline=self._limit).person_id

    def reject(self, one: str) -> str:
        return self._gallery.reject(one, self._new_face().embedding, "model-1", "local", self._limit)[0].id

    def of_person(self, call: Callable[[str], object]) -> Prepare:
        return lambda: partial(call, self.ada())

    def of_key(self, call: Callable[[str], object]) -> Prepare:
        return lambda: partial(call, self._keys.create(scopes=["recognize"], label="Grace's key")[0].id)

    def undo_rejection(self) -> Callable[[], object]:
        one = self.ada()
        return partial(self._gallery.undo_rejection, one, self.reject(one), self._limit)

    def remove_face(self) -> Callable[[], object]:
        one = self.ada()
        face = self._gallery.person(one, self._limit).faces[0].id
        return partial(self._gallery.remove_face, one, face, self._limit)

    def all(self) -> dict[str, Prepare]:
        """By method."""
        gallery, limit = self._gallery, self._limit
        return {
            "enrol": lambda: self.ada,
            "person": self.of_person(lambda one: gallery.person(one, limit)),
            "people": lambda: partial(gallery.people, "default", deadline=limit),
            "rejections": self.of_person(lambda one: gallery.rejections(one, limit)),
            "change_person": self.of_person(lambda one: gallery.change_person(one, {"metadata": {"a": 1}}, limit)),
            "merge_people": lambda: partial(gallery.merge_people, self.ada(), self.ada(), limit),
            "remove_face": self.remove_face,
            "delete_person": self.of_person(lambda one: gallery.delete_person(one, limit)),
            "reject": self.of_person(self.reject),
            "undo_rejection": self.undo_rejection,
            "create_collection": lambda: partial(gallery.create_collection, "Guests", {}, limit),
            "change_collection": lambda: partial(gallery.change_collection, "guests", {"threshold": 0.5}, limit),
            "delete_collection": lambda: partial(gallery.delete_collection, "guests", limit),
            "create": lambda: partial(self._keys.create, scopes=["admin"]),
            "rotate": self.of_key(self._keys.rotate),
            "revoke": self.of_key(self._keys.revoke),
        }


@pytest.fixture
def calls(gallery: Gallery, pool: Pool, new_face: NewFaces) -> dict[str, Prepare]:
    return Preparing(gallery, Keys(pool), new_face).all()


READS = {"person", "people", "rejections"}
KEYS_THAT_READ = {"list", "verify", "any_created", "any_active"}


def public(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


def test_every_method_is_told_of_or_known_to_change_nothing(calls: dict[str, Prepare]) -> None:
    """A new method belongs to one or the other, and into the next test."""
    assert public(Gallery) | public(Keys) == set(calls) | NO_CHANGE | KEYS_THAT_READ
    assert not set(calls) & (NO_CHANGE | KEYS_THAT_READ)


def test_whatever_changes_something_or_shows_people_is_told_of(calls: dict[str, Prepare], sql: Sql, told: Tell) -> None:
    tables = [name for (name,) in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")]

    def state() -> dict[str, Any]:
        """All rows of all tables but the trail's."""
        return {table: sql(f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in tables if table[:5] != "audit"}

    for name, prepare in calls.items():
        call = prepare()
        before = state()
        told()
        call()
        assert (state() != before) == (name not in READS), name
        assert told(), f"{name} is not in the trail"


def test_what_is_told(gallery: Gallery, pool: Pool, new_face: NewFaces, deadline: Deadline, told: Tell) -> None:
    gallery.create_collection("Visitors", {"retention_days": 30}, deadline)
    assert told() == [("collection_created", "Visitors", None, {"values": {"retention_days": 30}})]
    gallery.change_collection("VISITORS", {"keep_photos": True, "threshold": None}, deadline)
    assert told() == [("collection_changed", "Visitors", None, {"values": {"keep_photos": True, "threshold": None}})]
    faces = [new_face(0), new_face(1)]
    ada = gallery.enrol("visitors", faces, name="Ada", deadline=deadline).person_id
    assert told() == [("enrolled", "Visitors", hashed(ada), {"faces": 2})]
    details = gallery.person(ada.upper(), deadline, collection="visitors")
    assert told() == [("looked_up", "Visitors", hashed(ada), {})]
    gallery.people("VISITORS", query="ad", deadline=deadline)
    assert told() == [("listed", "Visitors", None, {"people": 1})]
    gallery.change_person(ada, {"name": "Ada L.", "metadata": {"team": "night"}}, deadline)
    assert told() == [("changed", "Visitors", hashed(ada), {"members": ["metadata", "name"]})]
    gallery.remove_face(ada, details.faces[0].id, deadline)
    assert told() == [("face_removed", "Visitors", hashed(ada), {"left": 1})]
    rejection, _ = gallery.reject(ada, new_face().embedding, "model-1", "local", deadline)
    gallery.rejections(ada, deadline)
    gallery.undo_rejection(ada, rejection.id, deadline)
    assert told() == [
        ("rejected", "Visitors", hashed(ada), {}),
        ("looked_up", "Visitors", hashed(ada), {"rejections": 1}),
        ("rejection_undone", "Visitors", hashed(ada), {}),
    ]
    aida = gallery.enrol("visitors", [new_face()], name="Aida", deadline=deadline).person_id
    told()
    merged = gallery.merge_people(aida, ada, deadline)
    assert told() == [
        ("merged", "Visitors", hashed(aida), {"into": hashed(ada), "moved": merged.moved}),
        ("merged", "Visitors", hashed(ada), {"gone": hashed(aida), "moved": merged.moved}),
    ]
    receipt = gallery.delete_person(ada, deadline)
    assert told() == [("erased", "Visitors", hashed(ada), {"deleted": receipt.deleted, "left": 0})]
    key, _ = Keys(pool).create(scopes=["recognize"], collection="visitors", label="Grace")
    of_key = {"key": key.id, "scopes": ["recognize"], "expires_at": None}
    assert told() == [("key_created", "Visitors", None, of_key)]
    Keys(pool).rotate(key.id)
    Keys(pool).revoke(key.id)
    assert told() == [("key_rotated", "Visitors", None, of_key), ("key_revoked", "Visitors", None, of_key)]
    Keys(pool).revoke(key.id)
    assert told() == [], "it was revoked already"
    other, _ = Keys(pool).create(scopes=["recognize"], collection="visitors")
    told()
    erased = gallery.delete_collection("visitors", deadline)
    detail = {"deleted": erased.deleted, "left": 0, "revoked_keys": [other.id]}
    assert told() == [("collection_erased", "Visitors", None, detail)]
    assert sound(pool) == 19


def test_who_did_it_and_in_which_request(gallery: Gallery, sql: Sql, deadline: Deadline) -> None:
    with audit.acting("4b78033e945a5367", "request-1"):
        gallery.create_collection("Visitors", {}, deadline)
    gallery.create_collection("Guests", {}, deadline)
    assert sql("SELECT actor, request_id FROM audit ORDER BY number") == [
        ("4b78033e945a5367", "request-1"),
        ("service", None),
    ]


def test_what_is_refused_or_repeated_is_not_told_of(
    gallery: Gallery, new_face: NewFaces, deadline: Deadline, told: Tell
) -> None:
    face, once = new_face(), Idempotency("key", b"request")
    ada = gallery.enrol("default", [face], name="Ada", idempotency=once, deadline=deadline).person_id
    gallery.enrol("default", [new_face()], name="Grace", deadline=deadline)
    told()
    gallery.enrol("default", [face], name="Ada", idempotency=once, deadline=deadline)
    refusals: list[tuple[type[RecognizerError], Callable[[], object]]] = [
        (EnrolmentRefused, lambda: gallery.enrol("default", [face], name="Ada", deadline=deadline)),
        (Conflict, lambda: gallery.change_person(ada, {"name": "grace"}, deadline)),
        (InvalidRequest, lambda: gallery.merge_people(ada, ada, deadline)),
        (PersonNotFound, lambda: gallery.person("0" * 32, deadline)),
        (Conflict, lambda: gallery.create_collection("default", {}, deadline)),
    ]
    for error, call in refusals:
        with pytest.raises(error):
            call()
    assert told() == []


def test_no_word_of_a_person_is_in_the_trail(
    gallery: Gallery, new_face: NewFaces, sql: Sql, deadline: Deadline
) -> None:
    secret = {"external_id": "EXT-77", "metadata": {"diagnosis": "Xyzzy"}}
    face = new_face()
    ada = gallery.enrol("default", [face], name="Ada Quux", deadline=deadline, **secret).person_id
    gallery.people("default", query="quux", external_id="EXT-77", deadline=deadline)
    gallery.change_person(ada, {"name": "Ada Plugh", "external_id": "EXT-78"}, deadline)
    gallery.reject(ada, new_face().embedding, "model-1", "local", deadline)
    gallery.delete_person(ada, deadline)
    trail = json.dumps(sql("SELECT a::text FROM audit AS a")).lower()
    assert "erased" in trail
    for word in ("quux", "plugh", "ext-7", "xyzzy", "diagnosis", ada, ada.replace("-", ""), face.photo_sha256.hex()):
        assert word not in trail


def test_an_entry_comes_and_goes_with_what_it_tells_of(
    gallery: Gallery, new_face: NewFaces, sql: Sql, deadline: Deadline
) -> None:
    """Without room for the entry, or with a trail that is broken, nothing is done either."""
    ada = gallery.enrol("default", [new_face()], name="Ada", deadline=deadline).person_id
    sql("ALTER TABLE audit ADD CONSTRAINT full_disk CHECK (number < 2) NOT VALID")
    try:
        for call in (
            lambda: gallery.enrol("default", [new_face()], name="Grace", deadline=deadline),
            lambda: gallery.delete_person(ada, deadline),
            lambda: gallery.person(ada, deadline),
        ):
            with pytest.raises(psycopg2.IntegrityError):
                call()
    finally:
        sql("ALTER TABLE audit DROP CONSTRAINT full_disk")
    assert [person.name for person in gallery.people("default", deadline=deadline)[0]] == ["Ada"]


def test_nobody_is_looked_up_where_it_cannot_be_told(
    gallery: Gallery, open_pool: Callable[..., Pool], database_url: str, new_face: NewFaces, deadline: Deadline
) -> None:
    ada = gallery.enrol("default", [new_face()], name="Ada", deadline=deadline).person_id
    options = "-c default_transaction_read_only=on"
    standby = Gallery(open_pool(psycopg2.extensions.make_dsn(database_url, options=options)))
    for look in (
        lambda: standby.person(ada, deadline),
        lambda: standby.people("default", deadline=deadline),
        lambda: standby.rejections(ada, deadline),
    ):
        with pytest.raises(DatabaseUnavailable):
            look()
    assert standby.nearest("default", [new_face().embedding], "model-1", 1, deadline).of_probes[0]


def work_at_random(gallery: Gallery, keys: Keys, faces: list[NewFace], seed: int) -> None:
    """Enrol, and do something that may have been made impossible by somebody else; a deadlock raises."""
    choose = random.Random(seed)
    names = ["default", "Visitors", "Guests"]
    for step, face in enumerate(faces):
        name, limit = choose.choice(names), Deadline(60)
        with suppress(NotFound, Conflict, InvalidRequest):
            one = gallery.enrol(name, [face], name=f"{seed} {step}", deadline=limit).person_id
            others = gallery.people(name, deadline=limit)[0]
            what = choose.randrange(5)
            if what == 0:
                gallery.delete_person(one, limit)
            elif what == 1:
                gallery.merge_people(one, others[0].id if others else one, limit)
            elif what == 2:
                keys.create(scopes=["admin"], collection=name, deadline=limit)
            elif what == 3:
                gallery.delete_collection(name, limit)
                gallery.create_collection(name, {}, limit)


def test_writers_to_many_collections_make_one_chain(open_pool: Callable[..., Pool], new_face: NewFaces) -> None:
    """Erasing, merging, listing, keys and whole collections, all at once: no deadlock, no gap."""
    pool = open_pool(maximum=10)
    gallery, keys = Gallery(pool), Keys(pool)
    for name in ("Visitors", "Guests"):
        gallery.create_collection(name, {}, Deadline(60))
    with ThreadPoolExecutor(8) as threads:
        jobs = [
            threads.submit(work_at_random, gallery, keys, [new_face() for _ in range(20)], number)
            for number in range(8)
        ]
        for job in jobs:
            job.result(120)
    assert sound(pool) > 300


def test_waiting_for_a_turn_holds_nobody_up_who_has_had_it(
    gallery: Gallery, pool: Pool, new_face: NewFaces, sql: Sql, eventually: Callable[..., None]
) -> None:
    """The turn is the last thing that is waited for: while somebody has it, others still get everything else."""
    gallery.create_collection("Visitors", {}, Deadline(60))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with ThreadPoolExecutor(2) as threads:
        with pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(audit.TAKE_TURN, {"key": None, "id": None})
            job = threads.submit(gallery.enrol, "visitors", [new_face()], name="Ada", deadline=Deadline(60))
            eventually(lambda: sql(waiting) == [(1,)])
            assert not job.done()
            assert sql("SELECT count(*) FROM people") == [(0,)]
        job.result(60)
    assert sound(pool) == 2


# -- reading it --


@pytest.fixture
def trail(pool: Pool) -> Trail:
    return Trail(pool)


@pytest.fixture
def some_entries(gallery: Gallery, new_face: NewFaces, deadline: Deadline) -> dict[str, str]:
    """Entries 1 to 7, of two collections and two actors."""
    gallery.create_collection("Visitors", {}, deadline)
    ids = {}
    with audit.acting("key-1"):
        ids["Ada"] = gallery.enrol("default", [new_face()], name="Ada", deadline=deadline).person_id
        ids["Zoe"] = gallery.enrol("visitors", [new_face()], name="Zoe", deadline=deadline).person_id
    gallery.person(ids["Ada"], deadline)
    gallery.person(ids["Zoe"], deadline)
    gallery.delete_person(ids["Ada"], deadline)
    gallery.delete_collection("visitors", deadline)
    return ids


def numbers(trail: Trail, **asked: Any) -> list[int]:
    return [kept.entry.number for kept in trail.page(TrailQuery(**asked), 50, None, Deadline(60))[0]]


def test_entries_are_found_by_what_is_asked_for(trail: Trail, some_entries: dict[str, str], sql: Sql) -> None:
    assert numbers(trail) == [7, 6, 5, 4, 3, 2, 1]
    assert numbers(trail, person_id=some_entries["Ada"]) == [6, 4, 2], "also when she is erased"
    assert numbers(trail, person_id=some_entries["Ada"].upper().replace("-", "")) == [6, 4, 2]
    assert numbers(trail, collection="Visitors") == [7, 5, 3, 1], "also when it is no more"
    assert numbers(trail, collection="DEFAULT") == [6, 4, 2]
    assert numbers(trail, action="looked_up") == [5, 4]
    assert numbers(trail, actor="key-1") == [3, 2]
    assert numbers(trail, actor="key-1", collection="default") == [2]
    ((third,),) = sql("SELECT at FROM audit WHERE number = 3")
    assert numbers(trail, since=third) == [7, 6, 5, 4, 3]
    assert numbers(trail, until=third) == [2, 1]
    assert numbers(trail, since=datetime.now(UTC) + timedelta(days=1)) == []
    with pytest.raises(InvalidRequest, match="person_id"):
        numbers(trail, person_id="Ada")


def test_pages_follow_each_other_whatever_is_added_meanwhile(
    trail: Trail, some_entries: dict[str, str], gallery: Gallery, deadline: Deadline
) -> None:
    found: list[int] = []
    cursor: str | None = None
    while True:
        page, cursor = trail.page(TrailQuery(), 2, cursor, deadline)
        found += [kept.entry.number for kept in page]
        gallery.people("default", deadline=deadline)
        if cursor is None:
            break
    assert found == [7, 6, 5, 4, 3, 2, 1]
    _, cursor = trail.page(TrailQuery(action="looked_up"), 1, None, deadline)
    assert cursor is not None
    assert [kept.entry.number for kept in trail.page(TrailQuery(action="looked_up"), 9, cursor, deadline)[0]] == [4]
    for wrong in (cursor, "rubbish", "WyJ4Il0="):
        with pytest.raises(InvalidRequest, match="cursor"):
            trail.page(TrailQuery(action="listed"), 1, wrong, deadline)
    for limit in (0, 1001):
        with pytest.raises(InvalidRequest, match="limit"):
            trail.page(TrailQuery(), limit, None, deadline)


def test_all_entries_are_read_the_oldest_first(
    trail: Trail, some_entries: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recognizer.gallery.trail.MAX_PAGE", 3)
    entries = list(trail.entries(TrailQuery(), 30))
    assert [kept.entry.number for kept in entries] == [1, 2, 3, 4, 5, 6, 7]
    before = bytes(32)
    for entry, stored in entries:
        assert entry.hash(before) == stored
        before = stored
    assert all(one.entry.at <= other.entry.at for one, other in pairwise(entries))
    some = trail.entries(TrailQuery(actor="key-1"), 30)
    assert [kept.entry.number for kept in some] == [2, 3]
