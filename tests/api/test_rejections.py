"""/v1/people/{id}/rejections: "this face is not that person's", and what it does to recognition."""

from __future__ import annotations

import base64
import io
import threading
from typing import Any

import pytest
from calls import Photos, assert_problem, encoded, enroll, post
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from recognizer.runtime import Runtime

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def obama(client: FlaskClient, photo: Photos) -> str:
    """The id of a person who is enrolled."""
    return str(enroll(client, "Obama", photo["obama"])["person"]["id"])


def seen(client: FlaskClient, image: bytes, **options: Any) -> dict[str, Any]:
    """The one face of a photo."""
    (face,) = post(client, "/recognize", image, **options).json["faces"]
    return dict(face)


def embedding(client: FlaskClient, image: bytes) -> list[float]:
    return list(seen(client, image, include="embedding")["embedding"])


def reject(client: FlaskClient, person_id: str, *images: bytes, **options: Any) -> TestResponse:
    return post(client, f"/v1/people/{person_id}/rejections", *images, **options)


def kept(client: FlaskClient, person_id: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/people/{person_id}/rejections").json["rejections"])


def test_a_rejected_face_is_no_match_until_the_rejection_is_undone(
    client: FlaskClient, photo: Photos, obama: str
) -> None:
    enroll(client, "Biden", photo["biden"])
    before = seen(client, photo["obama2"])
    assert (before["decision"], before["person"]["id"]) == ("match", obama)
    rejection = reject(client, obama, photo["obama2"]).json["rejection"]
    after = seen(client, photo["obama2"], top_k=2)
    assert after["decision"] != "match"
    assert after["person"] is None
    assert after["confidence"] < 0.5
    assert client.delete(f"/v1/people/{obama}/rejections/{rejection['id']}").status_code == 200
    again = seen(client, photo["obama2"])
    assert (again["decision"], again["person"]["id"]) == ("match", obama)


def test_other_faces_and_other_people_match_as_before(client: FlaskClient, photo: Photos, obama: str) -> None:
    biden = enroll(client, "Biden", photo["biden"])["person"]["id"]
    reject(client, obama, photo["biden"])
    assert seen(client, photo["obama2"])["person"]["id"] == obama
    assert seen(client, photo["biden"])["person"]["id"] == biden


def test_a_fixed_threshold_heeds_rejections_too(client: FlaskClient, photo: Photos, obama: str) -> None:
    assert seen(client, photo["obama2"], threshold="0.6")["decision"] == "match"
    reject(client, obama, photo["obama2"])
    assert seen(client, photo["obama2"], threshold="0.6")["decision"] != "match"


def test_a_rejection_says_when_and_by_whom(client: FlaskClient, photo: Photos, obama: str, runtime: Runtime) -> None:
    response = reject(client, obama, photo["obama2"])
    assert response.status_code == 201
    body = response.json
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert {"id", "created_at", "created_by"} <= body["rejection"].keys()
    assert body["rejection"]["created_by"] == "local"
    record, secret = runtime.keys.create(scopes=["enroll"])
    by_key = reject(client, obama, photo["obama2"], headers={"X-API-Key": secret}).json["rejection"]
    assert by_key["created_by"] == record.id


def test_rejections_are_listed_oldest_first(client: FlaskClient, photo: Photos, obama: str) -> None:
    assert kept(client, obama) == []
    made = [reject(client, obama, photo[name]).json["rejection"] for name in ("obama2", "biden", "obama3")]
    assert kept(client, obama) == made


def test_each_change_grows_the_revision_and_is_in_force_at_once(client: FlaskClient, photo: Photos, obama: str) -> None:
    before = post(client, "/recognize", photo["obama2"]).json["gallery_revision"]
    done = reject(client, obama, photo["obama2"]).json
    assert done["gallery_revision"] == before + 1
    answer = post(client, "/recognize", photo["obama2"], min_revision=done["gallery_revision"]).json
    assert answer["gallery_revision"] == done["gallery_revision"]
    assert answer["faces"][0]["decision"] != "match"
    undone = client.delete(f"/v1/people/{obama}/rejections/{done['rejection']['id']}").json
    assert undone["gallery_revision"] == before + 2
    assert undone["rejection_id"] == done["rejection"]["id"]
    assert undone["request_id"]
    assert kept(client, obama) == []


def test_the_ways_to_send_the_face_do_the_same(client: FlaskClient, photo: Photos, obama: str) -> None:
    path, data = f"/v1/people/{obama}/rejections", photo["obama2"]
    ways = [
        lambda: reject(client, obama, data),
        lambda: client.post(path, data=data, content_type="image/jpeg"),
        lambda: client.post(path, json={"image": base64.b64encode(data).decode()}),
        lambda: client.post(path, json={"embedding": vector}),
    ]
    vector = embedding(client, data)
    for way in ways:
        response = way()
        assert response.status_code == 201, response.text
        assert seen(client, data)["decision"] != "match"
        client.delete(f"{path}/{response.json['rejection']['id']}")
        assert seen(client, data)["decision"] == "match"


# -- which face of a photo --


def test_a_photo_of_several_faces_needs_to_say_which(client: FlaskClient, photo: Photos, obama: str) -> None:
    body = assert_problem(reject(client, obama, photo.two_faces()), 422, "multiple_faces")
    assert "box" in body["detail"]
    assert kept(client, obama) == []


def test_the_box_that_recognize_gives_chooses_the_face(client: FlaskClient, photo: Photos, obama: str) -> None:
    biden = enroll(client, "Biden", photo["biden"])["person"]["id"]
    both = photo.two_faces()
    faces = {face["person"]["id"]: face["box"] for face in post(client, "/recognize", both).json["faces"]}
    box = ",".join(str(faces[biden][side]) for side in ("left", "top", "right", "bottom"))
    assert reject(client, biden, both, box=box).status_code == 201
    decisions = [face["person"] and face["person"]["id"] for face in post(client, "/recognize", both).json["faces"]]
    assert set(decisions) == {obama, None}
    image = base64.b64encode(both).decode()
    response = client.post(f"/v1/people/{obama}/rejections", json={"image": image, "box": faces[obama]})
    assert response.status_code == 201, "the box as /recognize writes it"
    assert {face["person"] for face in post(client, "/recognize", both).json["faces"]} == {None}


def test_face_largest_takes_the_largest(client: FlaskClient, photo: Photos, obama: str) -> None:
    both = photo.two_faces()
    (largest, _) = post(client, "/recognize", both).json["faces"]
    assert reject(client, obama, both, face="largest").status_code == 201
    with Image.open(io.BytesIO(both)) as image:
        left, top, right, bottom = (largest["box"][side] for side in ("left", "top", "right", "bottom"))
        alone = encoded(image.crop((max(0, left - 60), max(0, top - 60), right + 60, bottom + 60)))
    assert seen(client, alone)["decision"] != "match"


def test_a_box_beside_every_face_is_refused(client: FlaskClient, photo: Photos, obama: str) -> None:
    assert_problem(reject(client, obama, photo["obama2"], box="0,0,40,40"), 422, "no_face")
    assert kept(client, obama) == []


def test_a_photo_without_a_face_is_refused(client: FlaskClient, obama: str, no_face: bytes) -> None:
    assert_problem(reject(client, obama, no_face), 422, "no_face")
    assert_problem(reject(client, obama, no_face, box="0,0,40,40"), 422, "no_face")
    assert_problem(reject(client, obama, no_face, face="largest"), 422, "no_face")


@pytest.mark.parametrize(
    "options",
    [
        {"box": "1,2,3"},
        {"box": "1,2,3,x"},
        {"box": "30,2,3,40"},
        {"box": "1,2,1,40"},
        {"box": "1,2,3,4,5"},
        {"box": "nan,0,1,1"},
        {"box": "0,0,99999999999,9"},
        {"box": "147,279,453,585", "face": "largest"},
        {"face": "smallest"},
        {"colour": "red"},
    ],
)
def test_impossible_options_are_400(client: FlaskClient, photo: Photos, obama: str, options: dict[str, str]) -> None:
    assert_problem(reject(client, obama, photo["obama2"], **options), 400, "invalid_request")


@pytest.mark.parametrize("box", [[0, 0, 9, 9], {"left": 0}, {"left": 0, "top": 0, "right": True, "bottom": 9}, 7, True])
def test_impossible_boxes_in_json_are_400(client: FlaskClient, photo: Photos, obama: str, box: object) -> None:
    body = {"image": base64.b64encode(photo["obama2"]).decode(), "box": box}
    assert_problem(client.post(f"/v1/people/{obama}/rejections", json=body), 400, "invalid_request")


# -- embeddings --


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "[" + ",".join(["0.1"] * 127) + "]",
        "[" + ",".join(["0.1"] * 129) + "]",
        "[" + ",".join(["0.1"] * 127) + ",NaN]",
        "[" + ",".join(["0.1"] * 127) + ",-Infinity]",
        "[" + ",".join(["0.1"] * 127) + ",1e999]",
        "[" + ",".join(["0.1"] * 127) + ",1e300]",
        "[" + ",".join(["0.1"] * 127) + ",1e30]",
        "[" + ",".join(["0.1"] * 127) + ",1" + "0" * 400 + "]",
        "[" + ",".join(["0.1"] * 127) + ',"0.1"]',
        "[" + ",".join(["0.1"] * 127) + ",true]",
        "[" + ",".join(["0.1"] * 127) + ",null]",
        "[" + ",".join(["[0.1]"] * 128) + "]",
        '"0.1"',
        "0.1",
        "true",
        "{}",
    ],
    ids=range(17),
)
def test_what_is_no_embedding_is_400_and_is_told_what_one_is(client: FlaskClient, obama: str, value: str) -> None:
    response = client.post(
        f"/v1/people/{obama}/rejections", data=f'{{"embedding": {value}}}', content_type="application/json"
    )
    body = assert_problem(response, 400, "invalid_request")
    assert value == "true" or "128" in body["detail"]
    assert kept(client, obama) == []


