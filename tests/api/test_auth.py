"""Keys, scopes and the local mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from calls import Photos, assert_problem, post
from flask import Flask
from flask.testing import FlaskClient

from recognizer.app import create_app
from recognizer.deadline import Deadline
from recognizer.runtime import Runtime


def test_every_route_states_its_scope(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        operation = getattr(app.view_functions[rule.endpoint], "operation", None)
        assert operation is not None, f"{rule} states no scope"
        assert operation.scope in {"recognize", "enroll", "admin", "public"}


def test_only_health_and_the_api_about_itself_are_public(app: Flask) -> None:
    views = {rule.rule: app.view_functions[rule.endpoint] for rule in app.url_map.iter_rules()}
    public = {rule for rule, view in views.items() if view.operation.scope == "public"}
    assert public == {"/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/<name>"}


def test_without_a_key_the_service_is_open_on_this_machine(client: FlaskClient) -> None:
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert client.get("/v1/people", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "192.168.1.5:8000"},
        {"Host": "["},
        {"Host": "127.0.0.1.nip.io"},
        {"Host": "evil.example@127.0.0.1"},
        {"Host": "127.0.0.1#.evil.example"},
        {"Host": "127.0.0.1\\.evil.example"},
        {"Host": "2130706433"},
        {"Host": ""},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"X-Real-IP": "10.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-Proto": "https"},
        {"CF-Connecting-IP": "10.0.0.1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "http://evil.example@localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Forwarded-Host": "localhost"},
        {"X-Client-IP": "10.0.0.1"},
    ],
)
def test_local_mode_is_closed_to_other_names_and_proxies(client: FlaskClient, headers: dict[str, str]) -> None:
    assert_problem(client.get("/v1/people", headers=headers), 401, "unauthorized")


def test_a_page_of_this_machine_may_call(client: FlaskClient) -> None:
    assert client.get("/v1/people", headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_with_a_key_every_request_needs_one(client: FlaskClient, runtime: Runtime) -> None:
    record, secret = runtime.keys.create(scopes=["admin"], collection=None, label="test")
    assert_problem(client.get("/v1/people"), 401, "unauthorized")
    assert client.get("/v1/people", headers={"X-API-Key": secret}).status_code == 200
    assert client.get("/v1/people", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert client.get("/health/ready").status_code == 200
    runtime.keys.revoke(record.id)
    assert_problem(client.get("/v1/people", headers={"X-API-Key": secret}), 401, "unauthorized")
    assert_problem(client.get("/v1/people"), 401, "unauthorized")


WRONG_KEYS = {
    "one letter off": lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
    "one letter more": lambda key: key + "x",
    "empty": lambda key: "",
    "very long": lambda key: "x" * 5000,
}


@pytest.mark.parametrize("how", WRONG_KEYS)
def test_a_wrong_key_is_refused_and_not_repeated(client: FlaskClient, runtime: Runtime, how: str) -> None:
    _, secret = runtime.keys.create(scopes=["admin"], collection=None, label="test")
    wrong = WRONG_KEYS[how](secret)
    response = client.get("/v1/people", headers={"X-API-Key": wrong})
    assert_problem(response, 401, "unauthorized")
    assert not wrong or wrong not in response.text
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_scope_allows_just_its_routes(client: FlaskClient, runtime: Runtime, photo: Photos) -> None:
    _, secret = runtime.keys.create(scopes=["recognize"], collection=None, label="camera")
    headers = {"X-API-Key": secret}
    assert post(client, "/recognize", photo["obama"], headers=headers).status_code == 200
    assert_problem(post(client, "/enroll", photo["obama"], name="Ada", headers=headers), 403, "forbidden")
    assert_problem(client.get("/v1/people", headers=headers), 403, "forbidden")


def test_a_key_of_one_collection_opens_no_other(
    client: FlaskClient, runtime: Runtime, photo: Photos, other_collection: str
) -> None:
    person = post(client, "/enroll", photo["obama"], name="Ada").json["person"]
    _, secret = runtime.keys.create(scopes=["admin"], collection=other_collection, label="")
    headers = {"X-API-Key": secret}
    assert_problem(client.get("/v1/people", headers=headers), 403, "forbidden")
    assert_problem(post(client, "/recognize", photo["obama"], headers=headers), 403, "forbidden")
    assert client.get(f"/v1/people?collection={other_collection}", headers=headers).status_code == 200
    assert_problem(client.get(f"/v1/people/{person['id']}", headers=headers), 404, "person_not_found")
    assert_problem(client.delete(f"/v1/people/{person['id']}", headers=headers), 404, "person_not_found")


@pytest.mark.parametrize(
    ("own", "asked", "is_same"),
    [("Caf\u00e9", " CAFE\u0301", True), ("\u03b1\u0303\u03b9", "\u03b1\u0303\u0345", False)],
)
def test_a_collection_is_the_same_to_a_key_as_it_is_to_the_gallery(
    client: FlaskClient, runtime: Runtime, own: str, asked: str, is_same: bool
) -> None:
    runtime.gallery.create_collection(own, {}, Deadline(10))
    headers = {"X-API-Key": runtime.keys.create(scopes=["admin"], collection=own)[1]}
    people = client.get("/v1/people", query_string={"collection": asked}, headers=headers)
    made = client.post("/v1/keys", json={"scopes": ["enroll"], "collection": asked}, headers=headers)
    assert (people.status_code, made.status_code) == ((200, 201) if is_same else (403, 403))


@pytest.fixture
def other_collection(client: FlaskClient, runtime: Runtime) -> Iterator[str]:
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO collections (name, name_key) VALUES ('doors', 'doors')")
    yield "doors"


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": f"rk_{'0' * 16}_{'0' * 64}"}])
def test_looking_a_key_up_ends_with_the_requests_deadline(
    client: FlaskClient, runtime: Runtime, postgres_url: str, headers: dict[str, str]
) -> None:
    hurried = Runtime(runtime.settings.model_copy(update={"request_timeout_seconds": 0.5}))
    with closing(hurried), closing(psycopg2.connect(postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        answer = create_app(hurried.settings, hurried).test_client().get("/v1/people", headers=headers)
        assert_problem(answer, 504, "deadline_exceeded")
