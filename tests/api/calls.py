"""How the tests call the API, and the one shape every error must have."""

from __future__ import annotations

import io
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import psycopg2.errors
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse


class Photos:
    """Real photos as bytes, by short name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> bytes:
        return next(self._folder.glob(f"{name}.*")).read_bytes()

    def two_faces(self) -> bytes:
        """Obama and Biden side by side."""
        with Image.open(self._folder / "obama.jpg") as left, Image.open(self._folder / "biden.jpg") as right:
            height = 500
            both = [im.convert("RGB").resize((im.width * height // im.height, height)) for im in (left, right)]
        page = Image.new("RGB", (both[0].width + both[1].width, height))
        page.paste(both[0], (0, 0))
        page.paste(both[1], (both[0].width, 0))
        return encoded(page)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def empty(postgres_url: str) -> None:
    """Take everything out of the gallery, keys and collections too."""
    with closing(psycopg2.connect(postgres_url)) as connection:
        for _ in range(20):
            with suppress(psycopg2.errors.DeadlockDetected), connection, connection.cursor() as cursor:
                cursor.execute("TRUNCATE people, faces, spaces, api_keys, idempotency_keys CASCADE")
                cursor.execute("DELETE FROM collections WHERE name <> 'default'")
                cursor.execute(
                    "UPDATE collections SET threshold = NULL, target_fpir = NULL, keep_photos = false,"
                    " retention_days = NULL, encrypt_embeddings = false"
                )
                return
    raise AssertionError("the keeper of the app's cohorts holds the tables whenever they are to be emptied")


def post(
    client: FlaskClient,
    path: str,
    *images: bytes,
    other: bytes | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> TestResponse:
    """POST images, one of them as `other_image`, and options as a form, as curl -F does."""
    files = [("image", (f"{number}.jpg", image)) for number, image in enumerate(images)]
    files += [("other_image", ("other.jpg", other))] if other is not None else []
    form = httpx.Request("POST", "http://localhost", files=files or {"": ("", b"")}, data=options)
    kind = {"Content-Type": form.headers["Content-Type"]}
    return client.post(path, data=form.read(), headers={**kind, **(headers or {})})


def enroll(client: FlaskClient, name: str, *images: bytes, **options: Any) -> dict[str, Any]:
    response = post(client, "/enroll", *images, name=name, **options)
    assert response.status_code == 201, response.text
    assert isinstance(response.json, dict)
    return response.json


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The error is in the one shape, says what to do and tells nothing about the inside."""
    assert (response.status_code, response.json and response.json["code"]) == (status, code), response.text
    assert response.content_type == "application/problem+json"
    body = response.json
    assert {"type", "title", "status", "code", "detail", "request_id"} <= body.keys()
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-ID"] != ""
    assert body["detail"].endswith((".", "?", '.")')), body["detail"]
    assert len(body["detail"]) < 500
    for inside in ("Traceback", "Error(", "Exception", "psycopg", "/tmp/", "recognizer/", 'File "'):
        assert inside not in response.text, response.text
    return body
