"""Encrypting anew what needs an older key: in small steps, beside others who are at work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import EncryptionKeyMissing
from recognizer.faces import KeptPhoto, NewFace
from recognizer.gallery import resealing
from recognizer.gallery.holdings import Holdings
from recognizer.gallery.pool import Pool
from recognizer.gallery.resealing import SEALED, reseal_some
from recognizer.gallery.store import Gallery
from recognizer.keyring import Key, Keyring, new_key

Sql = Callable[[str], list[tuple[Any, ...]]]

OpenPool = Callable[..., Pool]

OLD, NEW = (Key.of_text(new_key()) for _ in range(2))
PHOTOS = SEALED[0]


@pytest.fixture
def old(open_pool: OpenPool) -> Pool:
    """With the key that everything was encrypted with."""
    return open_pool(keyring=Keyring([OLD]))


@pytest.fixture
def both(open_pool: OpenPool) -> Pool:
    """With the key in use and the old one."""
    return open_pool(keyring=Keyring([NEW, OLD]))


@pytest.fixture
def faces(old: Pool, new_face: Callable[..., NewFace], deadline: Deadline) -> list[tuple[str, str]]:
    """The ids of people and faces whose photos were encrypted with the key OLD, in the order of the latter."""
    gallery = Gallery(old)
    gallery.change_collection("default", {"keep_photos": True}, deadline)
    found = []
    for number in range(5):
        face = new_face(kept=KeptPhoto("image/png", b"photo %d" % number, b"chip %d" % number))
        done = gallery.enrol("default", [face], name=f"Person {number}", deadline=deadline)
        found.append((done.enrolled[0].face_id, done.person_id))
    return [(person_id, face_id) for face_id, person_id in sorted(found)]


def all_of(pool: Pool) -> int:
    done, last = 0, None
    while (batch := reseal_some(pool, PHOTOS, OLD.id, last)) is not None:
        done, last = done + batch.done, batch.last
    return done


def test_everything_is_readable_with_the_new_key_alone(
    open_pool: OpenPool,
    old: Pool,
    both: Pool,
    faces: list[tuple[str, str]],
    deadline: Deadline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resealing, "BATCH", 2)
    read = [Holdings(old).photo(*face, "photo", deadline) for face in faces]
    assert resealing.by_key(both)["photos"] == {OLD.id: 5}
    assert reseal_some(both, PHOTOS, OLD.id, None).done == 2
    assert resealing.by_key(both)["photos"] == {OLD.id: 3, NEW.id: 2}, "it may be stopped, and goes on"
    assert all_of(both) == 3
    assert resealing.by_key(both)["photos"] == {NEW.id: 5}
    now = Holdings(open_pool(keyring=Keyring([NEW])))
    assert [now.photo(*face, "photo", deadline) for face in faces] == read
    assert now.photo(*faces[0], "chip", deadline).data.startswith(b"chip ")
    assert all_of(both) == 0


def test_what_is_damaged_is_left_and_the_others_are_done(
    both: Pool, faces: list[tuple[str, str]], sql: Sql, deadline: Deadline
) -> None:
    _, face_id = faces[2]
    sql(f"UPDATE photos SET chip = set_byte(chip, 30, 255 - get_byte(chip, 30)) WHERE face_id = '{face_id}'")
    batch = reseal_some(both, PHOTOS, OLD.id, None)
    assert batch is not None
    assert (batch.done, batch.damaged) == (4, ((face_id,),))
    assert reseal_some(both, PHOTOS, OLD.id, batch.last) is None
    assert resealing.by_key(both)["photos"] == {OLD.id: 1, NEW.id: 4}


def test_nobody_is_waited_for_who_is_at_work_on_a_photo(
    both: Pool, faces: list[tuple[str, str]], database_url: str
) -> None:
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("DELETE FROM photos WHERE face_id = %s", (faces[0][1],))
        assert all_of(both) == 4
        other.rollback()
    assert all_of(both) == 1


def test_without_the_old_key_nothing_is_changed(open_pool: OpenPool, faces: list[tuple[str, str]]) -> None:
    pool = open_pool(keyring=Keyring([NEW]))
    with pytest.raises(EncryptionKeyMissing, match=OLD.id):
        reseal_some(pool, PHOTOS, OLD.id, None)
    assert resealing.by_key(pool)["photos"] == {OLD.id: len(faces)}


def test_every_encrypted_column_is_known(sql: Sql) -> None:
    """Where the database demands the version of the encryption, `re-encrypt` has to come by."""
    found = sql(
        "SELECT conrelid::regclass::text, attname FROM pg_constraint JOIN pg_attribute"
        " ON attrelid = conrelid AND attnum = ANY (conkey)"
        r" WHERE contype = 'c' AND pg_get_constraintdef(pg_constraint.oid) ILIKE '%substring%'"
    )
    assert {(each.table, column) for each in SEALED for column in each.places} == set(found)
