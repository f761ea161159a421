"""Made-up requests with real photos at every operation of the document: schemathesis against the real app.

A few tries for each operation, always the same, more until one succeeds; SCHEMATHESIS_EXAMPLES=200 makes so many,
others each time.
"""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from calls import Photos, empty, encoded, post
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, GenerationMode
from schemathesis.generation.feedback import NO_FEEDBACK
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from recognizer.runtime import Runtime

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
NEEDED = {"image", "images", "other_image", "person_id", "name", "into", "scopes", "target_fpir"}
NAMES = ("obama", "obama2", "obama3", "biden")


@pytest.fixture(scope="module")
def small(photo: Photos) -> dict[str, bytes]:
    """Photos of people, small enough to be tried by the hundred."""

    def shrunk(data: bytes) -> bytes:
        with Image.open(io.BytesIO(data)) as image:
            image.thumbnail((400, 400))
            return encoded(image.convert("RGB"))

    return {name: shrunk(photo[name]) for name in NAMES}


@pytest.fixture(scope="module")
def api(app: Flask, small: dict[str, bytes]) -> Iterator[schemathesis.BaseSchema]:
    """The document as schemathesis reads it: what is binary is a photo, whole or cut off, or not."""
    photos = st.sampled_from([*small.values()] * 3 + [small["obama"][:2000]])
    binary = photos | st.binary(max_size=50)
    schemathesis.openapi.format("binary", binary)
    schemathesis.openapi.media_type("image/*", binary)
    schema = schemathesis.openapi.from_dict(_closed(app.test_client().get("/openapi.json").json))
    schema.app = app
    yield schema


def _closed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with answers that have no other members than those it names."""
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document


@dataclass
class Stored:
    """What there is for the requests to meet: an admin's key, and what can stand in a path."""

    key: str
    in_paths: dict[str, list[str]]


def seeded(client: FlaskClient, runtime: Runtime, small: dict[str, bytes]) -> Stored:
    """A gallery that keeps photos, with two people, a rejection, a spare collection and a spare key."""
    spare, _ = runtime.keys.create(scopes=["recognize"], collection=None, label="spare")
    _, secret = runtime.keys.create(scopes=["recognize", "enroll", "admin"], collection=None, label="tests")
    key = {"X-API-Key": secret}
    client.post("/v1/collections", json={"name": "spare"}, headers=key)
    client.patch("/v1/collections/default", json={"keep_photos": True}, headers=key)
    for name in ("obama", "biden"):
        post(client, "/enroll", small[name], name=name, headers=key)
    people = client.get("/v1/people", headers=key).json["people"]
    faces = client.get(f"/v1/people/{people[0]['id']}", headers=key).json["faces"]
    rejection = post(client, f"/v1/people/{people[0]['id']}/rejections", small["obama2"], headers=key).json
    in_paths = {
        "person_id": [person["id"] for person in people][:2],
        "face_id": [face["id"] for face in faces],
        "rejection_id": [rejection["rejection"]["id"]],
        "key_id": [spare.id],
        "name": ["default", "spare", "start.js", "swagger-ui.css"],
    }
    return Stored(secret, in_paths)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a photo, in the message of a failure
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files of the test client
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # other threads of the app do
def test_no_request_gets_an_answer_that_is_not_documented(
    api: schemathesis.BaseSchema,
    client: FlaskClient,
    runtime: Runtime,
    small: dict[str, bytes],
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.setattr("recognizer.api.stream.EventStream.take", lambda self: None)  # a stream that ends
    for result in api.get_all_operations():
        operation = result.ok()
        with subtests.test(operation.label):
            seen: Counter[int] = Counter()
            for examples in [EXAMPLES] if EXAMPLES else [12, 80]:
                empty(postgres_url)
                seen += try_out(operation, seeded(client, runtime, small), small, examples)
                if any(status < 400 for status in seen):
                    break
            else:
                pytest.fail(f"no request was good enough: {dict(seen)}")


def try_out(operation: APIOperation, stored: Stored, small: dict[str, bytes], examples: int) -> Counter[int]:
    """Send requests that keep to the schema and some that do not, and count the statuses."""
    seen: Counter[int] = Counter()
    positive = operation.as_strategy(generation_mode=GenerationMode.POSITIVE, feedback=NO_FEEDBACK)
    negative = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE, feedback=NO_FEEDBACK)

    @settings(
        max_examples=examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=positive | positive | negative, number=st.integers(0, 5), photo=st.sampled_from(NAMES))
    def send(case: Case, number: int, photo: str) -> None:
        if number:
            meet(case, number, small[photo], stored)
        response = case.call(headers={"X-API-Key": stored.key})
        seen[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        behind = response.status_code == 503 and response.json()["code"] == "gallery_behind"
        assert response.status_code < 500 or behind, response.text

    send()
    return seen


def meet(case: Case, number: int, photo: bytes, stored: Stored) -> None:
    """Put in the request what the service knows, ids that exist and photos; every other time leave out what may be."""
    known = {name: values[number % len(values)] for name, values in stored.in_paths.items()}
    case.path_parameters = {name: known.get(name, value) for name, value in (case.path_parameters or {}).items()}
    has_other = isinstance(case.body, dict) and "other_image" in case.body
    case.query = better(case.query or {}, case, number, stored, has_other)
    if isinstance(case.body, dict):
        case.body = better(case.body, case, number, stored, has_other)
        if case.media_type == "application/json":
            text = base64.b64encode(photo).decode()
            in_base64 = {"image": text, "other_image": text, "images": [text]}
            case.body.update({name: value for name, value in in_base64.items() if name in case.body})


def better(options: dict[str, Any], case: Case, number: int, stored: Stored, has_other: bool) -> dict[str, Any]:
    """The options with ids that exist, and who is meant said once: by a name to enrol, by another image, by an id."""
    people = stored.in_paths["person_id"]
    known = {"collection": "default", "person_id": people[0], "into": people[1], "min_revision": 0}
    if number % 2:  # made-up names are hardly ever good ones
        known |= {"name": "Obama", "target_fpir": 0.01}
    kept = {name: known.get(name, value) for name, value in options.items() if not number % 2 or name in NEEDED}
    enrols = "/enroll" in case.path
    barred = {"cursor", "person_id"} if enrols or has_other else {"cursor"}
    return {name: value for name, value in kept.items() if name not in barred} | (
        {"name": "Obama", "force": "true"} if enrols else {}
    )
