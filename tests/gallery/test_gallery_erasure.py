"""Erasure reaches every table that holds something of a person or of a collection, and its receipt counts them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from recognizer.deadline import Deadline
from recognizer.faces import KeptPhoto, NewFace
from recognizer.gallery import collections, people
from recognizer.gallery.cohorts import bring_up_to_date
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery, Idempotency

NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]

KEPT = KeptPhoto("image/jpeg", b"the photo as it was sent", b"the chip of the face")

GO_WITH_TEMPLATES = {"cohorts"}
"""What is deleted by what refers to it, and counted all the same."""

REVOKED_NOT_DELETED = {"api_keys"}
"""Keys outlive their collection, revoked."""

REFERRING = """
    WITH RECURSIVE referring (id) AS (
        SELECT '{root}'::regclass::oid
        UNION
        SELECT conrelid FROM pg_constraint JOIN referring ON confrelid = referring.id WHERE contype = 'f'
    )
    SELECT id::regclass::text FROM referring
"""

NAMED_SO = """
    SELECT table_name FROM information_schema.columns
    WHERE table_schema = 'public' AND column_name IN ({columns})
"""


def holding(sql: Sql, root: str, *columns: str) -> set[str]:
    """The tables that refer to a table, however far, or have a column that is called as if they did."""
    named = ", ".join(f"'{column}'" for column in columns)
    return {table for (table,) in [*sql(REFERRING.format(root=root)), *sql(NAMED_SO.format(columns=named))]}


def counted(statement: str) -> set[str]:
    return set(re.findall(r"count\(\*\) FROM (\w+)", statement))


def test_whatever_holds_something_of_people_is_deleted_and_counted(sql: Sql) -> None:
    tables = holding(sql, "people", "person_id", "face_id", "rejection_id")
    assert tables == set(people.ERASE) | GO_WITH_TEMPLATES
    assert counted(people.COUNT_LEFT) == tables


def test_whatever_holds_something_of_collections_is_deleted_and_counted(sql: Sql) -> None:
    tables = holding(sql, "collections", "collection_id", "space_id", "person_id", "face_id") - REVOKED_NOT_DELETED
    assert tables - {"collections"} == set(collections.ERASE) | GO_WITH_TEMPLATES
    assert counted(collections.COUNT_LEFT) == tables - {"collections"}


def traces(sql: Sql, *words: str) -> list[str]:
    """The tables in which one of the words stands, in whatever column."""
    tables = [name for (name,) in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")]
    return [
        table
        for table in tables
        for row in sql(f"SELECT lower(t::text) FROM {table} AS t")
        if any(word.lower() in row[0] for word in words)
    ]


def test_nothing_of_a_person_is_left_anywhere(
    gallery: Gallery, pool: Pool, new_face: NewFaces, sql: Sql, deadline: Deadline
) -> None:
    """A merger, an idempotent enrolment, rejections, cohorts: all of it names the person somewhere."""
    once, again = Idempotency("key", b"request"), Idempotency("key 2", b"request 2")
    known = {"external_id": "EXT-77", "metadata": {"team": "Xyzzy"}}
    faces = [new_face(0), new_face(1)]
    ada = gallery.enrol("default", faces, name="Quux", idempotency=once, deadline=deadline, **known).person_id
    aida = gallery.enrol("default", [new_face()], name="Plugh", idempotency=again, deadline=deadline).person_id
    gallery.enrol("default", [new_face()], name="Grace", deadline=deadline)
    gallery.reject(ada, new_face().embedding, "model-1", "local", deadline)
    gallery.merge_people(aida, ada, deadline)
    gallery.person(ada, deadline)
    while bring_up_to_date(pool, Deadline(60)):
        pass
    before = {table: sql(f"SELECT count(*) FROM {table}")[0][0] for table in people.ERASE}
    receipt = gallery.delete_person(ada, deadline)
    gone = {table: before[table] - sql(f"SELECT count(*) FROM {table}")[0][0] for table in people.ERASE}
    assert gone == receipt.deleted
    assert (gone["faces"], gone["rejections"], gone["idempotency_keys"], gone["templates"]) == (3, 1, 2, 1)
    assert receipt.left == 0
    photos = [r"\x" + face.photo_sha256.hex() for face in faces]
    assert traces(sql, ada, aida, "quux", "plugh", "ext-77", "xyzzy", *photos) == []
    assert traces(sql, "grace") == ["people"]


@pytest.mark.parametrize("name", ["default", "Visitors"])
def test_nothing_of_a_collections_people_is_left_anywhere(
    gallery: Gallery, pool: Pool, new_face: NewFaces, sql: Sql, deadline: Deadline, name: str
) -> None:
    """People with all that may be known of them; another collection stays as it is."""
    other = "Staff"
    gallery.create_collection(other, {}, deadline)
    if name != "default":
        gallery.create_collection(name, {}, deadline)
    gallery.change_collection(name, {"keep_photos": True}, deadline)
    faces = [new_face(0, kept=KEPT), new_face(1, kept=KEPT), new_face(kept=KEPT)]
    once, again = Idempotency("key", b"request"), Idempotency("key 2", b"request 2")
    known = {"external_id": "EXT-77", "metadata": {"team": "Xyzzy"}}
    ada = gallery.enrol(name, faces[:2], name="Quux", idempotency=once, deadline=deadline, **known)
    aida = gallery.enrol(name, faces[2:], name="Plugh", idempotency=again, deadline=deadline)
    gallery.enrol(other, [new_face()], name="Grace", deadline=deadline)
    rejected, *_ = gallery.reject(ada.person_id, new_face().embedding, "model-1", "local", deadline)
    gallery.person(ada.person_id, deadline)
    while bring_up_to_date(pool, Deadline(60)):
        pass
    ids = [ada.person_id, aida.person_id, rejected.id, *(face.face_id for face in ada.enrolled + aida.enrolled)]
    words = [*ids, "quux", "plugh", "ext-77", "xyzzy", *(r"\x" + face.photo_sha256.hex() for face in faces)]
    tables = {*collections.ERASE, *GO_WITH_TEMPLATES, "collections"}
    before = {table: sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables}
    assert all(traces(sql, word) for word in words), "it is found where it is"
    receipt = gallery.delete_collection(name, deadline)
    assert receipt.left == 0
    gone = {table: before[table] - sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables}
    assert gone.items() >= receipt.deleted.items()
    assert (gone["people"], gone["faces"], gone["photos"], gone["rejections"], gone["idempotency_keys"]) == (
        2,
        3,
        3,
        1,
        2,
    )
    assert traces(sql, *words) == []
    assert traces(sql, "grace") == ["people"]
