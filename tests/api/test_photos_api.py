"""Kept photos over HTTP: switched on, shown, switched off."""

from __future__ import annotations

import io

import numpy as np
import pytest
from calls import Photos, assert_problem, enroll, post
from flask.testing import FlaskClient
from PIL import Image

from recognizer.deadline import Deadline
from recognizer.keyring import Keyring
from recognizer.runtime import Runtime


@pytest.fixture
def keeping(client: FlaskClient) -> FlaskClient:
    """A client of an app whose collection `default` keeps photos."""
    assert client.patch("/v1/collections/default", json={"keep_photos": True}).json["photos"] == 0
    return client


@pytest.fixture
def without_keys(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encryption keys are lost."""
    monkeypatch.setattr(runtime.pool, "keyring", Keyring())


def image_of(enrolled: dict[str, object]) -> str:
    return f"/v1/people/{enrolled['person']['id']}/faces/{enrolled['enrolled'][0]['face_id']}/image"


def test_the_photo_comes_back_byte_by_byte_and_the_chip_is_what_was_encoded(
    keeping: FlaskClient, runtime: Runtime, photo: Photos
) -> None:
    enrolled = enroll(keeping, "Obama", photo["obama"])
    answer = keeping.get(image_of(enrolled))
    assert (answer.status_code, answer.content_type, answer.data) == (200, "image/jpeg", photo["obama"])
    assert answer.headers["Cache-Control"] == "no-store"
    chip = keeping.get(image_of(enrolled), query_string={"kind": "chip"})
    assert (chip.status_code, chip.content_type) == (200, "image/png")
    with Image.open(io.BytesIO(chip.data)) as image:
        assert (image.size, image.mode) == ((150, 150), "RGB")
        pixels = np.asarray(image)
    (found,) = runtime.engine.analyse(photo["obama"], Deadline(30), chips=True).faces
    with Image.open(io.BytesIO(found.chip or b"")) as image:
        assert (np.asarray(image) == pixels).all()
    (face,) = keeping.get(f"/v1/people/{enrolled['person']['id']}").json["faces"]
    assert face["photo"] is True


def test_recognition_makes_no_chip(runtime: Runtime, photo: Photos) -> None:
    (found,) = runtime.engine.analyse(photo["obama"], Deadline(30)).faces
    assert found.chip is None


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_photo_keeps_its_type(keeping: FlaskClient, photo: Photos, kind: str) -> None:
    file = io.BytesIO()
    with Image.open(io.BytesIO(photo["obama"])) as image:
        image.save(file, kind)
    enrolled = enroll(keeping, "Obama", file.getvalue())
    answer = keeping.get(image_of(enrolled))
    assert (answer.content_type, answer.data) == (f"image/{kind.lower()}", file.getvalue())


def test_without_keep_photos_there_is_none(client: FlaskClient, photo: Photos) -> None:
    enrolled = enroll(client, "Obama", photo["obama"])
    assert_problem(client.get(image_of(enrolled)), 404, "photo_not_found")
    (face,) = client.get(f"/v1/people/{enrolled['person']['id']}").json["faces"]
    assert face["photo"] is False


def test_to_switch_it_off_erases_what_was_kept(keeping: FlaskClient, photo: Photos) -> None:
    enrolled = enroll(keeping, "Obama", photo["obama"])
    assert keeping.get("/v1/collections/default").json["photos"] == 1
    changed = keeping.patch("/v1/collections/default", json={"keep_photos": False}).json
    assert (changed["photos"], changed["faces"]) == (0, 1)
    assert_problem(keeping.get(image_of(enrolled)), 404, "photo_not_found")


def test_without_a_key_photos_can_not_be_kept(client: FlaskClient, without_keys: None) -> None:
    answer = client.patch("/v1/collections/default", json={"keep_photos": True})
    assert "create-key" in assert_problem(answer, 503, "encryption_key_missing")["detail"]
    answer = client.post("/v1/collections", json={"name": "visitors", "keep_photos": True})
    assert_problem(answer, 503, "encryption_key_missing")
    assert client.get("/v1/collections/default").json["keep_photos"] is False


def test_when_the_key_is_lost_nothing_is_enrolled_or_shown(
    keeping: FlaskClient, photo: Photos, request: pytest.FixtureRequest
) -> None:
    enrolled = enroll(keeping, "Obama", photo["obama"])
    request.getfixturevalue("without_keys")
    assert_problem(post(keeping, "/enroll", photo["biden"], name="Biden"), 503, "encryption_key_missing")
    assert [each["name"] for each in keeping.get("/v1/people").json["people"]] == ["Obama"]
    assert_problem(keeping.get(image_of(enrolled)), 503, "encryption_key_missing")
    assert post(keeping, "/recognize", photo["obama"]).json["faces"][0]["decision"] == "match"


def test_a_damaged_photo_is_told_of_and_logged(
    keeping: FlaskClient, runtime: Runtime, photo: Photos, caplog: pytest.LogCaptureFixture
) -> None:
    enrolled = enroll(keeping, "Obama", photo["obama"])
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE photos SET photo = set_byte(photo, 100, 255 - get_byte(photo, 100))")
    assert_problem(keeping.get(image_of(enrolled)), 500, "stored_data_damaged")
    assert "Stored data is damaged" in caplog.text
