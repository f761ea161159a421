"""POST /v1/detect, /v1/embed, /v1/verify and /v1/recognize/batch."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from calls import Photos, assert_problem, encoded, enroll, post
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from recognizer.deadline import Deadline
from recognizer.errors import DatabaseUnavailable
from recognizer.runtime import Runtime


def send(client: FlaskClient, path: str, *parts: tuple[str, bytes]) -> TestResponse:
    """POST files, each with the name of its part, as a form."""
    form = httpx.Request("POST", "http://localhost", files=[(name, ("photo.jpg", data)) for name, data in parts])
    return client.post(path, data=form.read(), headers={"Content-Type": form.headers["Content-Type"]})


def verify(client: FlaskClient, image: bytes, other: bytes | None = None, **options: Any) -> TestResponse:
    return post(client, "/v1/verify", image, other=other, **options)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- detect and embed --


def test_faces_are_found_with_landmarks_and_nothing_of_the_gallery(client: FlaskClient, photo: Photos) -> None:
    body = post(client, "/v1/detect", photo.two_faces()).json
    assert len(body["faces"]) == 2
    assert body["image"]["format"] == "JPEG"
    for face in body["faces"]:
        assert face.keys() == {"box", "detection_score", "quality", "landmarks"}
        assert len(face["landmarks"]) == 5
        assert all(face["box"]["left"] <= point["x"] <= face["box"]["right"] for point in face["landmarks"])
    wide = max(face["box"]["right"] - face["box"]["left"] for face in body["faces"])
    assert post(client, "/v1/detect", photo.two_faces(), min_face_pixels=wide + 50).json["faces"] == []
    more = post(client, "/v1/detect", photo["obama"], include="embedding,timings").json
    assert len(more["faces"][0]["embedding"]) == 128
    assert {"decode", "detect"} <= more["timings_ms"].keys()


def test_embeddings_are_those_of_recognize_and_name_their_model(
    client: FlaskClient, photo: Photos, runtime: Runtime
) -> None:
    body = post(client, "/v1/embed", photo.two_faces()).json
    recognised = post(client, "/v1/recognize", photo.two_faces(), include="embedding").json
    assert body["model_id"] == runtime.engine.model_id
    assert [face["embedding"] for face in body["faces"]] == [face["embedding"] for face in recognised["faces"]]
    assert "landmarks" not in body["faces"][0]
    largest = post(client, "/v1/embed", photo.two_faces(), face="largest", include="landmarks").json
    assert [face["embedding"] for face in largest["faces"]] == [body["faces"][0]["embedding"]]
    assert len(largest["faces"][0]["landmarks"]) == 5


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/embed"])
def test_no_face_is_an_empty_list(client: FlaskClient, no_face: bytes, path: str) -> None:
    response = post(client, path, no_face)
    assert (response.status_code, response.json["faces"]) == (200, [])


# -- verify: image against image --


def test_two_photos_of_one_person_are_the_same_and_of_two_are_not(client: FlaskClient, photo: Photos) -> None:
    for other, same in (("obama2", True), ("biden", False)):
        body = verify(client, photo["obama"], photo[other]).json
        assert body["same"] is same
        assert (body["distance"] < body["threshold"]) is same
        assert (body["confidence"] > 0.5) is same
        assert body["face"]["box"]["right"] > body["face"]["box"]["left"]
        assert body["other_image"]["width"] > 0
        assert body["other_face"]["quality"]["score"] > 0
        turned = verify(client, photo[other], photo["obama"]).json
        assert turned["confidence"] == pytest.approx(body["confidence"], abs=1e-4), "the order means nothing"


def test_a_photo_is_the_same_as_itself(client: FlaskClient, photo: Photos) -> None:
    body = verify(client, photo["biden"], photo["biden"]).json
    assert (body["same"], body["distance"]) == (True, 0)
    assert body["confidence"] > 0.999


def test_a_threshold_decides_by_distance(client: FlaskClient, photo: Photos) -> None:
    distance = verify(client, photo["obama"], photo["obama2"]).json["distance"]
    for threshold, same in ((distance + 0.01, True), (distance - 0.01, False)):
        body = verify(client, photo["obama"], photo["obama2"], threshold=threshold).json
        assert (body["same"], body["threshold"]) == (same, pytest.approx(threshold, abs=1e-5))


def test_json_and_a_raw_body_do_as_well(client: FlaskClient, photo: Photos) -> None:
    expected = verify(client, photo["obama"], photo["obama2"]).json
    images = {"image": text(photo["obama"]), "other_image": "data:image/jpeg;base64," + text(photo["obama2"])}
    body = client.post("/v1/verify", json=images).json
    assert {**body, "request_id": ""} == {**expected, "request_id": ""}
    ada = enroll(client, "Ada", photo["obama2"])["person"]
    raw = client.post(f"/v1/verify?person_id={ada['id']}", data=photo["obama"], content_type="image/jpeg").json
    assert raw["distance"] == pytest.approx(expected["distance"], abs=1e-5)


def test_the_largest_face_counts_unless_only_one_is_allowed(client: FlaskClient, photo: Photos) -> None:
    assert verify(client, photo.two_faces(), photo["obama2"]).status_code == 200
    for images, which in (
        ((photo.two_faces(), photo["obama"]), "`image`"),
        ((photo["obama"], photo.two_faces()), "`other_image`"),
    ):
        assert which in assert_problem(verify(client, *images, face="single"), 422, "multiple_faces")["detail"]


def test_it_is_said_which_image_is_not_usable(client: FlaskClient, photo: Photos, no_face: bytes) -> None:
    good, broken = photo["obama"], photo["obama"][:5000]
    for images, status, code, which in (
        ((no_face, good), 422, "no_face", "`image`"),
        ((good, no_face), 422, "no_face", "`other_image`"),
        ((good, broken), 422, "image_corrupt", "`other_image`"),
        ((good, b"GIF"), 415, "image_unsupported", "`other_image`"),
        ((good, b""), 400, "image_missing", "`other_image`"),
    ):
        assert which in assert_problem(verify(client, *images), status, code)["detail"]


# -- verify: image against person --


def test_a_person_is_compared_by_all_photos(client: FlaskClient, photo: Photos) -> None:
    enrolment = enroll(client, "Obama", photo["obama2"], photo["obama3"])
    body = verify(client, photo["obama"], person_id=enrolment["person"]["id"]).json
    assert body["same"] is True
    assert body["person"] == {"id": enrolment["person"]["id"], "name": "Obama"}
    assert body["gallery_revision"] == enrolment["gallery_revision"]
    assert body["collection"] == "default"
    single = [verify(client, photo["obama"], photo[name]).json for name in ("obama2", "obama3")]
    nearest = min(range(2), key=lambda number: single[number]["distance"])
    assert body["distance"] == pytest.approx(single[nearest]["distance"], abs=1e-5)
    assert body["matched_face_id"] == enrolment["enrolled"][nearest]["face_id"]
    assert body["confidence"] > max(each["confidence"] for each in single), "two photos say more than one"
    assert verify(client, photo["biden"], person_id=enrolment["person"]["id"]).json["same"] is False


def test_who_else_is_enrolled_changes_nothing(client: FlaskClient, photo: Photos) -> None:
    ada = enroll(client, "Obama", photo["obama2"])["person"]
    before = verify(client, photo["obama"], person_id=ada["id"]).json
    two = verify(client, photo["obama"], photo["obama2"]).json
    enroll(client, "Biden", photo["biden"])
    after = verify(client, photo["obama"], person_id=ada["id"]).json
    assert before["confidence"] == after["confidence"] == pytest.approx(two["confidence"], abs=1e-4)


def test_what_is_set_for_the_collection_holds(client: FlaskClient, photo: Photos) -> None:
    ada = enroll(client, "Obama", photo["obama2"])["person"]
    strict = client.patch("/v1/collections/default", json={"target_fpir": 0.00001})
    assert strict.status_code == 200
    lower = verify(client, photo["obama"], person_id=ada["id"]).json
    assert client.patch("/v1/collections/default", json={"threshold": 0.1}).status_code == 200
    fixed = verify(client, photo["obama"], person_id=ada["id"]).json
    assert lower["confidence"] < verify(client, photo["obama"], photo["obama2"]).json["confidence"]
    assert (fixed["same"], fixed["threshold"]) == (False, 0.1)
    assert verify(client, photo["obama"], person_id=ada["id"], threshold=1.0).json["same"] is True


def test_a_face_that_was_said_not_to_be_theirs_is_not(client: FlaskClient, photo: Photos) -> None:
    ada = enroll(client, "Obama", photo["obama2"])["person"]
    assert verify(client, photo["obama"], person_id=ada["id"]).json["same"] is True
    assert post(client, f"/v1/people/{ada['id']}/rejections", photo["obama"]).status_code == 201
    body = verify(client, photo["obama"], person_id=ada["id"]).json
    assert (body["same"], body["confidence"] < 0.1, body["distance"] >= body["threshold"]) == (False, True, True)


def test_a_person_who_cannot_be_compared_is_no_stranger(
    client: FlaskClient, photo: Photos, runtime: Runtime, no_face: bytes
) -> None:
    enrolment = enroll(client, "Obama", photo["obama"])
    path = f"/v1/people/{enrolment['person']['id']}"
    behind = verify(
        client, photo["obama"], person_id=enrolment["person"]["id"], min_revision=enrolment["gallery_revision"] + 1
    )
    assert_problem(behind, 503, "gallery_behind")
    assert_problem(verify(client, no_face, person_id=enrolment["person"]["id"]), 422, "no_face")
    assert client.delete(f"{path}/faces/{enrolment['enrolled'][0]['face_id']}").status_code == 200
    assert_problem(verify(client, photo["obama"], person_id=enrolment["person"]["id"]), 409, "conflict")
    assert client.delete(path).status_code == 200
    assert_problem(verify(client, photo["obama"], person_id=enrolment["person"]["id"]), 404, "person_not_found")
    assert_problem(verify(client, photo["obama"], person_id="nobody"), 404, "person_not_found")


def test_the_person_of_another_collection_is_not_there(client: FlaskClient, photo: Photos, runtime: Runtime) -> None:
    ada = enroll(client, "Obama", photo["obama"])["person"]
    assert client.post("/v1/collections", json={"name": "doors"}).status_code == 201
    _, key = runtime.keys.create(scopes=["recognize"], collection="doors")
    headers = {"X-API-Key": key}
    assert_problem(verify(client, photo["obama"], person_id=ada["id"], headers=headers), 404, "person_not_found")
    assert verify(client, photo["obama"], photo["obama2"], headers=headers).json["same"] is True


# -- batch --


def batch(client: FlaskClient, *images: bytes, **options: Any) -> TestResponse:
    return post(client, "/v1/recognize/batch", *images, **options)


def test_each_image_has_its_result_or_an_error_of_its_own_in_order(
    client: FlaskClient, photo: Photos, no_face: bytes
) -> None:
    revision = enroll(client, "Obama", photo["obama"])["gallery_revision"]
    images = [photo["obama2"], photo["obama"][:5000], no_face, b"GIF", b"", photo["biden"]]
    response = batch(client, *images, top_k=1, include="timings,landmarks", min_revision=revision)
    assert response.status_code == 200
    results = response.json["results"]
    assert [each["index"] for each in results] == list(range(6))
    assert [each.get("error", {}).get("code") for each in results] == [
        None, "image_corrupt", None, "image_unsupported", "image_missing", None
    ]  # fmt: skip
    assert all(each["error"]["detail"].endswith(".") for each in results if "error" in each)
    decisions = [[face["decision"] for face in each["result"]["faces"]] for each in results if "result" in each]
    assert decisions == [["match"], [], ["unknown"]]
    alone = post(client, "/v1/recognize", photo["obama2"], include="landmarks").json
    first = results[0]["result"]
    assert [(face["box"], face["person"], face["landmarks"]) for face in first["faces"]] == [
        (face["box"], face["person"], face["landmarks"]) for face in alone["faces"]
    ]
    assert first["gallery_revision"] >= revision
    assert first["timings_ms"]["total"] > 0


def test_a_batch_as_json(client: FlaskClient, photo: Photos) -> None:
    body = client.post("/v1/recognize/batch", json={"images": [text(photo["obama"]), text(b"nothing")]}).json
    assert "result" in body["results"][0]
    assert body["results"][1]["error"]["code"] == "image_unsupported"


def test_what_is_wrong_with_the_request_is_wrong_with_all_of_it(
    client: FlaskClient, photo: Photos, no_face: bytes
) -> None:
    tiny = encoded(Image.new("RGB", (16, 16)))
    assert batch(client, *[tiny] * 32).status_code == 200
    assert_problem(batch(client, *[tiny] * 33), 400, "invalid_request")
    assert_problem(batch(client), 400, "image_missing")
    assert_problem(batch(client, tiny, nonsense=1), 400, "invalid_request")
    assert_problem(batch(client, tiny, collection="nowhere"), 404, "collection_not_found")
    assert_problem(batch(client, tiny, tiny, min_revision=10**9), 503, "gallery_behind")


def test_a_batch_is_one_line_in_the_log(client: FlaskClient, photo: Photos, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        batch(client, photo["obama"], b"GIF")
    (line,) = [record for record in caplog.records if record.message == "request"]
    assert (line.images, line.faces, line.errors) == (2, 1, {"image_unsupported": 1})


def test_images_whose_turn_does_not_come_in_time_say_so(
    client: FlaskClient, photo: Photos, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyse = runtime.engine.analyse
    looked: list[Deadline] = []

    def slow(data: bytes, deadline: Deadline, **options: Any) -> Any:
        found = analyse(data, deadline, **options)
        looked.append(deadline)
        if len(looked) == 2:
            deadline._at = 0.0  # the second image took all the time there was
        return found

    monkeypatch.setattr(runtime.engine, "analyse", slow)
    results = batch(client, *[photo["obama"]] * 4).json["results"]
    assert [each.get("error", {}).get("code") for each in results] == [None, *["deadline_exceeded"] * 3]
    assert len(looked) == 2, "no work for images that are too late"
    looked[:] = [Deadline(1)]
    assert_problem(batch(client, *[photo["obama"]] * 3), 504, "deadline_exceeded")


# -- while the database is away --


def take_database_away(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """From who asks for a key; the cohorts' keeper, whom it would answer as well, does not count."""

    def away(*_: object) -> None:
        raise DatabaseUnavailable("The database does not answer.")

    monkeypatch.setattr(runtime.keys, "_look_up", away)
    monkeypatch.setattr(runtime.keys._valid, "_has_answered", lambda since, seconds: False)


