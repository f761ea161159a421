"""Everything that is held on a person comes out, column by column, in a file that explains itself."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import closing
from typing import Any

import numpy as np
import psycopg2
import pytest
from calls import Photos, assert_problem, enroll, post
from flask.testing import FlaskClient

from recognizer.gallery.holdings import HELD
from recognizer.keyring import Keyring
from recognizer.runtime import Runtime

COLUMNS = """
    SELECT table_name, column_name FROM information_schema.columns AS one
    WHERE table_schema = 'public' AND (
        table_name IN ('people', 'audit')
        OR EXISTS (SELECT FROM information_schema.columns AS other
                   WHERE other.table_name = one.table_name AND other.column_name = 'person_id'))
"""

AS_FILES = {("photos", "photo"), ("photos", "chip")}
DECRYPTED = {("faces", "sealed"), ("templates", "sealed"), ("rejections", "sealed")}
"""What is in `embedding` whichever form it is stored in."""


@pytest.fixture
def ada(client: FlaskClient, photo: Photos) -> str:
    """Somebody on whom something of every kind is held."""
    client.patch("/v1/collections/default", json={"keep_photos": True})
    options = {"external_id": "no 7", "metadata": json.dumps({"door": [1, 2]})}
    headers = {"Idempotency-Key": "once"}
    made = post(client, "/enroll", photo["obama"], name="Ada É. <x>", headers=headers, **options).json
    post(client, f"/v1/people/{made['person']['id']}/faces", photo["obama2"])
    person_id = str(made["person"]["id"])
    assert post(client, f"/v1/people/{person_id}/rejections", photo["biden"]).status_code == 201
    assert client.get(f"/v1/people/{person_id}/faces/{made['enrolled'][0]['face_id']}/image").status_code == 200
    return person_id


def opened(client: FlaskClient, person_id: str) -> zipfile.ZipFile:
    answer = client.get(f"/v1/people/{person_id}/export")
    assert (answer.status_code, answer.content_type) == (200, "application/zip"), answer.text
    assert answer.headers["Content-Disposition"] == f'attachment; filename="person-{person_id}.zip"'
    archive = zipfile.ZipFile(io.BytesIO(answer.data))
    assert archive.testzip() is None
    return archive


def query(postgres_url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def test_every_column_of_every_table_about_people_is_in_it(client: FlaskClient, ada: str, postgres_url: str) -> None:
    archive = opened(client, ada)
    plain, numbers = (json.loads(archive.read(name)) for name in ("person.json", "numbers.json"))
    held = {
        (table, column)
        for content in (plain, numbers)
        for table in HELD
        for row in content.get(table, ())
        for column in row
    }
    assert set(query(postgres_url, COLUMNS)) - AS_FILES - DECRYPTED - held == set()
    assert all(plain[table] for table in HELD), "there is something of every kind"


def test_what_it_says_is_what_is_stored(
    client: FlaskClient, ada: str, photo: Photos, postgres_url: str, runtime: Runtime
) -> None:
    archive = opened(client, ada)
    plain, numbers = (json.loads(archive.read(name)) for name in ("person.json", "numbers.json"))
    (person,) = plain["people"]
    assert (person["id"], person["name"], person["external_id"]) == (ada, "Ada É. <x>", "no 7")
    assert (person["metadata"], person["collection"]) == ({"door": [1, 2]}, "default")
    first, second = plain["faces"]
    assert first["files"] == [f"photos/{first['id']}.jpg", f"chips/{first['id']}.png"]
    assert archive.read(first["files"][0]) == photo["obama"]
    assert archive.read(second["files"][0]) == photo["obama2"]
    assert archive.read(second["files"][1]).startswith(b"\x89PNG")
    assert set(archive.namelist()) == {
        "README.txt", "person.json", "numbers.json", *first["files"], *second["files"]
    }  # fmt: skip
    for row in numbers["faces"]:
        ((stored,),) = query(postgres_url, f"SELECT embedding::text FROM faces WHERE id = '{row['id']}'")
        assert np.allclose(row["embedding"], json.loads(stored), atol=1e-7)
    assert len(numbers["rejections"][0]["embedding"]) == len(numbers["templates"][0]["embedding"]) == 128
    assert [entry["action"] for entry in plain["audit"]].count("looked_up") == 1
    (answered,) = plain["idempotency_keys"]
    assert answered["response"]["person_id"] == ada
    again = json.loads(opened(client, ada).read("person.json"))["audit"]
    assert [entry["action"] for entry in again][-1] == "exported"


def test_encrypted_embeddings_come_out_as_the_others_do(client: FlaskClient, ada: str, runtime: Runtime) -> None:
    plain = json.loads(opened(client, ada).read("numbers.json"))
    assert client.patch("/v1/collections/default", json={"encrypt_embeddings": True}).status_code == 200
    encrypted = json.loads(opened(client, ada).read("numbers.json"))
    for table in ("faces", "templates", "rejections"):
        assert [row["embedding"] for row in encrypted[table]] == [row["embedding"] for row in plain[table]], table
        assert all("sealed" not in row for row in encrypted[table]), table
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE faces SET sealed = set_byte(sealed, 100, 255 - get_byte(sealed, 100))")
    assert_problem(client.get(f"/v1/people/{ada}/export"), 500, "stored_data_damaged")


def test_it_explains_itself(client: FlaskClient, ada: str) -> None:
    readme = opened(client, ada).read("README.txt").decode()
    assert readme.startswith("What this service holds on Ada É. <x>\n====")
    for word in ("photos/", "chips/", "person.json", "numbers.json", *HELD):
        assert f"\n{word} " in readme, word
    assert "Number of faces enrolled: 2. Number of photos kept: 2." in readme


def test_without_photos_it_holds_the_rest(client: FlaskClient, photo: Photos) -> None:
    made = enroll(client, "Obama", photo["obama"])
    archive = opened(client, made["person"]["id"])
    assert archive.namelist() == ["README.txt", "person.json", "numbers.json"]
    assert "None are kept" in archive.read("README.txt").decode()


def test_a_damaged_photo_is_left_out_and_named(client: FlaskClient, ada: str, runtime: Runtime) -> None:
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE photos SET photo = set_byte(photo, 100, 255 - get_byte(photo, 100))")
    faces = json.loads(opened(client, ada).read("person.json"))["faces"]
    assert all(face["files"][0].startswith("no photo: What is stored was changed") for face in faces)
    assert all(face["files"][1].startswith("chips/") for face in faces)


def test_without_its_key_there_is_no_half_export(
    client: FlaskClient, ada: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.pool, "keyring", Keyring())
    assert_problem(client.get(f"/v1/people/{ada}/export"), 503, "encryption_key_missing")


def test_only_so_many_are_made_at_a_time(client: FlaskClient, ada: str, runtime: Runtime) -> None:
    path = f"/v1/people/{ada}/export"
    for _ in range(5):  # each gives its place back, one that fails and one without a body, too
        opened(client, ada)
        assert client.get(path.replace(ada, ada[::-1])).status_code == 404
        assert client.head(path).status_code == 200
    with client.get(path, buffered=False), client.get(path, buffered=False):
        assert_problem(client.get(path), 503, "busy")
    opened(client, ada)