def test_an_image_or_an_embedding_and_not_both(client: FlaskClient, photo: Photos, obama: str) -> None:
    path, vector = f"/v1/people/{obama}/rejections", [0.1] * 128
    image = base64.b64encode(photo["obama2"]).decode()
    assert_problem(client.post(path, json={"image": image, "embedding": vector}), 400, "invalid_request")
    assert_problem(client.post(path, json={"embedding": vector, "face": "largest"}), 400, "invalid_request")
    assert_problem(client.post(path, json={"embedding": vector, "box": "0,0,9,9"}), 400, "invalid_request")
    assert_problem(client.post(path, json={}), 400, "image_missing")
    assert_problem(client.post(path, json={"embedding": None}), 400, "image_missing")
    assert_problem(client.post(path), 400, "image_missing")
    assert_problem(reject(client, obama, photo["obama2"], photo["biden"]), 400, "invalid_request")
    assert kept(client, obama) == []


def test_a_photo_that_cannot_be_read_is_refused(client: FlaskClient, photo: Photos, obama: str) -> None:
    assert_problem(reject(client, obama, b"This is no image. " * 50), 415, "image_unsupported")
    assert_problem(reject(client, obama, photo["obama2"][:20_000]), 422, "image_corrupt")


# -- whose --


@pytest.mark.parametrize("person_id", [NOBODY, "42", "%00", "é"])
def test_an_unknown_person_is_404(client: FlaskClient, photo: Photos, person_id: str) -> None:
    path = f"/v1/people/{person_id}/rejections"
    assert_problem(client.get(path), 404, "person_not_found")
    assert_problem(post(client, path, photo["obama2"]), 404, "person_not_found")
    assert_problem(client.post(path, json={"embedding": [0.1] * 128}), 404, "person_not_found")
    assert_problem(client.delete(f"{path}/{NOBODY}"), 404, "person_not_found")


