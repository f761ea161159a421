"""Kept photos: stored encrypted with their face where the collection says so, and gone with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2.errors
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import EncryptionKeyMissing, PersonNotFound, PhotoNotFound, SealBroken
from recognizer.faces import KeptPhoto, NewFace
from recognizer.gallery import photos
from recognizer.gallery.holdings import Holdings
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery
from recognizer.keyring import Key, Keyring, new_key

OpenPool = Callable[..., Pool]
Sql = Callable[[str], list[tuple[Any, ...]]]
NewFaces = Callable[..., NewFace]

KEPT = KeptPhoto("image/jpeg", b"the photo as it was sent", b"the chip of the face")


@pytest.fixture
def gallery(gallery: Gallery, deadline: Deadline) -> Gallery:
    """A gallery whose collection `default` keeps photos."""
    gallery.change_collection("default", {"keep_photos": True}, deadline)
    return gallery


@pytest.fixture
def holdings(pool: Pool) -> Holdings:
    return Holdings(pool)


@pytest.fixture
def add(gallery: Gallery, new_face: NewFaces, deadline: Deadline) -> Callable[..., tuple[str, str]]:
    """Enrols one photo of a name; returns the ids of the person and of the face."""

    def enrol(name: str, collection: str = "default", **face: Any) -> tuple[str, str]:
        new = new_face(**{"kept": KEPT, **face})
        done = gallery.enrol(collection, [new], name=name, deadline=deadline)
        return done.person_id, done.enrolled[0].face_id

    return enrol


Add = Callable[..., tuple[str, str]]


def kept(sql: Sql) -> int:
    return int(sql("SELECT count(*) FROM photos")[0][0])


def test_what_is_kept_comes_back_as_it_was_and_the_trail_tells_of_it(
    holdings: Holdings, add: Add, sql: Sql, deadline: Deadline
) -> None:
    person_id, face_id = add("Ada")
    assert holdings.photo(person_id.upper(), face_id.upper(), "photo", deadline) == ("image/jpeg", KEPT.photo)
    assert holdings.photo(person_id, face_id, "chip", deadline, collection="DEFAULT") == ("image/png", KEPT.chip)
    entries = sql(
        "SELECT action, collection, detail FROM audit WHERE action = 'looked_up' ORDER BY number DESC LIMIT 2"
    )
    assert entries == [
        ("looked_up", "default", '{"what": "chip"}'),
        ("looked_up", "default", '{"what": "photo"}'),
    ]


def test_a_person_says_which_photos_are_kept(gallery: Gallery, add: Add, sql: Sql, deadline: Deadline) -> None:
    person_id, _ = add("Ada")
    add("Ada", kept=None)  # seen when nothing was kept yet
    _, faces = gallery.person(person_id, deadline)
    assert [face.photo for face in faces] == [True, False]
    assert gallery.collection_overview("default", deadline).photos == 1


def test_nothing_readable_is_in_the_database(add: Add, sql: Sql, keyring: Keyring) -> None:
    add("Ada")
    ((photo, chip, key_id),) = sql("SELECT photo, chip, key_id FROM photos")
    assert KEPT.photo not in bytes(photo)
    assert KEPT.chip not in bytes(chip)
    assert key_id == keyring.ids[0]


@pytest.mark.parametrize("column", ["photo", "chip"])
def test_the_database_takes_nothing_that_is_not_encrypted(add: Add, sql: Sql, column: str) -> None:
    add("Ada")
    with pytest.raises(psycopg2.errors.CheckViolation):
        sql(f"UPDATE photos SET {column} = 'plain'")


def test_where_nothing_is_kept_nothing_is_stored(gallery: Gallery, add: Add, sql: Sql, deadline: Deadline) -> None:
    gallery.change_collection("default", {"keep_photos": False}, deadline)  # while a photo was looked at
    add("Ada")
    assert kept(sql) == 0


def test_without_a_key_nothing_is_enrolled_where_photos_are_kept(
    gallery: Gallery, open_pool: OpenPool, new_face: NewFaces, sql: Sql, deadline: Deadline
) -> None:
    without = Gallery(open_pool(keyring=Keyring()))
    with pytest.raises(EncryptionKeyMissing):
        without.enrol("default", [new_face(kept=KEPT)], name="Ada", deadline=deadline)
    assert sql("SELECT count(*) FROM people") == [(0,)]


def test_without_a_key_no_collection_can_keep_photos(open_pool: OpenPool, deadline: Deadline) -> None:
    without = Gallery(open_pool(keyring=Keyring()))
    with pytest.raises(EncryptionKeyMissing):
        without.change_collection("default", {"keep_photos": True}, deadline)
    with pytest.raises(EncryptionKeyMissing):
        without.create_collection("visitors", {"keep_photos": True}, deadline)
    assert [each.collection.name for each in without.collections(deadline)] == ["default"]
    assert without.change_collection("default", {"keep_photos": False}, deadline).photos == 0


def test_a_collection_that_keeps_no_photos_any_more_has_none(
    gallery: Gallery, add: Add, sql: Sql, deadline: Deadline
) -> None:
    gallery.create_collection("visitors", {"keep_photos": True}, deadline)
    add("Ada")
    add("Grace", "visitors")
    assert gallery.change_collection("default", {"threshold": 0.5}, deadline).photos == 1
    assert gallery.change_collection("default", {"keep_photos": False}, deadline).photos == 0
    assert kept(sql) == 1
    assert gallery.collection_overview("default", deadline).faces == 1


def test_photos_go_with_their_face_their_person_and_their_collection(
    gallery: Gallery, add: Add, sql: Sql, deadline: Deadline
) -> None:
    gallery.create_collection("visitors", {"keep_photos": True}, deadline)
    ada, first = add("Ada")
    add("Ada")
    add("Alan", "visitors")
    gallery.remove_face(ada, first, deadline)
    assert kept(sql) == 2
    erased = gallery.delete_person(ada, deadline)
    assert (erased.deleted["photos"], erased.left) == (1, 0)
    gone = gallery.delete_collection("visitors", deadline)
    assert (gone.deleted["photos"], gone.left) == (1, 0)
    assert kept(sql) == 0


def test_photos_follow_a_person_into_another(
    gallery: Gallery, holdings: Holdings, add: Add, sql: Sql, deadline: Deadline
) -> None:
    ada, face_id = add("Ada", photo="one")
    grace, older = add("Grace", photo="two")
    _, later = add("Ada", photo="two")
    merged = gallery.merge_people(ada, grace, deadline)
    assert (merged.moved["photos"], merged.dropped["faces"]) == (2, 1)
    assert holdings.photo(grace, face_id, "photo", deadline).data == KEPT.photo
    assert holdings.photo(grace, later, "photo", deadline).data == KEPT.photo
    with pytest.raises(PhotoNotFound):
        holdings.photo(grace, older, "photo", deadline)
    assert gallery.delete_person(grace, deadline).deleted["photos"] == 2
    assert kept(sql) == 0


def test_only_a_photo_of_this_person_in_this_collection_is_found(
    gallery: Gallery, holdings: Holdings, add: Add, deadline: Deadline
) -> None:
    ada, of_ada = add("Ada")
    grace, _ = add("Grace")
    _, without = add("Ada", kept=None)
    for person_id, face_id in ((grace, of_ada), (ada, without), (ada, "x"), (ada, ada)):
        with pytest.raises(PhotoNotFound):
            holdings.photo(person_id, face_id, "photo", deadline)
    gallery.create_collection("visitors", {}, deadline)
    with pytest.raises(PersonNotFound):
        holdings.photo(ada, of_ada, "photo", deadline, collection="visitors")


def test_a_photo_that_was_moved_to_another_face_is_not_shown(
    holdings: Holdings, add: Add, sql: Sql, deadline: Deadline
) -> None:
    ada, _ = add("Ada")
    grace, of_grace = add("Grace")
    sql(f"UPDATE photos SET photo = (SELECT photo FROM photos WHERE person_id = '{ada}') WHERE person_id = '{grace}'")
    with pytest.raises(SealBroken):
        holdings.photo(grace, of_grace, "photo", deadline)
    assert holdings.photo(grace, of_grace, "chip", deadline).data == KEPT.chip


def test_a_photo_whose_key_is_gone_says_which(
    open_pool: OpenPool, keyring: Keyring, add: Add, deadline: Deadline
) -> None:
    person_id, face_id = add("Ada")
    others = Holdings(open_pool(keyring=Keyring([Key.of_text(new_key())])))
    with pytest.raises(EncryptionKeyMissing, match=keyring.ids[0]):
        others.photo(person_id, face_id, "photo", deadline)


def test_a_chip_is_never_taken_for_a_photo(keyring: Keyring) -> None:
    face_id = "d9ae3a4c-3c9c-4a5e-8d0f-4b0d5f7c6a1b"
    with pytest.raises(SealBroken):
        keyring.open(keyring.seal(b"chip", photos.place("chip", face_id)), photos.place("photo", face_id))
