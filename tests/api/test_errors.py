"""Bad input of every kind: the right status and code in the one shape, and nothing else happens."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from calls import Photos, assert_problem, encoded, post
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from recognizer import errors
from recognizer.api import problems


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


CASES: dict[str, tuple[int, str, Callable[[FlaskClient, Photos], TestResponse]]] = {
    "nothing": (400, "image_missing", lambda c, p: c.post("/recognize")),
    "a form without image": (400, "image_missing", lambda c, p: post(c, "/recognize")),
    "an empty file": (400, "image_missing", lambda c, p: post(c, "/recognize", b"")),
    "an empty body": (
        400,
        "image_missing",
        lambda c, p: c.post("/recognize", data=b"", content_type="image/png"),
    ),
    "a text field": (
        400,
        "image_missing",
        lambda c, p: c.post("/recognize", data={"image": "a.jpg"}, content_type="multipart/form-data"),
    ),
    "another part": (
        400,
        "image_missing",
        lambda c, p: c.post("/recognize", data={"file": (io.BytesIO(p["obama"]), "a.jpg")}),
    ),
    "two images": (400, "invalid_request", lambda c, p: post(c, "/recognize", p["obama"], p["biden"])),
    "text": (415, "image_unsupported", lambda c, p: post(c, "/recognize", b"This is no image. " * 50)),
    "a PDF": (415, "image_unsupported", lambda c, p: post(c, "/recognize", b"%PDF-1.4\n" + b"\0" * 500)),
    "an SVG": (
        415,
        "image_unsupported",
        lambda c, p: post(c, "/recognize", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ),
    "a truncated JPEG": (422, "image_corrupt", lambda c, p: post(c, "/recognize", p["obama"][:20_000])),
    "a cut header": (422, "image_corrupt", lambda c, p: post(c, "/recognize", p["obama"][:10])),
    "a 200-megapixel header": (
        413,
        "image_too_large",
        lambda c, p: post(c, "/recognize", png_header(20_000, 10_000)),
    ),
    "a bomb": (413, "image_too_large", lambda c, p: post(c, "/recognize", png_header(65_535, 65_535))),
    "a lying header": (422, "image_corrupt", lambda c, p: post(c, "/recognize", png_header(900, 900))),
    "an image over the limit": (
        413,
        "image_too_large",
        lambda c, p: post(c, "/recognize", b"\xff\xd8" + b"x" * 6 * 2**20),
    ),
    "a request over the limit": (
        413,
        "image_too_large",
        lambda c, p: post(c, "/recognize", b"x" * 9 * 2**20),
    ),
    "a raw body over the limit": (
        413,
        "image_too_large",
        lambda c, p: c.post("/recognize", data=b"x" * 9 * 2**20, content_type="image/jpeg"),
    ),
    "a wrong content type": (
        415,
        "image_unsupported",
        lambda c, p: c.post("/recognize", data=b"<x/>", content_type="application/xml"),
    ),
    "curl --data-binary": (
        415,
        "image_unsupported",
        lambda c, p: c.post("/recognize", data=p["obama"], content_type="application/x-www-form-urlencoded"),
    ),
    "broken JSON": (
        400,
        "invalid_request",
        lambda c, p: c.post("/recognize", data='{"image": ', content_type="application/json"),
    ),
    "deep JSON": (
        400,
        "invalid_request",
        lambda c, p: c.post("/recognize", data="[" * 100_000, content_type="application/json"),
    ),
    "a JSON list": (400, "invalid_request", lambda c, p: c.post("/recognize", json=[1])),
    "a JSON number": (400, "invalid_request", lambda c, p: c.post("/recognize", json={"image": 1})),
    "JSON null": (400, "image_missing", lambda c, p: c.post("/recognize", json={"image": None})),
    "bad base64": (400, "invalid_request", lambda c, p: c.post("/recognize", json={"image": "@@@"})),
    "a path": (400, "invalid_request", lambda c, p: c.post("/recognize", json={"image": "/etc/passwd.jpg"})),
    "a URL": (
        400,
        "invalid_request",
        lambda c, p: c.post("/recognize", json={"image": "http://localhost/a.jpg"}),
    ),
    "an unknown option": (
        400,
        "invalid_request",
        lambda c, p: post(c, "/recognize", p["obama"], treshold="1"),
    ),
    "an option twice": (
        400,
        "invalid_request",
        lambda c, p: c.post("/recognize?top_k=1&top_k=2", data=p["obama"], content_type="image/jpeg"),
    ),
    "a negative threshold": (
        400,
        "invalid_request",
        lambda c, p: post(c, "/recognize", p["obama"], threshold="-1"),
    ),
    "NaN as threshold": (
        400,
        "invalid_request",
        lambda c, p: post(c, "/recognize", p["obama"], threshold="nan"),
    ),
    "an unknown include": (
        400,
        "invalid_request",
        lambda c, p: post(c, "/recognize", p["obama"], include="soul"),
    ),
    "true as threshold": (
        400,
        "invalid_request",
        lambda c, p: c.post("/recognize", json={"image": "aGVsbG8=", "threshold": True}),
    ),
    "a data URI without data": (400, "invalid_request", lambda c, p: c.post("/recognize", json={"image": "data:x"})),
    "a name that is no UTF-8": (
        400,
        "invalid_request",
        lambda c, p: post(c, "/enroll", p["obama"], name="José".encode("latin-1")),
    ),
    "a stripe": (413, "image_too_large", lambda c, p: post(c, "/recognize", png_header(65_536, 1))),
    "two slashes": (404, "not_found", lambda c, p: c.get("/v1//people")),
    "an unknown route": (404, "not_found", lambda c, p: c.get("/nowhere")),
    "an unknown v1 route": (404, "not_found", lambda c, p: c.get("/v1/nowhere")),
    "a wrong method": (405, "method_not_allowed", lambda c, p: c.get("/recognize")),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_the_right_answer(client: FlaskClient, photo: Photos, name: str) -> None:
    status, code, call = CASES[name]
    assert_problem(call(client, photo), status, code)


def test_a_wrong_method_says_which_are_right(client: FlaskClient) -> None:
    response = client.get("/recognize")
    assert "POST" in response.headers["Allow"]
    assert "POST" in response.json["detail"]


def test_every_domain_error_has_a_status_and_a_code_of_its_own() -> None:
    def below(cls: type[errors.RecognizerError]) -> list[type[errors.RecognizerError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in below(sub))]

    for cls in below(errors.RecognizerError):
        assert cls.code.replace("_", "").isalpha(), cls
        if cls not in (errors.RecognizerError, *below(errors.StartupError)):
            assert 400 <= problems.status_of(cls) != 500 or cls is errors.SealBroken, cls


def test_an_unexpected_error_tells_nothing_and_is_logged(
    client: FlaskClient, photo: Photos, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr("recognizer.service.Service.recognize", fail)
    response = post(client, "/recognize", photo["obama"], headers={"X-Request-ID": "abc-1"})
    body = assert_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert body["request_id"] == "abc-1"
    assert "secret inside" in caplog.text
    assert "abc-1" in caplog.text


@pytest.mark.parametrize("sent", ["", "a" * 129, "a\tb", "x<script>", "ä"])
def test_only_a_sane_request_id_is_taken_over(client: FlaskClient, sent: str) -> None:
    received = client.get("/health/live", headers={"X-Request-ID": sent}).headers["X-Request-ID"]
    assert received != sent
    assert len(received) == 32


def test_odd_images_that_can_be_read_are_answered(client: FlaskClient) -> None:
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        assert post(client, "/recognize", encoded(Image.new(mode, (64, 48)), "PNG")).status_code == 200, mode
