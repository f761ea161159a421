"""POST /recognize: who is in the photo."""

from __future__ import annotations

import base64
import io
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import Photos, assert_problem, encoded, enroll, post
from flask.testing import FlaskClient
from PIL import Image

from recognizer.app import create_app
from recognizer.runtime import Runtime


def test_an_enrolled_person_is_recognised_in_another_photo(client: FlaskClient, photo: Photos) -> None:
    ada = enroll(client, "Obama", photo["obama"])["person"]
    enroll(client, "Biden", photo["biden"])
    response = post(client, "/recognize", photo["obama2"], top_k=2, include="timings")
    body = response.json
    (face,) = body["faces"]
    assert face["decision"] == "match"
    assert face["person"] == {"id": ada["id"], "name": "Obama"}
    assert 0 < face["distance"] < face["threshold"]
    assert [c["person"]["name"] for c in face["candidates"]] == ["Obama", "Biden"]
    assert face["margin"] == pytest.approx(
        face["candidates"][0]["confidence"] - face["candidates"][1]["confidence"], abs=1e-5
    )
    assert face["confidence"] > 0.5
    assert face["matched_face_id"]
    assert face["reasons"]
    assert {"decode", "detect", "encode", "search", "total"} <= body["timings_ms"].keys()
    assert body["gallery_revision"] >= 2
    assert body["image"]["format"] == "JPEG"


