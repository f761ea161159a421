"""POST /enroll: remembering people."""

from __future__ import annotations

import io
import json
import threading

import pytest
from calls import Photos, assert_problem, encoded, enroll, post
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image, ImageFilter


def people(client: FlaskClient) -> list[tuple[str, int]]:
    return [(p["name"], p["faces"]) for p in client.get("/v1/people").json["people"]]


def test_an_enrolment_says_who_and_what_was_stored(client: FlaskClient, photo: Photos) -> None:
    body = enroll(client, " Ada ", photo["obama"], photo["obama2"], metadata='{"door": 3}', external_id="e1")
    assert body["person"] == {"id": body["person"]["id"], "name": "Ada", "faces": 2}
    assert [face["index"] for face in body["enrolled"]] == [0, 1]
    assert body["refused"] == []
    stored = client.get(f"/v1/people/{body['person']['id']}").json
    assert (stored["external_id"], stored["metadata"], len(stored["faces"])) == ("e1", {"door": 3}, 2)
    assert {face["id"] for face in stored["faces"]} == {face["face_id"] for face in body["enrolled"]}


def test_the_same_name_in_another_case_adds_to_the_person(client: FlaskClient, photo: Photos) -> None:
    first = enroll(client, "Ada Straße", photo["obama"])
    second = enroll(client, "ada  STRASSE", photo["obama2"])
    assert second["person"] == {"id": first["person"]["id"], "name": "Ada Straße", "faces": 2}
    assert second["gallery_revision"] > first["gallery_revision"]