def test_only_what_needs_no_database_takes_a_key_from_memory(
    client: FlaskClient, photo: Photos, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = enroll(client, "Obama", photo["obama2"])["person"]
    record, key = runtime.keys.create(scopes=["recognize"])
    _, unseen = runtime.keys.create(scopes=["recognize"])
    headers, image = {"X-API-Key": key}, photo["obama"]
    assert post(client, "/v1/recognize", image, headers=headers).status_code == 200  # any route will do
    runtime.keys.revoke(record.id)

    with monkeypatch.context() as cut:
        take_database_away(runtime, cut)
        for served in (
            post(client, "/v1/detect", image, headers=headers),
            post(client, "/v1/embed", image, headers=headers),
            verify(client, image, photo["obama2"], headers=headers),
        ):
            assert served.status_code == 200
        for refused in (
            verify(client, image, person_id=ada["id"], headers=headers),
            post(client, "/v1/recognize", image, headers=headers),
            batch(client, image, headers=headers),
            post(client, "/v1/detect", image, headers={"X-API-Key": unseen}),
        ):
            assert_problem(refused, 503, "database_unavailable")
    assert_problem(post(client, "/v1/detect", image, headers=headers), 401, "unauthorized")


def test_a_scope_counts_as_much_without_the_database(
    client: FlaskClient, photo: Photos, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = runtime.keys.create(scopes=["enroll"])
    headers = {"X-API-Key": key}
    assert client.get("/v1/people", headers=headers).status_code == 200

    take_database_away(runtime, monkeypatch)
    assert_problem(post(client, "/v1/detect", photo["obama"], headers=headers), 403, "forbidden")


# -- bad input --

BAD: dict[str, tuple[int, str, Callable[[FlaskClient, bytes], TestResponse]]] = {
    "detect: two images": (400, "invalid_request", lambda c, p: post(c, "/v1/detect", p, p)),
    "detect: no image": (400, "image_missing", lambda c, p: post(c, "/v1/detect")),
    "detect: corrupt": (422, "image_corrupt", lambda c, p: post(c, "/v1/detect", p[:5000])),
    "detect: text": (415, "image_unsupported", lambda c, p: post(c, "/v1/detect", b"hello")),
    "detect: unknown option": (400, "invalid_request", lambda c, p: post(c, "/v1/detect", p, top_k=1)),
    "detect: unknown member": (400, "invalid_request", lambda c, p: post(c, "/v1/detect", p, include="names")),
    "detect: tiny faces": (400, "invalid_request", lambda c, p: post(c, "/v1/detect", p, min_face_pixels=1)),
    "detect: other_image": (
        400,
        "image_missing",
        lambda c, p: send(c, "/v1/detect", ("other_image", p)),
    ),
    "embed: no such face": (400, "invalid_request", lambda c, p: post(c, "/v1/embed", p, face="single")),
    "verify: nobody to compare with": (400, "invalid_request", lambda c, p: verify(c, p)),
    "verify: an image and a person": (400, "invalid_request", lambda c, p: verify(c, p, p, person_id="1")),
    "verify: only the other image": (
        400,
        "image_missing",
        lambda c, p: send(c, "/v1/verify", ("other_image", p)),
    ),
    "verify: two other images": (
        400,
        "invalid_request",
        lambda c, p: send(c, "/v1/verify", ("image", p), ("other_image", p), ("other_image", p)),
    ),
    "verify: a name as the other image": (
        400,
        "image_missing",
        lambda c, p: post(c, "/v1/verify", p, other_image="/etc/passwd"),
    ),
    "verify: a number as the other image": (
        400,
        "invalid_request",
        lambda c, p: c.post("/v1/verify", json={"image": text(p), "other_image": 1}),
    ),
    "verify: no base64": (
        400,
        "invalid_request",
        lambda c, p: c.post("/v1/verify", json={"image": text(p), "other_image": "http://host/a.jpg"}),
    ),
    "verify: threshold NaN": (400, "invalid_request", lambda c, p: verify(c, p, p, threshold="nan")),
    "verify: all faces": (400, "invalid_request", lambda c, p: verify(c, p, p, face="all")),
    "verify: a long id": (400, "invalid_request", lambda c, p: verify(c, p, person_id="x" * 101)),
    "batch: top_k 0": (400, "invalid_request", lambda c, p: batch(c, p, top_k=0)),
    "batch: a list of numbers": (
        400,
        "invalid_request",
        lambda c, p: c.post("/v1/recognize/batch", json={"images": [1, 2]}),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_the_right_answer(client: FlaskClient, photo: Photos, name: str) -> None:
    status, code, call = BAD[name]
    assert_problem(call(client, photo["obama"]), status, code)