def test_a_stranger_is_unknown_and_named_nowhere_but_in_candidates(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Biden", photo["biden"])
    (face,) = post(client, "/recognize", photo["obama"]).json["faces"]
    assert (face["decision"], face["person"]) == ("unknown", None)
    assert face["confidence"] < 0.5
    assert len(face["candidates"]) == 1


def test_an_empty_gallery_knows_nobody(client: FlaskClient, photo: Photos) -> None:
    (face,) = post(client, "/recognize", photo["obama"]).json["faces"]
    assert face["decision"] == "unknown"
    nothing = {"person", "distance", "threshold", "confidence", "margin", "matched_face_id"}
    assert {face[name] for name in nothing} == {None}
    assert face["candidates"] == []


def test_no_face_is_no_error(client: FlaskClient, no_face: bytes) -> None:
    response = post(client, "/recognize", no_face)
    assert response.status_code == 200
    assert response.json["faces"] == []
    assert response.json["image"] == {"width": 320, "height": 240, "format": "JPEG"}


def test_several_faces_come_largest_first_each_with_its_person(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama2"])
    enroll(client, "Biden", photo["biden"])
    faces = post(client, "/recognize", photo.two_faces()).json["faces"]
    assert {face["person"]["name"] for face in faces} == {"Obama", "Biden"}
    areas = [(f["box"]["right"] - f["box"]["left"]) * (f["box"]["bottom"] - f["box"]["top"]) for f in faces]
    assert areas == sorted(areas, reverse=True)


def test_the_three_ways_to_send_an_image_give_the_same_answer(client: FlaskClient, photo: Photos) -> None:
    data = photo["obama"]
    text = base64.b64encode(data).decode()
    answers = [
        post(client, "/recognize", data, include="embedding"),
        client.post("/recognize?include=embedding", data=data, content_type="image/jpeg"),
        client.post("/v1/recognize", json={"image": text, "include": "embedding"}),
        client.post("/v1/recognize", json={"images": [f"data:image/jpeg;base64,{text}"], "include": ["embedding"]}),
    ]
    embeddings = [np.array(answer.json["faces"][0]["embedding"]) for answer in answers]
    assert embeddings[0].shape == (128,)
    assert all(np.array_equal(embedding, embeddings[0]) for embedding in embeddings)


def test_the_embedding_equals_that_of_face_recognition(client: FlaskClient, photo: Photos, photos: Path) -> None:
    (face,) = post(client, "/recognize", photo["obama"], include="embedding").json["faces"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import face_recognition
    pixels = face_recognition.load_image_file(photos / "obama.jpg")
    box = face["box"]
    (expected,) = face_recognition.face_encodings(pixels, [(box["top"], box["right"], box["bottom"], box["left"])])
    assert np.abs(np.array(face["embedding"]) - expected).max() <= 1e-4


def test_included_members_come_only_when_asked_for(client: FlaskClient, photo: Photos) -> None:
    plain = post(client, "/recognize", photo["obama"]).json
    assert "timings_ms" not in plain
    assert not {"landmarks", "embedding"} & plain["faces"][0].keys()
    full = post(client, "/recognize", photo["obama"], include="landmarks,embedding,timings").json
    assert len(full["faces"][0]["landmarks"]) == 5


def test_a_threshold_in_the_request_overrides(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    (face,) = post(client, "/recognize", photo["obama2"], threshold="0.05").json["faces"]
    assert (face["decision"], face["threshold"]) == ("unknown", 0.05)
    (face,) = post(client, "/recognize", photo["biden"], threshold="1.9").json["faces"]
    assert face["decision"] == "match"


def test_a_revision_not_reached_yet_is_not_answered(client: FlaskClient, photo: Photos) -> None:
    revision = enroll(client, "Obama", photo["obama"])["gallery_revision"]
    assert post(client, "/recognize", photo["obama2"], min_revision=revision).status_code == 200
    response = post(client, "/recognize", photo["obama2"], min_revision=revision + 1)
    assert_problem(response, 503, "gallery_behind")
    assert int(response.headers["Retry-After"]) > 0


def test_an_unknown_collection_is_404(client: FlaskClient, photo: Photos) -> None:
    assert_problem(post(client, "/recognize", photo["obama"], collection="nope"), 404, "collection_not_found")


@pytest.mark.parametrize(
    "before", [{"embedding_crops": 6}, {"detector": "hog"}, {"embedding_crops": 2, "detector": "hog"}]
)
def test_a_gallery_made_with_other_crops_or_another_detector_goes_on_working(
    client: FlaskClient, runtime: Runtime, photo: Photos, before: dict[str, Any]
) -> None:
    with closing(Runtime(runtime.settings.model_copy(update=before))) as earlier:
        assert earlier.engine.model_id != runtime.engine.model_id
        ada = enroll(create_app(earlier.settings, earlier).test_client(), "Ada", photo["obama"])
    enroll(client, "Bob", photo["biden"])
    (face,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert face["decision"] == "match"
    assert face["person"]["id"] == ada["person"]["id"]
    assert 0.2 < face["distance"] < 0.5
    enroll(client, "Ada", photo["obama3"])  # faces of both kinds, one person
    (face,) = post(client, "/recognize", photo["obama2"], top_k=5).json["faces"]
    assert [each["person"]["name"] for each in face["candidates"]] == ["Ada", "Bob"]


def test_nobody_is_in_an_image_twice_when_unique_is_asked_for(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama2"])
    enroll(client, "Biden", photo["biden"])
    with Image.open(io.BytesIO(photo["obama"])) as one:
        one = one.convert("RGB").resize((400, 400 * one.height // one.width))
        twice = Image.new("RGB", (800, one.height))
        twice.paste(one, (0, 0))
        twice.paste(one, (400, 0))
    both = post(client, "/recognize", encoded(twice)).json["faces"]
    assert [face["person"]["name"] for face in both] == ["Obama", "Obama"]
    faces = post(client, "/recognize", encoded(twice), unique="true").json["faces"]
    named = [face["person"]["name"] for face in faces if face["person"]]
    assert named == ["Obama"]
    (other,) = [face for face in faces if face["person"] is None]
    assert other["decision"] == "unknown"
    assert "in this image with another face" in other["reasons"][0]


def test_unique_must_be_true_or_false(client: FlaskClient, photo: Photos) -> None:
    assert_problem(post(client, "/recognize", photo["obama"], unique="perhaps"), 400, "invalid_request")


def test_a_stricter_target_of_the_collection_asks_for_more(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    (lenient,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert client.patch("/v1/collections/default", json={"target_fpir": 0.00001}).status_code == 200
    (strict,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert strict["threshold"] < lenient["threshold"]
    assert strict["confidence"] < lenient["confidence"]
    assert strict["distance"] == lenient["distance"]


def test_a_collections_threshold_is_the_plain_rule(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    assert client.patch("/v1/collections/default", json={"threshold": 0.6}).status_code == 200
    (face,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert (face["decision"], face["threshold"]) == ("match", 0.6)
