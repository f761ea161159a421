"""/v1/collections: which there are, how much they hold, and how strictly they recognise."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from calls import Photos, assert_problem, enroll, post
from flask.testing import FlaskClient

from recognizer.runtime import Runtime


@pytest.fixture
def doors(client: FlaskClient, runtime: Runtime) -> str:
    """A second collection."""
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO collections (name, name_key) VALUES ('Doors', 'doors')")
    return "Doors"


def key(runtime: Runtime, *scopes: str, collection: str | None = None) -> dict[str, str]:
    _, secret = runtime.keys.create(scopes=scopes, collection=collection)
    return {"X-API-Key": secret}


def test_collections_are_listed_by_name_with_how_much_they_hold(client: FlaskClient, photo: Photos, doors: str) -> None:
    enroll(client, "Obama", photo["obama"], photo["obama2"], collection=doors)
    enroll(client, "Biden", photo["biden"], collection=doors)
    default, other = client.get("/v1/collections").json["collections"]
    assert (default["name"], default["people"], default["faces"]) == ("default", 0, 0)
    assert datetime.fromisoformat(other.pop("created_at")).tzinfo is not None
    assert other == {
        "name": "Doors",
        "target_fpir": None,
        "threshold": None,
        "keep_photos": False,
        "retention_days": None,
        "encrypt_embeddings": False,
        "people": 2,
        "faces": 3,
        "photos": 0,
        "gallery_revision": 2,
    }


def test_one_collection_is_found_without_regard_to_case(client: FlaskClient, doors: str) -> None:
    found = client.get("/v1/collections/DOORS")
    assert found.status_code == 200
    assert found.json == client.get("/v1/collections").json["collections"][1]


def test_a_threshold_is_in_force_at_once_and_until_it_is_taken_back(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    (before,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert before["decision"] == "match"
    changed = client.patch("/v1/collections/default", json={"threshold": 0.05})
    assert changed.status_code == 200
    assert changed.json["threshold"] == 0.05
    assert changed.json["request_id"] == changed.headers["X-Request-ID"]
    (strict,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert (strict["decision"], strict["threshold"]) == ("unknown", 0.05)
    client.patch("/v1/collections/default", json={"threshold": None})
    (after,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert after["decision"] == "match"
    assert after["threshold"] == pytest.approx(before["threshold"], abs=0.01)  # cohorts are reckoned meanwhile


def test_a_target_moves_the_threshold_in_force(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    thresholds = []
    for target in (0.1, 0.001, None):
        client.patch("/v1/collections/default", json={"target_fpir": target})
        (face,) = post(client, "/recognize", photo["obama2"]).json["faces"]
        thresholds.append(face["threshold"])
    lax, strict, usual = thresholds
    assert strict < usual < lax


def test_what_is_not_named_stays(client: FlaskClient, doors: str) -> None:
    client.patch(f"/v1/collections/{doors}", json={"target_fpir": 0.001, "threshold": 0.4})
    client.patch(f"/v1/collections/{doors}", json={"target_fpir": None})
    found = client.get(f"/v1/collections/{doors}").json
    assert (found["target_fpir"], found["threshold"]) == (None, 0.4)
    assert client.get("/v1/collections/default").json["threshold"] is None


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"treshold": 0.5}',
        '{"threshold": 0.5, "name": "x"}',
        '{"threshold": 0}',
        '{"threshold": 2}',
        '{"threshold": -0.1}',
        '{"threshold": true}',
        '{"threshold": "0.5"}',
        '{"threshold": [0.5]}',
        '{"threshold": NaN}',
        '{"threshold": Infinity}',
        '{"threshold": 1' + "0" * 400 + "}",
        '{"target_fpir": 0}',
        '{"target_fpir": 1}',
        '{"target_fpir": 0.01, "threshold": -Infinity}',
        '{"target_fpir": false}',
        '{"revision": 7}',
        "[0.5]",
        "null",
        "{",
        "",
    ],
)
def test_impossible_changes_are_400_and_change_nothing(client: FlaskClient, body: str) -> None:
    before = client.get("/v1/collections/default").json
    response = client.patch("/v1/collections/default", data=body, content_type="application/json")
    assert_problem(response, 400, "invalid_request")
    assert client.get("/v1/collections/default").json == before


@pytest.mark.parametrize("how", ["a form", "the query", "nothing"])
def test_changes_come_as_json_only(client: FlaskClient, how: str) -> None:
    arguments: dict[str, Any] = {
        "a form": {"data": {"threshold": "0.5"}},
        "the query": {"query_string": {"threshold": "0.5"}, "json": {"target_fpir": 0.01}},
        "nothing": {},
    }[how]
    assert_problem(client.patch("/v1/collections/default", **arguments), 400, "invalid_request")
    assert client.get("/v1/collections/default").json["target_fpir"] is None


def test_an_unknown_collection_is_404(client: FlaskClient) -> None:
    assert_problem(client.get("/v1/collections/nowhere"), 404, "collection_not_found")
    assert_problem(client.patch("/v1/collections/nowhere", json={"threshold": 0.5}), 404, "collection_not_found")
    assert_problem(client.get(f"/v1/collections/{'x' * 2000}"), 404, "collection_not_found")


def test_a_key_of_one_collection_sees_and_changes_no_other(client: FlaskClient, doors: str, runtime: Runtime) -> None:
    headers = key(runtime, "admin", collection="Doors")
    assert_problem(client.get("/v1/collections/default", headers=headers), 403, "forbidden")
    change = client.patch("/v1/collections/default", json={"threshold": 0.5}, headers=headers)
    assert_problem(change, 403, "forbidden")
    assert_problem(client.get("/v1/collections/nowhere", headers=headers), 403, "forbidden")
    (only,) = client.get("/v1/collections", headers=headers).json["collections"]
    assert only["name"] == "Doors"
    assert client.patch("/v1/collections/doors", json={"threshold": 0.5}, headers=headers).json["threshold"] == 0.5


def test_looking_needs_to_enroll_and_changing_to_be_admin(client: FlaskClient, runtime: Runtime) -> None:
    looks, recognises = key(runtime, "enroll"), key(runtime, "recognize")
    assert client.get("/v1/collections/default", headers=looks).status_code == 200
    assert client.get("/v1/collections", headers=looks).status_code == 200
    assert_problem(client.get("/v1/collections", headers=recognises), 403, "forbidden")
    assert_problem(client.get("/v1/collections/default", headers=recognises), 403, "forbidden")
    change = client.patch("/v1/collections/default", json={"threshold": 0.5}, headers=looks)
    assert_problem(change, 403, "forbidden")


def test_a_collection_is_made_used_and_deleted(client: FlaskClient, photo: Photos) -> None:
    made = client.post("/v1/collections", json={"name": " Front  Door", "target_fpir": 0.001})
    assert made.status_code == 201
    assert made.json == {
        "request_id": made.headers["X-Request-ID"],
        **client.get("/v1/collections/front%20door").json,
    }
    assert (made.json["name"], made.json["target_fpir"], made.json["threshold"]) == ("Front Door", 0.001, None)
    enroll(client, "Obama", photo["obama"], photo["obama2"], collection="front door")
    receipt = client.delete("/v1/collections/Front%20Door")
    assert receipt.status_code == 200
    assert (receipt.json["collection"], receipt.json["left"], receipt.json["revoked_keys"]) == ("Front Door", 0, 0)
    assert receipt.json["deleted"] == {
        "idempotency_keys": 0,
        "rejections": 0,
        "templates": 1,
        "spaces": 1,
        "photos": 0,
        "faces": 2,
        "people": 1,
        "collections": 1,
    }
    for response in (
        client.get("/v1/collections/front%20door"),
        client.delete("/v1/collections/front%20door"),
        client.get("/v1/people?collection=front+door"),
        post(client, "/recognize", photo["obama"], collection="front door"),
        post(client, "/enroll", photo["obama"], collection="front door", name="Obama"),
    ):
        assert_problem(response, 404, "collection_not_found")


def test_the_default_collection_is_only_emptied(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    receipt = client.delete("/v1/collections/DEFAULT").json
    assert (receipt["deleted"]["people"], receipt["deleted"]["collections"], receipt["left"]) == (1, 0, 0)
    assert client.get("/v1/collections/default").json["people"] == 0
    (face,) = post(client, "/recognize", photo["obama"]).json["faces"]
    assert (face["decision"], face["candidates"]) == ("unknown", [])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ('{"name": "DOORS"}', 409, "conflict"),
        ('{"name": "default"}', 409, "conflict"),
        ("{}", 400, "invalid_request"),
        ('{"name": null}', 400, "invalid_request"),
        ('{"name": ""}', 400, "invalid_request"),
        ('{"name": 5}', 400, "invalid_request"),
        ('{"name": "a/b"}', 400, "invalid_request"),
        ('{"name": ".."}', 400, "invalid_request"),
        ('{"name": "a\\u0000b"}', 400, "invalid_request"),
        ('{"name": "a\\nb\\u202e"}', 400, "invalid_request"),
        ('{"name": "' + "x" * 101 + '"}', 400, "invalid_request"),
        ('{"name": "New", "threshold": 2}', 400, "invalid_request"),
        ('{"name": "New", "revision": 2}', 400, "invalid_request"),
        ("[]", 400, "invalid_request"),
        ("{", 400, "invalid_request"),
        ("", 400, "invalid_request"),
    ],
)
def test_a_collection_that_cannot_be_is_not_made(
    client: FlaskClient, doors: str, body: str, status: int, code: str
) -> None:
    response = client.post("/v1/collections", data=body, content_type="application/json")
    assert_problem(response, status, code)
    assert [each["name"] for each in client.get("/v1/collections").json["collections"]] == ["default", doors]


def test_only_admins_make_and_delete_collections(client: FlaskClient, runtime: Runtime, doors: str) -> None:
    enrolling, own = key(runtime, "enroll", "recognize"), key(runtime, "admin", collection=doors)
    assert_problem(client.post("/v1/collections", json={"name": "New"}, headers=enrolling), 403, "forbidden")
    assert_problem(client.delete(f"/v1/collections/{doors}", headers=enrolling), 403, "forbidden")
    assert_problem(client.delete("/v1/collections/default", headers=own), 403, "forbidden")
    receipt = client.delete(f"/v1/collections/{doors}", headers=own)
    assert (receipt.status_code, receipt.json["revoked_keys"]) == (200, 1)
    assert_problem(client.get("/v1/collections", headers=own), 401, "unauthorized")


def test_a_collection_that_was_not_seen_so_is_not_changed(client: FlaskClient, photo: Photos, doors: str) -> None:
    path = f"/v1/collections/{doors}"
    stale = {"If-Match": client.get(path).headers["ETag"]}
    assert client.patch(path, json={"threshold": 0.4}, headers=stale).status_code == 200
    assert_problem(client.patch(path, json={"threshold": 0.5}, headers=stale), 412, "precondition_failed")
    assert_problem(client.delete(path, headers=stale), 412, "precondition_failed")
    assert client.get(path).json["threshold"] == 0.4
    assert client.delete(path, headers={"If-Match": client.get(path).headers["ETag"]}).status_code == 200


def test_who_is_enrolled_meanwhile_keeps_nobody_from_changing_the_settings(
    client: FlaskClient, photo: Photos, doors: str
) -> None:
    path = f"/v1/collections/{doors}"
    seen = {"If-Match": client.get(path).headers["ETag"]}
    enroll(client, "Obama", photo["obama"], collection=doors)
    assert client.get(path, headers={"If-None-Match": seen["If-Match"]}).json["people"] == 1
    assert_problem(client.delete(path, headers=seen), 412, "precondition_failed")
    assert client.patch(path, json={"threshold": 0.4}, headers=seen).status_code == 200
    for tag in (seen["If-Match"], '"x"', "", '""', f"W/{client.get(path).headers['ETag']}"):
        refused = client.patch(path, json={"threshold": 0.5}, headers={"If-Match": tag})
        assert_problem(refused, 412, "precondition_failed")
    assert client.patch(path, json={"threshold": 0.5}, headers={"If-Match": "*"}).status_code == 200
    old = {"If-Match": client.get(path).headers["ETag"]}
    client.delete(path)
    client.post("/v1/collections", json={"name": doors, "threshold": 0.5})
    assert_problem(client.patch(path, json={"threshold": 0.6}, headers=old), 412, "precondition_failed")