@pytest.mark.parametrize("rejection_id", [NOBODY, "42", "%00"])
def test_an_unknown_rejection_is_404(client: FlaskClient, photo: Photos, obama: str, rejection_id: str) -> None:
    response = client.delete(f"/v1/people/{obama}/rejections/{rejection_id}")
    assert_problem(response, 404, "rejection_not_found")


def test_a_rejection_is_not_undone_twice_nor_at_another_person(client: FlaskClient, photo: Photos, obama: str) -> None:
    biden = enroll(client, "Biden", photo["biden"])["person"]["id"]
    rejection = reject(client, obama, photo["obama2"]).json["rejection"]["id"]
    assert_problem(client.delete(f"/v1/people/{biden}/rejections/{rejection}"), 404, "rejection_not_found")
    assert client.delete(f"/v1/people/{obama}/rejections/{rejection}").status_code == 200
    assert_problem(client.delete(f"/v1/people/{obama}/rejections/{rejection}"), 404, "rejection_not_found")


def test_a_key_of_another_collection_reaches_none(
    client: FlaskClient, photo: Photos, obama: str, runtime: Runtime
) -> None:
    rejection = reject(client, obama, photo["obama2"]).json["rejection"]["id"]
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO collections (name, name_key) VALUES ('doors', 'doors')")
    _, secret = runtime.keys.create(scopes=["admin"], collection="doors")
    headers, path = {"X-API-Key": secret}, f"/v1/people/{obama}/rejections"
    assert_problem(client.get(path, headers=headers), 404, "person_not_found")
    assert_problem(reject(client, obama, photo["obama2"], headers=headers), 404, "person_not_found")
    assert_problem(client.delete(f"{path}/{rejection}", headers=headers), 404, "person_not_found")


