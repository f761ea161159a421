"""GET and DELETE under /v1/people."""

from __future__ import annotations

import pytest
from calls import Photos, assert_problem, enroll, post
from flask.testing import FlaskClient


def test_people_are_listed_by_name_in_pages(client: FlaskClient, photo: Photos) -> None:
    for name in ("Cleo", "ada", "Bob"):
        enroll(client, name, photo["obama"], force="true")
    first = client.get("/v1/people?limit=2").json
    assert [p["name"] for p in first["people"]] == ["ada", "Bob"]
    rest = client.get("/v1/people", query_string={"limit": 2, "cursor": first["next_cursor"]}).json
    assert ([p["name"] for p in rest["people"]], rest["next_cursor"]) == (["Cleo"], None)
    assert {"id", "name", "external_id", "metadata", "faces", "created_at"} <= rest["people"][0].keys()


def test_people_are_searched_by_part_of_the_name(client: FlaskClient, photo: Photos) -> None:
    for name in ("Ada_1", "Bob", "Adam"):
        enroll(client, name, photo["obama"], force="true")
    found = client.get("/v1/people?query=AD").json["people"]
    assert [p["name"] for p in found] == ["Ada_1", "Adam"]
    assert [p["name"] for p in client.get("/v1/people?query=a_").json["people"]] == ["Ada_1"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=many", "cursor=nonsense", "cursor=%00", "colection=x", "limit=9999"]
)
def test_impossible_queries_are_400(client: FlaskClient, query: str) -> None:
    assert_problem(client.get(f"/v1/people?{query}"), 400, "invalid_request")


def test_a_deleted_person_is_gone_everywhere(client: FlaskClient, photo: Photos) -> None:
    person = enroll(client, "Ada", photo["obama"], photo["obama2"])["person"]
    receipt = client.delete(f"/v1/people/{person['id']}").json
    assert (receipt["deleted"]["people"], receipt["deleted"]["faces"], receipt["left"]) == (1, 2, 0)
    assert receipt["gallery_revision"] == client.get("/v1/collections/default").json["gallery_revision"]
    (face,) = post(client, "/recognize", photo["obama"]).json["faces"]
    assert face["decision"] == "unknown"
    assert_problem(client.get(f"/v1/people/{person['id']}"), 404, "person_not_found")
    assert_problem(client.delete(f"/v1/people/{person['id']}"), 404, "person_not_found")


@pytest.mark.parametrize("person_id", ["00000000-0000-0000-0000-000000000000", "42", "%00", "é"])
def test_an_unknown_person_is_404(client: FlaskClient, person_id: str) -> None:
    assert_problem(client.get(f"/v1/people/{person_id}"), 404, "person_not_found")
