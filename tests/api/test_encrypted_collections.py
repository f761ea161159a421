"""Encrypted embeddings over HTTP: what is answered is what a plain collection answers."""

from __future__ import annotations

from typing import Any

import pytest
from calls import Photos, enroll, post
from flask.testing import FlaskClient

from recognizer.runtime import Runtime

ON, OFF = {"encrypt_embeddings": True}, {"encrypt_embeddings": False}


def decided(answer: Any) -> list[tuple[Any, ...]]:
    """What an answer of /recognize says of each face, as far as a photo decides it."""
    return [
        (face["decision"], face["person"] and face["person"]["name"], face["distance"]) for face in answer.json["faces"]
    ]


def test_a_collection_is_made_encrypted_and_all_that_it_answers_is_as_usual(
    client: FlaskClient, photo: Photos, runtime: Runtime
) -> None:
    made = client.post("/v1/collections", json={"name": "doors", **ON})
    assert (made.status_code, made.json["encrypt_embeddings"]) == (201, True)
    person_id = enroll(client, "Obama", photo["obama"], collection="doors")["person"]["id"]
    enroll(client, "Biden", photo["biden"], collection="doors")
    (seen,) = post(client, "/recognize", photo["obama2"], collection="doors").json["faces"]
    assert (seen["decision"], seen["person"]["name"]) == ("match", "Obama")
    assert post(client, "/v1/verify", photo["obama2"], person_id=person_id).json["same"]
    rejected = post(client, f"/v1/people/{person_id}/rejections", photo["obama2"])
    assert rejected.status_code == 201
    (seen,) = post(client, "/recognize", photo["obama2"], collection="doors").json["faces"]
    assert seen["decision"] != "match"
    calibrated = client.post("/v1/collections/doors/calibrate")
    assert calibrated.status_code == 200
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(embedding), count(sealed) FROM faces")
        assert cursor.fetchall() == [(0, 2)]


def test_switching_changes_no_answer(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    enroll(client, "Biden", photo["biden"])
    before = decided(post(client, "/recognize", photo["obama2"]))
    for change in (ON, OFF):
        changed = client.patch("/v1/collections/default", json=change)
        assert changed.status_code == 200
        assert changed.json["encrypt_embeddings"] is change["encrypt_embeddings"]
        after = decided(post(client, "/recognize", photo["obama2"]))
        assert [each[:2] for each in after] == [each[:2] for each in before]
        assert [each[2] for each in after] == pytest.approx([each[2] for each in before], abs=1e-5)


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_it_is_on_or_off(client: FlaskClient, value: object) -> None:
    answer = client.patch("/v1/collections/default", json={"encrypt_embeddings": value})
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
