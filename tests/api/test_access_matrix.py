"""Every route with every kind of key: what docs/security.md says, line by line, is what the app answers."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from recognizer.deadline import Deadline
from recognizer.faces import Box, KeptPhoto, NewFace, Quality
from recognizer.runtime import Runtime

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"

KINDS = ("no key", "wrong key", "wrong scope", "other collection", "expired", "revoked", "right key")
NOT_ENOUGH = {"recognize": "enroll", "enroll": "recognize", "admin": "enroll", "public": "recognize"}
"""A scope that does not do for the other one."""

BODIES: dict[str, Callable[[Target], object]] = {
    "POST /enroll": lambda target: {"name": "Ada", "image": target.picture},
    "POST /v1/enroll": lambda target: {"name": "Ada", "image": target.picture},
    "POST /v1/verify": lambda target: {"person_id": target.person_id, "image": target.picture},
    "POST /v1/keys": lambda target: {"scopes": ["recognize"], "collection": "default"},
    "POST /v1/keys/{key_id}/rotate": lambda target: {},
    "POST /v1/collections/{name}/calibrate": lambda target: {},
    "POST /v1/collections": lambda target: {"name": target.name},
    "PATCH /v1/collections/{name}": lambda target: {"threshold": 0.6},
    "PATCH /v1/people/{person_id}": lambda target: {"metadata": {}},
    "POST /v1/people/{person_id}/merge": lambda target: {"into": target.other_person_id},
}
"""What is sent where a picture without a face would not do."""

KEPT = KeptPhoto("image/jpeg", b"photo", b"chip")

addresses = (f"10.{number // 65536}.{number // 256 % 256}.{number % 256}" for number in count())


@dataclass(frozen=True)
class Target:
    """What the routes of a test work on, all of it in the collection `default`."""

    person_id: str
    other_person_id: str
    face_id: str
    rejection_id: str
    key_id: str
    picture: str
    name: str = "default"


def documented() -> dict[str, list[str]]:
    """The cells of the document's table by route: its scope, then the status for each kind of key."""
    text = DOCUMENT.read_text(encoding="utf-8")
    header = re.search(r"^\| route \| scope \| (.+) \|$", text, flags=re.M)
    assert header is not None
    assert header[1].split(" | ") == list(KINDS)
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (.+) \|$", text, flags=re.M)
    assert len(rows) == len(dict(rows)), "a route stands there twice"
    return {route: cells.split(" | ") for route, cells in rows}


def routes(app: Flask) -> dict[str, str]:
    """All routes of the app, as `GET /v1/people/{person_id}`, each with the scope it was registered with."""
    found = {}
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            found[f"{method} {path}"] = app.view_functions[rule.endpoint].operation.scope
    return found


@pytest.fixture
def keys(client: FlaskClient, runtime: Runtime) -> Callable[[str], dict[str, str | None]]:
    """Makes a key of each kind for a route that needs the given scope."""
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO collections (name, name_key) VALUES ('other', 'other')")
        cursor.execute("UPDATE collections SET keep_photos = true WHERE name = 'default'")

    def make(scope: str) -> dict[str, str | None]:
        enough = ["recognize"] if scope == "public" else [scope]
        expiring, expired = runtime.keys.create(
            scopes=enough, collection="default", expires_at=datetime.now(UTC) + timedelta(days=1)
        )
        with runtime.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = %s", (expiring.id,))
        ended, revoked = runtime.keys.create(scopes=enough, collection="default")
        runtime.keys.revoke(ended.id)
        _, right = runtime.keys.create(scopes=enough, collection="default")
        return {
            "no key": None,
            "wrong key": right[:-64] + hashlib.sha256(right.encode()).hexdigest(),
            "wrong scope": runtime.keys.create(scopes=[NOT_ENOUGH[scope]], collection="default")[1],
            "other collection": runtime.keys.create(scopes=enough, collection="other")[1],
            "expired": expired,
            "revoked": revoked,
            "right key": right,
        }

    return make


@pytest.fixture
def target(runtime: Runtime, no_face: bytes) -> Callable[[], Target]:
    """Makes a person with a face, its photo and a rejection, another person, and a key; a request may destroy them."""
    numbers, picture = count(), base64.b64encode(no_face).decode()

    def make() -> Target:
        number = next(numbers)
        random, deadline = np.random.default_rng(number), Deadline(30)
        embedding = random.normal(0, 0.1, 128).astype(np.float32)
        photo = hashlib.sha256(str(number).encode()).digest()
        face = NewFace(0, Box(1, 2, 90, 100), Quality(0.9, ()), embedding, runtime.engine.model_id, photo, KEPT)
        enrolment = runtime.gallery.enrol("default", [face], name=f"Person {number}", deadline=deadline)
        other = runtime.gallery.enrol("default", [face], name=f"Other {number}", deadline=deadline)
        rejection, _ = runtime.gallery.reject(
            enrolment.person_id, -embedding, runtime.engine.model_id, "local", deadline
        )
        key, _ = runtime.keys.create(scopes=["recognize"], collection="default")
        return Target(
            enrolment.person_id, other.person_id, enrolment.enrolled[0].face_id, rejection.id, key.id, picture
        )

    return make


def answer(client: FlaskClient, route: str, key: str | None, target: Target) -> int:
    method, _, rule = route.partition(" ")
    path = rule.format(**vars(target))
    arguments: dict[str, Any] = {"headers": {"X-API-Key": key} if key else {}}
    if method in ("POST", "PATCH", "PUT"):
        arguments["json"] = BODIES.get(route, lambda target: {"image": target.picture})(target)
    # each from an address of its own: many wrong keys from one are another answer
    with client.open(path, method=method, environ_base={"REMOTE_ADDR": next(addresses)}, **arguments) as response:
        return response.status_code


def test_the_document_has_every_route_with_its_scope(app: Flask) -> None:
    assert {route: cells[0] for route, cells in documented().items()} == routes(app)


def test_every_route_answers_every_key_as_documented(
    app: Flask,
    client: FlaskClient,
    keys: Callable[[str], dict[str, str | None]],
    target: Callable[[], Target],
) -> None:
    wrong = []
    by_scope = {scope: keys(scope) for scope in set(routes(app).values())}
    for route, (scope, *expected) in documented().items():
        found = [str(answer(client, route, by_scope[scope][kind], target())) for kind in KINDS]
        if found != expected:
            wrong.append(f"| `{route}` | {scope} | {' | '.join(found)} |")
    assert not wrong, "these rows are answered otherwise, namely:\n" + "\n".join(wrong)