def test_two_requests_at_the_same_moment_make_one_person(app: Flask, client: FlaskClient, photo: Photos) -> None:
    start = threading.Barrier(4)
    statuses = []

    def run(name: str) -> None:
        own = app.test_client()
        start.wait(10)
        statuses.append(post(own, "/enroll", photo[name], name="Ada").status_code)

    threads = [threading.Thread(target=run, args=(n,)) for n in ("obama", "obama2", "obama3", "biden")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [201] * 4
    assert people(client) == [("Ada", 4)]


def test_photos_can_be_added_by_person_id(client: FlaskClient, photo: Photos) -> None:
    person = enroll(client, "Ada", photo["obama"])["person"]
    response = post(client, "/enroll", photo["obama2"], person_id=person["id"])
    assert response.json["person"]["faces"] == 2


def test_usable_photos_are_stored_and_the_others_refused_with_reasons(
    client: FlaskClient, photo: Photos, no_face: bytes
) -> None:
    photos = [no_face, photo["obama"], photo.two_faces(), photo["obama"][:5000], b"text", photo["obama"]]
    body = enroll(client, "Ada", *photos)
    assert [face["index"] for face in body["enrolled"]] == [1]
    assert {(r["index"], r["code"]) for r in body["refused"]} == {
        (0, "no_face"),
        (2, "multiple_faces"),
        (3, "image_corrupt"),
        (4, "image_unsupported"),
        (5, "duplicate_photo"),
    }
    assert all(r["detail"].endswith(".") for r in body["refused"])


def test_face_largest_accepts_a_photo_of_several(client: FlaskClient, photo: Photos) -> None:
    assert enroll(client, "Ada", photo.two_faces(), face="largest")["person"]["faces"] == 1


def test_the_same_photo_again_is_refused_and_nothing_changes(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Ada", photo["obama"])
    assert_problem(post(client, "/enroll", photo["obama"], name="Ada"), 422, "duplicate_photo")
    assert people(client) == [("Ada", 1)]


@pytest.mark.parametrize("which", ["no_face", "two", "text", "cut", "mixed"])
def test_a_refused_enrolment_leaves_nobody_behind(
    client: FlaskClient, photo: Photos, no_face: bytes, which: str
) -> None:
    images, code = {
        "no_face": ([no_face], "no_face"),
        "two": ([photo.two_faces()], "multiple_faces"),
        "text": ([b"hello"], "image_unsupported"),
        "cut": ([photo["biden"][:9000]], "image_corrupt"),
        "mixed": ([no_face, b"hello"], "enrolment_refused"),
    }[which]
    body = assert_problem(post(client, "/enroll", *images, name="Ada"), 422, code)
    assert [r["index"] for r in body["refused"]] == list(range(len(images)))
    assert people(client) == []


def test_a_small_face_is_refused(
    client: FlaskClient,
    photo: Photos,
) -> None:
    with Image.open(io.BytesIO(photo["obama"])) as image:
        small = image.copy()
    small.thumbnail((160, 160))  # the face is found, and narrower than the 50 pixels that enrolment wants
    assert len(post(client, "/recognize", encoded(small, "PNG")).json["faces"]) == 1
    assert_problem(post(client, "/enroll", encoded(small, "PNG"), name="Ada"), 422, "face_too_small")
    assert people(client) == []


def test_the_same_idempotency_key_enrols_once(client: FlaskClient, photo: Photos) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = post(client, "/enroll", photo["obama"], b"text", name="Ada", headers=headers)
    again = post(client, "/enroll", photo["obama"], b"text", name="Ada", headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    same = ("person", "gallery_revision", "enrolled", "refused")
    assert {k: first.json[k] for k in same} == {k: again.json[k] for k in same}
    other = post(client, "/enroll", photo["obama2"], name="Ada", headers=headers)
    assert_problem(other, 409, "conflict")
    assert people(client) == [("Ada", 1)]


@pytest.mark.parametrize("key", ["", "x" * 300, "a b\u00e9"])
def test_a_strange_idempotency_key_is_refused(client: FlaskClient, photo: Photos, key: str) -> None:
    response = post(client, "/enroll", photo["obama"], name="Ada", headers={"Idempotency-Key": key})
    assert_problem(response, 400, "invalid_request")


@pytest.mark.parametrize("name", ["👩‍🚀 Ada", "李小龙", "O'Brien; DROP TABLE people;--", "x" * 200, "%_\\"])
def test_names_of_all_kinds_are_names(client: FlaskClient, photo: Photos, name: str) -> None:
    assert enroll(client, name, photo["obama"])["person"]["name"] == name
    (face,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert face["person"]["name"] == name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": ""},
        {"name": "   "},
        {"name": "x" * 201},
        {"name": "x" * 10_000},
        {"name": "a\x00b"},
        {"name": "Jos\ufffd"},
        {"name": "\u200b"},
        {"name": "\u202eadA"},
        {"name": "Ada", "person_id": "00000000-0000-0000-0000-000000000000"},
        {"name": "Ada", "metadata": "[1]"},
        {"name": "Ada", "metadata": "{"},
        {"name": "Ada", "metadata": '{"a":' + "[" * 32 + "]" * 32 + "}"},
        {"name": "Ada", "metadata": '{"a":' + "[" * 974 + "]" * 974 + "}"},
        {"name": "Ada", "metadata": json.dumps({"x": "y" * 20_000})},
        {"name": "Ada", "metadata": '{"x": "\\u0000"}'},
        {"name": "Ada", "metadata": '{"x": NaN}'},
        {"name": "Ada", "face": "smallest"},
        {"name": "Ada", "nmae": "Ada"},
    ],
)
def test_impossible_options_are_400_and_nothing_is_written(
    client: FlaskClient, photo: Photos, options: dict[str, str]
) -> None:
    assert_problem(post(client, "/enroll", photo["obama"], **options), 400, "invalid_request")
    assert people(client) == []


@pytest.mark.parametrize("person_id", ["00000000-0000-0000-0000-000000000000", "42", "'"])
def test_an_unknown_person_id_is_404(client: FlaskClient, photo: Photos, person_id: str) -> None:
    assert_problem(post(client, "/enroll", photo["obama"], person_id=person_id), 404, "person_not_found")


def test_an_external_id_belongs_to_one_person(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Ada", photo["obama"], external_id="e1")
    assert_problem(post(client, "/enroll", photo["biden"], name="Joe", external_id="e1"), 409, "conflict")
    assert people(client) == [("Ada", 1)]


def test_more_photos_than_allowed_are_refused(client: FlaskClient) -> None:
    assert_problem(post(client, "/enroll", *[b"x"] * 21, name="Ada"), 400, "invalid_request")


# -- what would poison the gallery --


def blurred(photo: bytes, radius: float = 16) -> bytes:
    with Image.open(io.BytesIO(photo)) as image:
        return encoded(image.convert("RGB").filter(ImageFilter.GaussianBlur(radius)), "PNG")


def test_somebody_elses_face_is_refused_unless_that_is_meant(client: FlaskClient, photo: Photos) -> None:
    obama = {"id": enroll(client, "Obama", photo["obama"])["person"]["id"], "name": "Obama"}
    response = post(client, "/enroll", photo["obama"], name="Mallory")
    assert_problem(response, 422, "face_belongs_to_other_person")
    assert response.json["refused"][0]["person"] == obama
    assert "force=true" in response.json["refused"][0]["detail"]
    forced = enroll(client, "Mallory", photo["obama"], force="true")
    assert [(w["index"], w["code"]) for w in forced["warnings"]] == [(0, "resembles_other_person")]
    assert forced["warnings"][0]["person"] == obama


def test_further_photos_of_a_person_are_welcome_by_name_and_by_id(client: FlaskClient, photo: Photos) -> None:
    first = enroll(client, "Obama", photo["obama"])
    assert first["warnings"] == []
    assert enroll(client, "OBAMA", photo["obama2"])["warnings"] == []
    response = post(client, "/enroll", photo["obama3"], person_id=first["person"]["id"])
    assert (response.status_code, response.json["warnings"]) == (201, [])


def test_another_person_is_neither_refused_nor_warned_of(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    assert enroll(client, "Biden", photo["biden"])["warnings"] == []


def test_one_of_several_photos_that_is_somebody_elses_is_refused_alone(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    done = enroll(client, "Biden", photo["biden"], photo["obama"])
    assert [face["index"] for face in done["enrolled"]] == [0]
    assert [(r["index"], r["code"]) for r in done["refused"]] == [(1, "face_belongs_to_other_person")]


def test_photos_of_one_request_that_are_not_alike_are_stored_and_warned_of(client: FlaskClient, photo: Photos) -> None:
    done = enroll(client, "Somebody", photo["obama"], photo["biden"])
    assert len(done["enrolled"]) == 2
    assert [(w["index"], w["code"]) for w in done["warnings"]] == [
        (0, "unlike_other_photos"),
        (1, "unlike_other_photos"),
    ]


def test_a_photo_that_is_not_like_the_persons_others_is_warned_of(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Somebody", photo["obama"], photo["obama2"])
    done = enroll(client, "Somebody", photo["biden"])
    assert [w["code"] for w in done["warnings"]] == ["unlike_other_photos"]


def test_a_face_that_is_poor_evidence_is_refused_and_says_why(client: FlaskClient, photo: Photos) -> None:
    poor = blurred(photo["obama"])
    response = post(client, "/enroll", poor, name="Obama")
    assert_problem(response, 422, "low_quality")
    assert "blurred" in response.json["refused"][0]["detail"]
    assert response.json["refused"][0]["issues"] == ["LOW_SHARPNESS"]
    assert len(enroll(client, "Obama", poor, force="true")["enrolled"]) == 1


def test_a_repeated_request_is_told_again_what_is_wrong_with_a_face(client: FlaskClient, photo: Photos) -> None:
    first, again = (
        post(client, "/enroll", photo["obama"], blurred(photo["obama"]), name="Obama", headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )
    assert first.json["refused"] == again.json["refused"]
    assert again.json["refused"][0]["issues"] == ["LOW_SHARPNESS"]


def test_a_repeated_request_gets_its_warnings_again(client: FlaskClient, photo: Photos) -> None:
    first, again = (
        post(
            client,
            "/enroll",
            photo["obama"],
            photo["biden"],
            name="Somebody",
            headers={"Idempotency-Key": "with-warnings"},
        )
        for _ in range(2)
    )
    assert first.json["warnings"] == again.json["warnings"] != []


def test_a_repeated_request_never_tells_the_name_of_somebody_who_was_erased(client: FlaskClient, photo: Photos) -> None:
    obama = enroll(client, "a", photo["obama"])["person"]
    first, again = (
        post(client, "/enroll", photo["biden"], photo["obama"], name="Biden", headers={"Idempotency-Key": f"k{turn}"})
        for turn in (1, 1)
    )
    (said,), (said_again,) = first.json["refused"], again.json["refused"]
    assert said == {**said_again, "person": {"id": obama["id"], "name": "a"}}
    assert "person" not in said_again
    assert client.delete(f"/v1/people/{obama['id']}").json["left"] == 0
    last = post(client, "/enroll", photo["biden"], photo["obama"], name="Biden", headers={"Idempotency-Key": "k1"})
    assert last.json["refused"] == [said_again]
    assert obama["id"] not in last.text


def test_a_face_that_was_rejected_for_the_person_is_warned_of(client: FlaskClient, photo: Photos) -> None:
    obama = enroll(client, "Obama", photo["obama"])["person"]["id"]
    assert post(client, f"/v1/people/{obama}/rejections", photo["obama2"]).status_code == 201
    assert "rejected_before" in [w["code"] for w in enroll(client, "Obama", photo["obama2"])["warnings"]]


def test_a_persons_id_may_be_spelt_in_capitals(client: FlaskClient, photo: Photos) -> None:
    ada = enroll(client, "Obama", photo["obama"])["person"]["id"]
    assert post(client, "/enroll", photo["obama2"], person_id=ada.upper()).status_code == 201


def test_an_unknown_person_is_404_whoever_is_in_the_photo(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    nobody = "00000000-0000-4000-8000-000000000000"
    assert_problem(post(client, "/enroll", photo["obama"], person_id=nobody), 404, "person_not_found")


def test_a_face_that_was_said_not_to_be_somebody_may_be_enrolled_as_another(client: FlaskClient, photo: Photos) -> None:
    obama = enroll(client, "Obama", photo["obama"])["person"]["id"]
    assert post(client, f"/v1/people/{obama}/rejections", photo["obama2"]).status_code == 201
    assert enroll(client, "Double", photo["obama2"])["warnings"] == []
