"""GET /v1/audit: what a key may see of the trail, page by page, and who is named in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from calls import Photos, assert_problem, enroll
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from recognizer.runtime import Runtime

Get = Callable[..., TestResponse]


@pytest.fixture
def start(client: FlaskClient, runtime: Runtime) -> int:
    """The number of the last entry of the tests before, which cannot be deleted."""
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT number FROM audit_head")
        return int(cursor.fetchall()[0][0])


@pytest.fixture
def trail(client: FlaskClient, start: int) -> Callable[..., list[dict[str, Any]]]:
    """The entries of this test, the newest first."""

    def get(key: str | None = None, **options: str) -> list[dict[str, Any]]:
        headers = {"X-API-Key": key} if key else {}
        response = client.get("/v1/audit", query_string=options, headers=headers)
        assert response.status_code == 200, response.text
        return [entry for entry in response.json["entries"] if entry["number"] > start]

    return get


Trail = Callable[..., list[dict[str, Any]]]


def test_a_persons_trail_from_enrolment_to_beyond_erasure(client: FlaskClient, trail: Trail, photo: Photos) -> None:
    ada = enroll(client, "Ada", photo["obama"], headers={"X-Request-ID": "door-17"})["person"]["id"]
    one = f"/v1/people/{ada}"
    client.get(one)
    client.patch(one, json={"metadata": {"team": "night"}})
    client.get("/v1/people?query=ad")
    client.delete(one)
    assert_problem(client.get(one), 404, "person_not_found")
    entries = trail(person_id=ada)
    assert [entry["action"] for entry in entries] == ["erased", "changed", "looked_up", "enrolled"]
    assert {entry["subject"] for entry in entries} == {hashlib.sha256(ada.encode()).hexdigest()}
    assert {entry["actor"] for entry in entries} == {"local"}
    assert entries[-1]["request_id"] == "door-17"
    assert entries[-1]["detail"] == {"faces": 1}
    assert entries[0]["detail"]["left"] == 0
    assert [entry["action"] for entry in trail(action="listed")] == ["listed"]
    assert ada not in client.get("/v1/audit").text


def test_recognising_is_not_in_the_trail(client: FlaskClient, trail: Trail, photo: Photos) -> None:
    client.post("/recognize", data=photo["obama"], headers={"Content-Type": "image/jpeg"})
    assert trail() == []


def test_a_key_of_one_collection_sees_that_ones_entries(client: FlaskClient, runtime: Runtime, trail: Trail) -> None:
    client.post("/v1/collections", json={"name": "Doors"})
    everywhere, all_keys = runtime.keys.create(scopes=["admin"])
    own, of_doors = runtime.keys.create(scopes=["admin"], collection="doors")
    client.get("/v1/people", headers={"X-API-Key": all_keys})
    client.get("/v1/people?collection=DOORS", headers={"X-API-Key": of_doors})
    seen = [(entry["action"], entry["collection"], entry["actor"]) for entry in trail(all_keys)]
    assert seen == [
        ("listed", "Doors", own.id),
        ("listed", "default", everywhere.id),
        ("key_created", "Doors", "service"),
        ("key_created", None, "service"),
        ("collection_created", "Doors", "local"),
    ]
    of_one = [entry for entry in seen if entry[1] == "Doors"]
    for options in ({}, {"collection": "doors"}):
        assert [
            (entry["action"], entry["collection"], entry["actor"]) for entry in trail(of_doors, **options)
        ] == of_one
    other = client.get("/v1/audit?collection=default", headers={"X-API-Key": of_doors})
    assert_problem(other, 403, "forbidden")
    assert [entry["collection"] for entry in trail(all_keys, actor=own.id)] == ["Doors"]


def test_pages_are_bound_to_their_query(client: FlaskClient, start: int) -> None:
    for _ in range(3):
        client.get("/v1/people")
    found: list[int] = []
    cursor = ""
    while len(found) < 3:
        page = client.get("/v1/audit", query_string={"limit": 1} | ({"cursor": cursor} if cursor else {})).json
        found += [entry["number"] for entry in page["entries"]]
        cursor = page["next_cursor"]
    assert found == [start + 3, start + 2, start + 1]
    assert_problem(client.get(f"/v1/audit?action=erased&cursor={cursor}"), 400, "invalid_request")


@pytest.mark.parametrize(
    "options",
    [
        {"person_id": "Ada"},
        {"action": "destroyed"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"limit": "0"},
        {"limit": "1001"},
        {"cursor": "rubbish"},
        {"actor": ""},
        {"subject": "x"},
    ],
)
def test_impossible_options_are_refused(client: FlaskClient, options: dict[str, str]) -> None:
    assert_problem(client.get("/v1/audit", query_string=options), 400, "invalid_request")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_the_ends_of_time_are_moments_too(client: FlaskClient, moment: str) -> None:
    for option in ("since", "until"):
        assert client.get("/v1/audit", query_string={option: moment, "limit": 1}).status_code == 200
