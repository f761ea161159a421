"""POST /v1/collections/{name}/calibrate."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from calls import Photos, assert_problem, enroll
from flask.testing import FlaskClient
from PIL import Image

from recognizer.runtime import Runtime

URL = "/v1/collections/default/calibrate"


@pytest.fixture
def home(client: FlaskClient, photo: Photos) -> FlaskClient:
    """A gallery of two people, one of them with three photos."""
    enroll(client, "Obama", photo["obama"], photo["obama2"], photo["obama3"])
    enroll(client, "Biden", photo["biden"])
    return client


def test_a_home_is_told_what_can_be_said_and_what_not(home: FlaskClient) -> None:
    response = home.post(URL)
    assert response.status_code == 200, response.text
    body = response.json
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert body["collection"] == "default"
    assert body["gallery_revision"] > 0
    assert body["people"] == {"enrolled": 2, "used": 2, "with_two_photos": 1}
    assert body["photos"] == {"enrolled": 4, "used": 4}
    tpir, fpir = body["rule"]["tpir"], body["rule"]["fpir"]
    assert (tpir["events"], tpir["trials"], tpir["rate"]) == (3, 3, None)
    assert (fpir["events"], fpir["trials"], fpir["rate"]) == (0, 4, None)
    assert [figure["fpir"] for figure in body["figures"]] == [0.1, 0.01, 0.001]
    for figure in body["figures"]:
        assert figure["measured"] is None
        assert "too few photos for that figure" in figure["too_few"]
    assert body["recommendation"]["target_fpir"] == 0.01
    assert body["scores"]["genuine"]["count"] == 3
    assert body["outliers"]["count"] == body["probable_duplicates"]["count"] == body["confusable_pairs"]["count"] == 0
    assert "picture" not in body


def test_one_person_under_two_names_is_found(client: FlaskClient, photo: Photos) -> None:
    enroll(client, "Obama", photo["obama"], photo["obama2"])
    enroll(client, "B. Obama", photo["obama3"], force="true")
    enroll(client, "Biden", photo["biden"])
    (pair,) = client.post(URL).json["probable_duplicates"]["listed"]
    assert {person["name"] for person in pair["people"]} == {"Obama", "B. Obama"}


def test_an_empty_gallery_says_what_to_enrol(client: FlaskClient) -> None:
    body = client.post(URL).json
    assert (body["rule"], body["figures"]) == (None, [])
    assert body["notes"] == ["There is nobody to learn from; enrol people, each with two photos or more."]


def test_a_person_who_was_deleted_is_in_no_report(home: FlaskClient) -> None:
    (obama,) = home.get("/v1/people?query=Obama").json["people"]
    home.delete(f"/v1/people/{obama['id']}")
    response = home.post(URL)
    assert response.json["people"]["enrolled"] == 1
    assert "Obama" not in response.text


@pytest.mark.parametrize(
    "sent",
    [
        {"query_string": {"picture": "true"}},
        {"json": {"picture": True}},
        {"data": {"picture": "true"}},
    ],
)
def test_the_picture_comes_with_the_report(home: FlaskClient, sent: dict[str, object]) -> None:
    picture = base64.b64decode(home.post(URL, **sent).json["picture"])
    assert Image.open(BytesIO(picture)).format == "PNG"


def test_the_picture_alone(home: FlaskClient) -> None:
    response = home.post(URL, headers={"Accept": "image/png"})
    assert (response.status_code, response.content_type) == (200, "image/png")
    assert Image.open(BytesIO(response.data)).format == "PNG"
    assert home.post(URL, headers={"Accept": "*/*"}).content_type == "application/json"


@pytest.mark.parametrize(
    "sent",
    [
        {"query_string": {"picture": "perhaps"}},
        {"query_string": {"pictures": "true"}},
        {"query_string": "picture=true&picture=true"},
        {"json": [1]},
        {"json": {"picture": 7}},
        {"data": "{", "content_type": "application/json"},
    ],
)
def test_impossible_options_are_400(client: FlaskClient, sent: dict[str, object]) -> None:
    assert_problem(client.post(URL, **sent), 400, "invalid_request")


def test_an_unknown_collection_is_404(client: FlaskClient) -> None:
    assert_problem(client.post("/v1/collections/nope/calibrate"), 404, "collection_not_found")


def test_a_second_calibration_at_the_same_time_is_told_to_wait(home: FlaskClient, runtime: Runtime) -> None:
    with runtime.calibrating:
        response = home.post(URL)
    assert_problem(response, 503, "busy")
    assert int(response.headers["Retry-After"]) > 0
    assert home.post(URL).status_code == 200


def test_a_calibration_that_fails_does_not_block_the_next_one(home: FlaskClient) -> None:
    assert home.post("/v1/collections/nope/calibrate").status_code == 404
    assert home.post(URL).status_code == 200


def test_it_is_the_administrators(home: FlaskClient, runtime: Runtime) -> None:
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO collections (name, name_key) VALUES ('doors', 'doors')")

    def call(scopes: list[str], collection: str | None) -> object:
        _, secret = runtime.keys.create(scopes=scopes, collection=collection, label="test")
        return home.post(URL, headers={"X-API-Key": secret})

    assert_problem(call(["enroll", "recognize"], None), 403, "forbidden")
    assert_problem(call(["admin"], "doors"), 403, "forbidden")
    assert call(["admin"], "Default").status_code == 200
    assert_problem(home.post(URL), 401, "unauthorized")