def test_recognising_alone_allows_no_rejecting(
    client: FlaskClient, photo: Photos, obama: str, runtime: Runtime
) -> None:
    _, secret = runtime.keys.create(scopes=["recognize"])
    headers, path = {"X-API-Key": secret}, f"/v1/people/{obama}/rejections"
    assert_problem(client.get(path, headers=headers), 403, "forbidden")
    assert_problem(reject(client, obama, photo["obama2"], headers=headers), 403, "forbidden")
    assert_problem(client.delete(f"{path}/{NOBODY}", headers=headers), 403, "forbidden")


# -- at once, and gone --


def test_rejections_at_the_same_moment_are_all_kept(app: Flask, client: FlaskClient, photo: Photos, obama: str) -> None:
    start = threading.Barrier(4)
    answers: list[dict[str, Any]] = []

    def run(name: str) -> None:
        own = app.test_client()
        start.wait(10)
        answers.append(reject(own, obama, photo[name]).json)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("obama", "obama2", "obama3", "biden")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    in_order = sorted(answers, key=lambda answer: answer["gallery_revision"])
    assert kept(client, obama) == [answer["rejection"] for answer in in_order]
    assert len({answer["gallery_revision"] for answer in answers}) == 4


def test_erasing_a_person_erases_the_rejections(client: FlaskClient, photo: Photos, obama: str) -> None:
    reject(client, obama, photo["obama2"])
    reject(client, obama, photo["biden"])
    receipt = client.delete(f"/v1/people/{obama}").json
    assert (receipt["deleted"]["rejections"], receipt["left"]) == (2, 0)
    assert_problem(client.get(f"/v1/people/{obama}/rejections"), 404, "person_not_found")
    again = enroll(client, "Obama", photo["obama"])["person"]["id"]
    assert kept(client, again) == []
    assert seen(client, photo["obama2"])["decision"] == "match"
