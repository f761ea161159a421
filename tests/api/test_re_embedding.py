"""After a change of the model, faces are encoded anew from their kept photos, and recognised as before."""

from __future__ import annotations

import pytest
from calls import Photos, enroll, post
from flask.testing import FlaskClient

from recognizer.errors import EncryptionKeyMissing
from recognizer.gallery.re_embedding import OldFaces
from recognizer.keyring import Keyring
from recognizer.moving.progress import silent
from recognizer.re_embedding import re_embed
from recognizer.runtime import Runtime


@pytest.fixture
def old(client: FlaskClient, runtime: Runtime, photo: Photos) -> OldFaces:
    """Three faces with photos and one without, all of another space than the model's in use."""
    client.patch("/v1/collections/default", json={"keep_photos": True})
    enroll(client, "Obama", photo["obama"], photo["obama2"])
    client.post("/v1/collections", json={"name": "two", "keep_photos": True})
    enroll(client, "Somebody", photo.two_faces(), face="largest", collection="two")
    client.post("/v1/collections", json={"name": "none kept"})
    enroll(client, "Somebody", photo["biden"], collection="none kept")
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE faces SET model_id = 'old/space/1crop', embedding = (SELECT array_fill(0.1, '{128}'))::vector"
        )
        cursor.execute("DELETE FROM spaces")
    return OldFaces(runtime.pool, runtime.engine.model_id, None)


def decisions(client: FlaskClient, *photos: bytes) -> list[str | None]:
    answers = [post(client, "/recognize", photo).json["faces"][0]["person"] for photo in photos]
    return [person and person["name"] for person in answers]


def test_who_was_enrolled_is_recognised_again(
    client: FlaskClient, runtime: Runtime, photo: Photos, old: OldFaces
) -> None:
    assert decisions(client, photo["obama3"]) == [None]
    assert old.waiting() == (3, 1)
    done = re_embed(old, runtime.engine, silent)
    assert (done.changed, done.not_found, done.damaged) == (3, 0, 0)
    assert old.waiting() == (0, 1)
    assert decisions(client, photo["obama3"], photo["obama"]) == ["Obama", "Obama"]
    assert re_embed(old, runtime.engine, silent).changed == 0
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM templates")
        assert cursor.fetchall() == [(2,)]
        cursor.execute("SELECT count(*) FROM audit WHERE action = 're_embedded'")
        assert cursor.fetchall()[0][0] >= 2


def test_where_embeddings_are_encrypted_the_new_ones_are_too(
    client: FlaskClient, runtime: Runtime, photo: Photos, old: OldFaces
) -> None:
    assert client.patch("/v1/collections/default", json={"encrypt_embeddings": True}).status_code == 200
    assert re_embed(old, runtime.engine, silent).changed == 3
    assert decisions(client, photo["obama3"]) == ["Obama"]
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(embedding), count(sealed) FROM faces JOIN collections AS collection"
            " ON collection.id = collection_id WHERE collection.name = 'default'"
        )
        assert cursor.fetchall() == [(0, 2)]


def test_of_several_faces_the_one_that_was_enrolled_is_taken(
    client: FlaskClient, runtime: Runtime, photo: Photos, old: OldFaces
) -> None:
    before = boxes(runtime)
    re_embed(old, runtime.engine, silent)
    assert boxes(runtime) == before


def boxes(runtime: Runtime) -> list[tuple[object, ...]]:
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, box_left, box_top, box_right, box_bottom FROM faces ORDER BY id")
        return cursor.fetchall()


def test_what_cannot_be_found_or_read_stays_as_it_is(
    client: FlaskClient, runtime: Runtime, photo: Photos, old: OldFaces
) -> None:
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT face_id FROM photos ORDER BY created_at")
        ids = [face_id for (face_id,) in cursor.fetchall()]
        cursor.execute("UPDATE faces SET box_left = 5000, box_right = 5100 WHERE id = %s", (ids[0],))
        cursor.execute(
            "UPDATE photos SET photo = set_byte(photo, 99, 255 - get_byte(photo, 99)) WHERE face_id = %s", (ids[1],)
        )
    done = re_embed(old, runtime.engine, silent)
    assert (done.changed, done.not_found, done.damaged) == (1, 1, 1)
    assert old.waiting() == (2, 1)


def test_without_the_key_nothing_is_changed(runtime: Runtime, old: OldFaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.pool, "keyring", Keyring())
    with pytest.raises(EncryptionKeyMissing):
        re_embed(old, runtime.engine, silent)
    assert old.waiting() == (3, 1)


def test_only_the_collection_that_was_named(client: FlaskClient, runtime: Runtime, old: OldFaces) -> None:
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM collections WHERE name = 'none kept'")
        ((collection_id,),) = cursor.fetchall()
    one = OldFaces(runtime.pool, runtime.engine.model_id, collection_id)
    assert one.waiting() == (0, 1)
    assert one.next_person(None) is None
