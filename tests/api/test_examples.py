"""The examples of the document are answers that the real app gave; WRITE_EXAMPLES=1 takes them anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from calls import Photos, post
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import recognizer

FILE = Path(recognizer.__file__).parent / "api" / "examples.json"


class Scribe:
    """Sends requests and writes down, by the operation's id, what was sent and what came."""

    def __init__(self, app: Flask, client: FlaskClient) -> None:
        self.written: dict[str, dict[str, Any]] = {}
        self._views = {rule.endpoint: rule.endpoint.rpartition(".")[2] for rule in app.url_map.iter_rules()}
        self._adapter = app.url_map.bind("localhost")
        self._client = client
        self.headers: dict[str, str] = {}

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A request with JSON, or without a body."""
        return self._write(method, path, body, self._client.open(path, method=method, json=body, headers=self.headers))

    def upload(self, path: str, *photos: bytes, **options: str) -> Any:
        """A form with photos."""
        return self._write("POST", path, None, post(self._client, path, *photos, headers=self.headers, **options))

    def _write(self, method: str, path: str, body: dict[str, Any] | None, response: TestResponse) -> Any:
        assert response.status_code < 300, response.text
        answer = response.json
        endpoint, _ = self._adapter.match(path.partition("?")[0], method=method)
        shown = {**answer, "secret": answer["secret"][:20] + "..."} if "secret" in answer else answer
        self.written[self._views[endpoint]] = {"answer": shown} | ({"request": body} if body else {})
        return answer


def in_shape(value: Any) -> Any:
    """What kind of thing a value is, lists by their first member; null is any kind."""
    if isinstance(value, dict):
        return {name: in_shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [in_shape(value[0])] if value else []
    return type(value).__name__


@pytest.fixture
def written(app: Flask, client: FlaskClient, photo: Photos) -> dict[str, Any]:
    """A day at a service, from the first photo to the last key."""
    scribe = Scribe(app, client)
    of_people(scribe, photo)
    of_collections(scribe)
    of_keys(scribe)
    scribe.send("GET", "/health/live")
    scribe.send("GET", "/health/ready")
    problem = client.get("/v1/people/nobody", headers=scribe.headers).json
    return {"problem": problem, "operations": scribe.written}


def of_people(scribe: Scribe, photo: Photos) -> None:
    made = scribe.upload("/v1/enroll", photo["obama"], name="Barack Obama")
    biden = scribe.upload("/v1/enroll", photo["biden"], name="Joe Biden")["person"]["id"]
    twice = scribe.upload("/v1/enroll", photo["obama3"], name="B. Obama", force="true")["person"]["id"]
    one = f"/v1/people/{made['person']['id']}"
    scribe.upload("/v1/recognize", photo["obama2"])
    scribe.upload("/v1/recognize/batch", photo["obama2"], b"no photo")
    scribe.upload("/v1/recognize/event", photo["obama2"], photo["obama3"])
    scribe.upload("/v1/detect", photo["obama2"])
    scribe.upload("/v1/embed", photo["obama2"])
    scribe.upload("/v1/verify", photo["obama2"], person_id=made["person"]["id"])
    scribe.upload(f"{one}/faces", photo["obama2"])
    scribe.send("GET", "/v1/people?limit=2")
    scribe.send("GET", one)
    scribe.send("PATCH", one, {"external_id": "emp-44", "metadata": {"team": "night shift"}})
    scribe.send("POST", f"/v1/people/{twice}/merge", {"into": made["person"]["id"]})
    rejection = scribe.upload(f"{one}/rejections", photo["biden"])["rejection"]["id"]
    scribe.send("GET", f"{one}/rejections")
    scribe.send("DELETE", f"{one}/rejections/{rejection}")
    scribe.send("POST", "/v1/collections/default/calibrate")
    scribe.send("DELETE", f"{one}/faces/{made['enrolled'][0]['face_id']}")
    scribe.send("DELETE", f"/v1/people/{biden}")


def of_collections(scribe: Scribe) -> None:
    scribe.send("POST", "/v1/collections", {"name": "front door", "target_fpir": 0.001})
    scribe.send("GET", "/v1/collections")
    scribe.send("GET", "/v1/collections/front door")
    scribe.send("PATCH", "/v1/collections/front door", {"target_fpir": None, "threshold": 0.6})
    scribe.send("DELETE", "/v1/collections/front door")


def of_keys(scribe: Scribe) -> None:
    own = scribe.send("POST", "/v1/keys", {"scopes": ["admin", "enroll"], "label": "console"})
    scribe.headers = {"X-API-Key": own["secret"]}
    camera = {"scopes": ["recognize"], "collection": "default", "label": "door camera", "expires_in_days": 365}
    made = scribe.send("POST", "/v1/keys", camera)
    scribe.send("GET", "/v1/keys")
    scribe.send("GET", f"/v1/audit?actor={own['id']}")
    scribe.send("POST", f"/v1/keys/{made['id']}/rotate", {"expires_in_days": 365})
    scribe.send("DELETE", f"/v1/keys/{made['id']}")


def test_the_examples_have_the_shape_of_real_answers(written: dict[str, Any]) -> None:
    if os.environ.get("WRITE_EXAMPLES"):
        FILE.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert in_shape(json.loads(FILE.read_text(encoding="utf-8"))) == in_shape(written)


def test_the_document_shows_them(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    known = json.loads(FILE.read_text(encoding="utf-8"))["operations"]
    shown = {}
    for item in document["paths"].values():
        for operation in item.values():
            for status in ("200", "201"):
                content = operation["responses"].get(status, {}).get("content", {})
                if "example" in content.get("application/json", {}):
                    shown[operation["operationId"]] = content["application/json"]["example"]
    assert {name: example["answer"] for name, example in known.items()}.items() <= shown.items()
