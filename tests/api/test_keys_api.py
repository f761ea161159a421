"""Keys by HTTP: made, listed, rotated, revoked, each within what the caller's own key allows."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from calls import assert_problem
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from recognizer.runtime import Runtime

Call = Callable[..., TestResponse]


@pytest.fixture
def admin(client: FlaskClient, runtime: Runtime) -> Call:
    """Calls with a key of scope admin to all collections."""
    return caller(client, runtime.keys.create(scopes=["admin"])[1])


@pytest.fixture
def door_admin(client: FlaskClient, runtime: Runtime) -> Call:
    """Calls with a key of scope admin to the collection `Doors` alone."""
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO collections (name, name_key) VALUES ('Doors', 'doors')")
    return caller(client, runtime.keys.create(scopes=["admin"], collection="doors")[1])


def caller(client: FlaskClient, key: str) -> Call:
    def call(method: str, path: str = "", **body: Any) -> TestResponse:
        arguments = {"json": body} if body else {}
        return client.open(f"/v1/keys{path}", method=method, headers={"X-API-Key": key}, **arguments)

    return call


def test_the_first_key_can_be_made_by_http_and_ends_the_local_mode(client: FlaskClient) -> None:
    made = client.post("/v1/keys", json={"scopes": ["admin"], "label": "mine"})
    assert made.status_code == 201
    assert_problem(client.get("/v1/keys"), 401, "unauthorized")
    assert client.get("/v1/keys", headers={"X-API-Key": made.json["secret"]}).status_code == 200


def test_a_secret_is_in_the_answer_that_makes_it_and_in_no_other(admin: Call) -> None:
    made = admin("POST", scopes=["recognize"], label="door", collection="DEFAULT").json
    secret = made.pop("secret")
    assert re.fullmatch(rf"rk_{made['id']}_[0-9a-f]{{64}}", secret)
    assert (made["label"], made["scopes"], made["collection"], made["valid"]) == (
        "door",
        ["recognize"],
        "default",
        True,
    )
    assert (made["expires_at"], made["revoked_at"], made["last_used_at"]) == (None, None, None)
    del made["request_id"]
    listed = admin("GET")
    assert made in listed.json["keys"]
    assert secret.split("_")[2] not in listed.text
    assert secret.split("_")[2] not in admin("DELETE", f"/{made['id']}").text


def test_a_key_expires_after_days_or_at_a_moment(admin: Call) -> None:
    end = datetime.now(UTC) + timedelta(days=7)
    for way in ({"expires_in_days": 7}, {"expires_at": end.isoformat()}):
        made = admin("POST", scopes=["recognize"], **way).json
        assert abs(datetime.fromisoformat(made["expires_at"]) - end) < timedelta(minutes=1)


def test_rotating_makes_a_new_secret_and_ends_the_old_one(client: FlaskClient, admin: Call) -> None:
    made = admin("POST", scopes=["enroll"]).json
    rotated = admin("POST", f"/{made['id']}/rotate").json
    assert rotated["id"] == made["id"]
    assert rotated["rotated_at"] is not None
    assert_problem(client.get("/v1/people", headers={"X-API-Key": made["secret"]}), 401, "unauthorized")
    assert client.get("/v1/people", headers={"X-API-Key": rotated["secret"]}).status_code == 200
    assert admin("POST", f"/{made['id']}/rotate", expires_in_days=1).json["expires_at"] is not None


def test_revoking_is_for_good(client: FlaskClient, admin: Call) -> None:
    made = admin("POST", scopes=["enroll"]).json
    revoked = admin("DELETE", f"/{made['id']}").json
    assert revoked["revoked_at"] is not None
    assert not revoked["valid"]
    assert_problem(client.get("/v1/people", headers={"X-API-Key": made["secret"]}), 401, "unauthorized")
    assert admin("DELETE", f"/{made['id']}").json["revoked_at"] == revoked["revoked_at"]
    assert_problem(admin("POST", f"/{made['id']}/rotate"), 409, "conflict")


@pytest.mark.parametrize(
    "body",
    [
        {"label": "no scopes"},
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": "admin"},
        {"scopes": ["admin"], "secret": "mine"},
        {"scopes": ["admin"], "label": "x" * 201},
        {"scopes": ["admin"], "label": "a\x00b"},
        {"scopes": ["admin"], "label": 7},
        {"scopes": ["admin"], "expires_in_days": 0},
        {"scopes": ["admin"], "expires_in_days": 3651},
        {"scopes": ["admin"], "expires_in_days": True},
        {"scopes": ["admin"], "expires_in_days": "soon"},
        {"scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"},
        {"scopes": ["admin"], "expires_at": "2999-01-01T00:00:00"},
        {"scopes": ["admin"], "expires_at": "9999-12-31T23:59:59-14:00"},
        {"scopes": ["admin"], "expires_at": "2999-01-01T00:00:00Z", "expires_in_days": 1},
    ],
)
def test_an_impossible_key_is_refused_and_not_made(admin: Call, body: dict[str, Any]) -> None:
    assert_problem(admin("POST", **body), 400, "invalid_request")
    assert len(admin("GET").json["keys"]) == 1


def test_what_is_not_there_is_not_found(admin: Call) -> None:
    assert_problem(admin("POST", scopes=["admin"], collection="nowhere"), 404, "collection_not_found")
    for key_id in ("0" * 16, "%27%3B%20DROP%20TABLE%20api_keys", "a%00b", "%0d%0aX-Admin:%20yes"):
        assert_problem(admin("DELETE", f"/{key_id}"), 404, "key_not_found")
        assert_problem(admin("POST", f"/{key_id}/rotate"), 404, "key_not_found")


def test_who_administers_one_collection_makes_and_sees_its_keys_alone(
    client: FlaskClient, runtime: Runtime, door_admin: Call
) -> None:
    general = runtime.keys.create(scopes=["recognize"])[0].id
    for wider in ({}, {"collection": "default"}):
        assert_problem(door_admin("POST", scopes=["recognize"], **wider), 403, "forbidden")
    made = door_admin("POST", scopes=["admin"], collection="doors").json
    assert made["collection"] == "Doors"
    assert [key["collection"] for key in door_admin("GET").json["keys"]] == ["Doors", "Doors"]
    assert_problem(door_admin("DELETE", f"/{general}"), 404, "key_not_found")
    assert_problem(door_admin("POST", f"/{general}/rotate"), 404, "key_not_found")
    assert all(key.is_valid for key in runtime.keys.list())
    assert door_admin("DELETE", f"/{made['id']}").status_code == 200


def test_uses_are_remembered_and_written_later(client: FlaskClient, runtime: Runtime, admin: Call) -> None:
    assert [key["last_used_at"] for key in admin("GET").json["keys"]] == [None]
    runtime.key_uses.flush()
    assert admin("GET").json["keys"][0]["last_used_at"] is not None
