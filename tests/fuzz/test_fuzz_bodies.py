"""Damaged uploads and options to the real app: an answer or a problem, never a failure of the service."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from fuzzing import bounded, damaged
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from recognizer import config
from recognizer.app import create_app
from recognizer.gallery.migrate import migrate
from recognizer.runtime import Runtime

PATHS = ["/recognize", "/enroll", "/v1/detect", "/v1/verify", "/v1/recognize/batch", "/v1/recognize/event", "/v1/keys"]


def _uploads() -> list[tuple[str, bytes]]:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((40, 40)).save(file, "PNG")
    photo = file.getvalue()
    form = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % part
        for part in [(b"name", b"", b"Ada"), (b"top_k", b"", b"3"), (b"image", b'; filename="a.png"', photo)]
    )
    text = base64.b64encode(photo).decode()
    options = {"image": text, "name": "Ada", "metadata": {"a": [1]}, "include": "landmarks", "unique": True}
    return [
        ("multipart/form-data; boundary=b", form + b"--b--\r\n"),
        ("application/json", json.dumps(options).encode()),
        ("application/json", json.dumps({"images": [text, text], "collection": "default"}).encode()),
        ("image/png", photo),
        ("application/x-www-form-urlencoded", b"name=Ada&scopes=admin"),
    ]


UPLOADS = _uploads()


@pytest.fixture(scope="module")
def app(postgres_url: str, short_tmp: Path) -> Iterator[Flask]:
    migrate(postgres_url, 60)
    settings = config.load({"database_url": postgres_url, "data_dir": short_tmp / "fuzz", "workers": 1})
    runtime = Runtime(settings)
    yield create_app(settings, runtime)
    runtime.close()


def test_damaged_bodies_are_answered_or_refused(app: Flask) -> None:
    client = app.test_client()

    @bounded(400)
    @given(
        st.sampled_from(PATHS),
        st.sampled_from([kind for kind, _ in UPLOADS]),
        damaged(st.sampled_from([body for _, body in UPLOADS])),
        st.text(max_size=20),
    )
    def send(path: str, kind: str, body: bytes, option: str) -> None:
        with client.post(path, data=body, content_type=kind, query_string={"collection": option}) as response:
            assert response.status_code < 500, response.get_data(as_text=True)
            if response.status_code >= 400:
                assert response.get_json()["code"]

    send()
