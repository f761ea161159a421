"""POST /v1/recognize/event: several frames of one scene, one answer for each person."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from calls import Photos, assert_problem, encoded, enroll, post
from flask.testing import FlaskClient
from PIL import Image

EVENT = "/v1/recognize/event"


def mirrored(photo: bytes) -> bytes:
    """Another frame of the same scene."""
    with Image.open(io.BytesIO(photo)) as image:
        return encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def test_each_person_of_a_scene_has_one_answer(client: FlaskClient, photo: Photos, no_face: bytes) -> None:
    obama = enroll(client, "Obama", photo["obama"])["person"]
    enroll(client, "Biden", photo["biden"])
    both = photo.two_faces()
    response = post(client, EVENT, both, no_face, mirrored(both), photo["obama2"], include="timings,embedding", top_k=2)
    body = response.json
    assert response.status_code == 200, response.text
    by_name = {person["person"]["name"]: person for person in body["people"]}
    assert len(body["people"]) == 2
    assert [seen["frame"] for seen in by_name["Obama"]["sightings"]] == [0, 2, 3]
    assert [seen["frame"] for seen in by_name["Biden"]["sightings"]] == [0, 2]
    assert by_name["Obama"]["person"]["id"] == obama["id"]
    left, right = (by_name["Obama"]["sightings"][place]["box"]["left"] for place in (0, 1))
    assert left < right, "the second frame is mirrored"
    best = by_name["Obama"]["frame"]
    assert by_name["Obama"]["box"] in [seen["box"] for seen in by_name["Obama"]["sightings"] if seen["frame"] == best]
    assert len(by_name["Obama"]["candidates"]) == 2
    assert len(by_name["Obama"]["embedding"]) == 128
    assert [(each["index"], each["code"]) for each in body["refused"]] == [(1, "no_face")]
    assert [frame["index"] for frame in body["frames"]] == [0, 1, 2, 3]
    assert {"decode", "detect", "encode", "search", "total"} <= body["timings_ms"].keys()


def test_a_frame_that_cannot_be_read_does_not_fail_the_others(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    torn = photo["obama2"][: len(photo["obama2"]) // 2]
    body = post(client, EVENT, b"hello", photo["obama2"], torn).json
    assert [(each["index"], each["code"]) for each in body["refused"]] == [
        (0, "image_unsupported"),
        (2, "image_corrupt"),
    ]
    assert [frame["index"] for frame in body["frames"]] == [1]
    (person,) = body["people"]
    assert [seen["frame"] for seen in person["sightings"]] == [1]
    assert person["decision"] == "match"


def test_frames_that_cannot_be_read_at_all_are_refused_with_the_reasons(client: FlaskClient, photo: Photos) -> None:
    torn = photo["obama2"][: len(photo["obama2"]) // 2]
    body = assert_problem(post(client, EVENT, b"hello", torn), 422, "frames_refused")
    assert [each["index"] for each in body["refused"]] == [0, 1]
    assert_problem(post(client, EVENT, torn, torn), 422, "image_corrupt")


def test_a_scene_without_anybody_has_no_people(client: FlaskClient, no_face: bytes) -> None:
    body = post(client, EVENT, no_face, no_face).json
    assert body["people"] == []
    assert [each["index"] for each in body["refused"]] == [0, 1]


@pytest.mark.parametrize("threshold", [None, 0.6])
def test_a_tie_is_no_decision(client: FlaskClient, photo: Photos, threshold: float | None) -> None:
    """The same photo enrolled as two people: the frames speak for both alike."""
    enroll(client, "One", photo["obama"])
    enroll(client, "Other", photo["obama"], force=True)
    rule = {} if threshold is None else {"threshold": threshold}
    (person,) = post(client, EVENT, photo["obama"], photo["obama2"], **rule).json["people"]
    assert (person["decision"], person["person"]) == ("ambiguous", None)
    assert len(person["sightings"]) == 2


def test_nobody_is_in_a_frame_twice(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"])
    page = Image.new("RGB", (1000, 600))
    for place, name in enumerate(("obama", "obama2")):
        with Image.open(io.BytesIO(photo[name])) as image:
            page.paste(image.convert("RGB").resize((500, 600)), (500 * place, 0))
    people = post(client, EVENT, encoded(page), encoded(page)).json["people"]
    assert len(people) == 2
    assert sum(person["decision"] == "match" for person in people) == 1


def test_several_photos_tell_more_than_one(client: FlaskClient, shared: Path) -> None:
    """A strict rule leaves many single photos without a name; a scene of all of them has it all the same."""
    folders = sorted((shared / "faces" / "people").iterdir())[:16]
    for folder in folders:
        enroll(client, folder.name, sorted(folder.iterdir())[0].read_bytes(), force=True, face="largest")
    strict = {"threshold": 0.5}
    single = fused = 0
    for folder in folders:
        frames = [path.read_bytes() for path in sorted(folder.iterdir())[1:4]]
        named = [face["person"] for face in post(client, "/recognize", frames[0], **strict).json["faces"]]
        single += any(person and person["name"] == folder.name for person in named)
        people = [person["person"] for person in post(client, EVENT, *frames, **strict).json["people"]]
        fused += any(person and person["name"] == folder.name for person in people)
    assert fused > single + 1, (fused, single)


def test_what_is_asked_wrongly_is_refused_with_a_reason(client: FlaskClient, photo: Photos) -> None:
    tiny = photo["obama2"]
    assert_problem(post(client, EVENT), 400, "image_missing")
    assert_problem(post(client, EVENT, tiny, b""), 400, "image_missing")
    assert "at most 32" in assert_problem(post(client, EVENT, *[b"x"] * 33), 400, "invalid_request")["detail"]
    assert_problem(post(client, EVENT, tiny, unique=True), 400, "invalid_request")
    assert_problem(post(client, EVENT, tiny, collection="nowhere"), 404, "collection_not_found")
    assert_problem(post(client, EVENT, tiny, min_revision=10**6), 503, "gallery_behind")
