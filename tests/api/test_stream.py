"""GET /v1/events: recognitions as they happen. Here a thread sends them; tests/servers/test_streams.py has gunicorn."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from calls import Photos, assert_problem, enroll, post
from flask.testing import FlaskClient

from recognizer import news
from recognizer.runtime import Runtime

NEXT = dict[str, Any]


def heard(client: FlaskClient, **options: Any) -> Iterator[tuple[str, NEXT]]:
    """The events of a stream, heartbeats left out; the first says that it hears."""
    with closing(client.get("/v1/events", **options)) as response:
        assert response.status_code == 200, response.text
        assert response.content_type.startswith("text/event-stream")
        for piece in response.response:
            for block in piece.decode().split("\n\n"):
                fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
                if "event" in fields:
                    yield fields["event"], json.loads(fields["data"])


def test_a_recognition_is_told_as_it_happens_and_tells_no_more_than_it_must(
    client: FlaskClient, photo: Photos, no_face: bytes
) -> None:
    ada = enroll(client, "Ada Ünlü", photo["obama"])["person"]
    with closing(heard(client)) as events:
        assert next(events) == ("ready", {})
        post(client, "/recognize", no_face)
        answer = post(client, "/recognize", photo.two_faces(), headers={"X-Request-ID": "abc-1"}).json
        told = [next(events) for _ in answer["faces"]]
        post(client, "/v1/recognize/event", photo["obama2"])
        told_of_event = next(events)
    assert [event for event, _ in told] == ["recognition", "recognition"]
    for number, ((_, data), face) in enumerate(zip(told, answer["faces"], strict=True)):
        assert data.pop("time") > "2020"
        assert data == {
            "request_id": "abc-1",
            "collection": "default",
            "image": 0,
            "face": number,
            "decision": face["decision"],
            "person": face["person"],
            "confidence": face["confidence"],
        }
    assert {"id": ada["id"], "name": "Ada Ünlü"} in [data["person"] for _, data in told]
    assert told_of_event[1]["person"]["id"] == ada["id"]


def test_a_key_hears_of_its_collection_only(client: FlaskClient, runtime: Runtime, photo: Photos) -> None:
    assert client.post("/v1/collections", json={"name": "Other"}).status_code == 201
    _, everywhere = runtime.keys.create(scopes=["admin"])
    _, only_other = runtime.keys.create(scopes=["admin"], collection="Other")
    key = {"X-API-Key": everywhere}
    assert_problem(client.get("/v1/events?collection=default", headers={"X-API-Key": only_other}), 403, "forbidden")
    with closing(heard(client, headers={"X-API-Key": only_other})) as events:
        assert next(events)[0] == "ready"
        post(client, "/recognize", photo["biden"], headers=key)
        post(client, "/recognize", photo["biden"], headers=key, collection="other")
        assert next(events)[1]["collection"] == "Other"
    with closing(heard(client, headers=key, query_string={"collection": "default"})) as events:
        assert next(events)[0] == "ready"
        post(client, "/recognize", photo["biden"], headers=key, collection="other")
        post(client, "/recognize", photo["biden"], headers=key)
        assert next(events)[1]["collection"] == "default"


def test_the_places_are_few_and_free_again_when_a_client_leaves(client: FlaskClient) -> None:
    with closing(heard(client)) as events:
        next(events)
        refused = client.get("/v1/events")
        assert_problem(refused, 503, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
    with closing(heard(client)) as events:
        assert next(events)[0] == "ready"


@pytest.mark.parametrize("how", ["revoked", "rotated", "first key made"])
def test_a_stream_ends_with_what_allowed_it(
    client: FlaskClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    while runtime.news._listening:  # for the test before, and less often than here
        time.sleep(0.05)
    monkeypatch.setattr(news, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(news, "LOOK_SECONDS", 0.05)
    headers = {}
    if how != "first key made":
        record, key = runtime.keys.create(scopes=["admin"])
        headers = {"X-API-Key": key}
    with closing(heard(client, headers=headers)) as events:
        assert next(events)[0] == "ready"
        if how == "revoked":
            runtime.keys.revoke(record.id)
        elif how == "rotated":
            runtime.keys.rotate(record.id)
        else:
            runtime.keys.create(scopes=["recognize"])
        assert list(events) == []


def test_heartbeats_tell_that_the_stream_is_alive(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recognizer.api.stream.HEARTBEAT_SECONDS", 0.05)
    with client.get("/v1/events") as response:
        pieces = iter(response.response)
        assert b"retry: " in next(pieces)
        assert b": heartbeat\n\n" in [next(pieces) for _ in range(3)]


def test_what_is_asked_wrongly_is_refused(client: FlaskClient) -> None:
    assert_problem(client.get("/v1/events?collection=nowhere"), 404, "collection_not_found")
    assert_problem(client.get("/v1/events?collection="), 400, "invalid_request")
    assert_problem(client.get("/v1/events?person=x"), 400, "invalid_request")
    assert_problem(client.post("/v1/events"), 405, "method_not_allowed")
    head = client.head("/v1/events")
    assert (head.status_code, head.data) == (200, b"")
