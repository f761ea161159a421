"""People over HTTP: sought, changed, merged, given faces and rid of them, by whoever may."""

from __future__ import annotations

import json
from typing import Any

import pytest
from calls import Photos, assert_problem, enroll, post
from flask.testing import FlaskClient

from recognizer.runtime import Runtime

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def ada(client: FlaskClient, photo: Photos) -> str:
    """Somebody with one photo of Obama."""
    return enroll(client, "Ada", photo["obama"], external_id="7", metadata='{"team": "a"}')["person"]["id"]


@pytest.fixture
def visitors(client: FlaskClient, runtime: Runtime) -> dict[str, str]:
    """A second collection, and the headers of a key that has all scopes in it and none elsewhere."""
    assert client.post("/v1/collections", json={"name": "Visitors"}).status_code == 201
    _, secret = runtime.keys.create(scopes=["admin"], collection="Visitors")
    return {"X-API-Key": secret}


def of(client: FlaskClient, person_id: str) -> dict[str, Any]:
    found = client.get(f"/v1/people/{person_id}").json
    assert isinstance(found, dict)
    return found


def person(client: FlaskClient, name: str, photo: bytes, **options: Any) -> str:
    return str(enroll(client, name, photo, force="true", **options)["person"]["id"])


def revision(client: FlaskClient) -> int:
    return int(client.get("/v1/collections/default").json["gallery_revision"])


def everything(runtime: Runtime) -> list[Any]:
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT people.*, faces.id, collections.revision FROM people JOIN collections ON collections.id ="
            " collection_id LEFT JOIN faces ON person_id = people.id ORDER BY people.id, faces.id"
        )
        return cursor.fetchall()


# -- listings --


def test_people_are_sorted_filtered_and_paged(client: FlaskClient, photo: Photos) -> None:
    for number, name in enumerate(("Cleo", "ada", "Bob")):
        person(client, name, photo["obama"], external_id=f"N {number}")

    def listed(**query: Any) -> list[str]:
        response = client.get("/v1/people", query_string=query)
        assert response.status_code == 200, response.text
        return [each["name"] for each in response.json["people"]]

    assert listed(sort="-name") == ["Cleo", "Bob", "ada"]
    assert listed(sort="created_at") == ["Cleo", "ada", "Bob"]
    assert listed(sort="-created_at", query="B") == ["Bob"]
    assert listed(external_id="N 1") == ["ada"]
    first = client.get("/v1/people?sort=-created_at&limit=2").json
    assert [each["name"] for each in first["people"]] == ["Bob", "ada"]
    assert listed(sort="-created_at", cursor=first["next_cursor"]) == ["Cleo"]
    other = client.get("/v1/people", query_string={"cursor": first["next_cursor"]})
    assert "another query" in assert_problem(other, 400, "invalid_request")["detail"]


def test_the_longest_names_are_paged_too(client: FlaskClient, photo: Photos) -> None:
    """The letter is three when compared without case."""
    for number in range(3):
        person(client, "\u0390" * 199 + str(number), photo["obama"])
    cursor, found = None, []
    while not found or cursor:
        page = client.get("/v1/people", query_string={"limit": 1, **({"cursor": cursor} if cursor else {})}).json
        found += [each["name"][-1] for each in page["people"]]
        cursor = page["next_cursor"]
    assert found == ["0", "1", "2"]


@pytest.mark.parametrize(
    "query",
    [
        "sort=revision",
        "sort=name;drop table people",
        "sort=",
        "external_id=",
        "external_id=%00",
        "external_id=" + "x" * 201,
        "query=" + "x" * 201,
        "query=%00",
        "min_revision=-1",
        "min_revision=9223372036854775808",
        "min_revision=x",
        "cursor=WyJhIl0=",
        "cursor=",
        "limit=2&limit=3",
    ],
)
def test_impossible_listings_are_400(client: FlaskClient, query: str) -> None:
    assert_problem(client.get(f"/v1/people?{query}"), 400, "invalid_request")


def test_no_text_of_a_caller_becomes_sql(client: FlaskClient, photo: Photos, runtime: Runtime, ada: str) -> None:
    before = everything(runtime)
    for evil in ("'; DELETE FROM people; --", "%' OR '1'='1", "\\'; SELECT pg_sleep(9); --", "{} %s %(id)s"):
        assert client.get("/v1/people", query_string={"query": evil}).json["people"] == []
        assert client.get("/v1/people", query_string={"external_id": evil}).json["people"] == []
        assert client.get("/v1/people", query_string={"sort": evil}).status_code == 400
        assert client.get("/v1/people", query_string={"cursor": evil}).status_code == 400
        assert client.get(f"/v1/people/{evil}").status_code == 404
        assert client.delete(f"/v1/people/{ada}/faces/{evil}").status_code == 404
        assert client.post(f"/v1/people/{ada}/merge", json={"into": evil}).status_code == 404
        assert client.delete(f"/v1/collections/{evil}").status_code == 404
        assert everything(runtime) == before
        assert client.post("/v1/collections", json={"name": evil}).json["name"] == evil
        changed = client.patch(
            f"/v1/people/{ada}", json={"name": evil, "external_id": evil, "metadata": {evil: [evil]}}
        ).json
        assert (changed["name"], changed["external_id"], changed["metadata"]) == (evil, evil, {evil: [evil]})
        assert client.patch(f"/v1/people/{ada}", json={"name": "Ada", "external_id": "7"}).status_code == 200
        client.patch(f"/v1/people/{ada}", json={"metadata": {"team": "a"}})
        before = everything(runtime)


# -- changing --


def test_a_person_is_changed_member_by_member(client: FlaskClient, photo: Photos, ada: str) -> None:
    changed = client.patch(f"/v1/people/{ada}", json={"name": "Ada  Lovelace"})
    assert changed.status_code == 200
    assert changed.json == {
        "request_id": changed.headers["X-Request-ID"],
        **of(client, ada),
        "gallery_revision": revision(client),
    }
    assert (changed.json["name"], changed.json["external_id"]) == ("Ada Lovelace", "7")
    (seen,) = post(client, "/recognize", photo["obama"]).json["faces"]
    assert seen["person"] == {"id": ada, "name": "Ada Lovelace"}
    deepest = {"a": json.loads("[" * 31 + "]" * 31)}
    assert client.patch(f"/v1/people/{ada}", json={"metadata": deepest}).json["metadata"] == deepest
    cleared = client.patch(f"/v1/people/{ada}", json={"external_id": None, "metadata": None}).json
    assert (cleared["external_id"], cleared["metadata"], cleared["name"]) == (None, {}, "Ada Lovelace")


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"name": null}',
        '{"name": ""}',
        '{"name": 5}',
        '{"name": true}',
        '{"name": ["a"]}',
        '{"name": "a\\u0000"}',
        '{"name": "a\\u202eb"}',
        '{"name": "\\ud800"}',
        '{"external_id": ""}',
        '{"external_id": 7}',
        '{"metadata": []}',
        '{"metadata": 1}',
        '{"metadata": {"a": NaN}}',
        '{"metadata": {"a": "\\u0000"}}',
        '{"metadata": {"a": "\\ud800"}}',
        '{"metadata": {"a": "' + "x" * 16_400 + '"}}',
        '{"metadata": {"a": ' + "[" * 32 + "]" * 32 + "}}",
        '{"metadata": {"a": ' + "[" * 974 + "]" * 974 + "}}",
        '{"metadata": ' + '{"a":' * 5000 + "1" + "}" * 5000 + "}",
        '{"name": "New", "id": "x"}',
        '{"name": "New", "faces": []}',
        '{"name": "' + "x" * 201 + '"}',
        "[]",
        "null",
        "{",
        "",
    ],
)
def test_an_impossible_change_is_400_and_changes_nothing(client: FlaskClient, ada: str, body: str) -> None:
    before = of(client, ada)
    response = client.patch(f"/v1/people/{ada}", data=body, content_type="application/json")
    assert_problem(response, 400, "invalid_request")
    assert of(client, ada) == before


def test_what_another_person_has_is_409_and_changes_nothing(
    client: FlaskClient, photo: Photos, runtime: Runtime, ada: str
) -> None:
    person(client, "Grace", photo["biden"], external_id="8")
    before = everything(runtime)
    for change in ({"name": "GRACE", "metadata": {}}, {"external_id": "8", "name": "New"}):
        assert_problem(client.patch(f"/v1/people/{ada}", json=change), 409, "conflict")
    assert everything(runtime) == before


# -- merging --


def test_two_who_are_one_are_merged(client: FlaskClient, photo: Photos, ada: str) -> None:
    wrong = person(client, "Aida", photo["obama2"])
    merged = client.post(f"/v1/people/{wrong}/merge", json={"into": ada})
    assert merged.status_code == 200
    assert merged.json == {
        "request_id": merged.headers["X-Request-ID"],
        "person": of(client, ada),
        "merged": wrong,
        "moved": {"faces": 1, "photos": 0, "rejections": 0, "idempotency_keys": 0},
        "dropped": {"faces": 0, "rejections": 0},
        "gallery_revision": revision(client),
    }
    assert len(merged.json["person"]["faces"]) == 2
    (seen,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert seen["person"] == {"id": ada, "name": "Ada"}
    assert_problem(client.get(f"/v1/people/{wrong}"), 404, "person_not_found")


def test_the_same_photo_of_both_is_kept_once(client: FlaskClient, photo: Photos, ada: str) -> None:
    wrong = person(client, "Aida", photo["obama"])
    merged = client.post(f"/v1/people/{wrong}/merge", json={"into": ada}).json
    assert (len(merged["person"]["faces"]), merged["dropped"]["faces"]) == (1, 1)


def test_what_the_merger_refutes_is_forgotten(client: FlaskClient, photo: Photos, ada: str) -> None:
    assert post(client, f"/v1/people/{ada}/rejections", photo["obama2"]).status_code == 201
    wrong = person(client, "Aida", photo["obama2"])
    (seen,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert seen["person"]["id"] == wrong
    merged = client.post(f"/v1/people/{wrong}/merge", json={"into": ada}).json
    assert merged["dropped"]["rejections"] == 1
    (seen,) = post(client, "/recognize", photo["obama2"]).json["faces"]
    assert (seen["decision"], seen["person"]["id"]) == ("match", ada)


def test_what_cannot_be_merged_changes_nothing(
    client: FlaskClient, photo: Photos, runtime: Runtime, ada: str, visitors: dict[str, str]
) -> None:
    visitor = enroll(client, "Ada", photo["biden"], collection="Visitors", headers=visitors)["person"]["id"]
    _, everywhere = runtime.keys.create(scopes=["enroll"])
    both = {"X-API-Key": everywhere}
    before = everything(runtime)
    for body, status, code in (
        ({"into": ada}, 400, "invalid_request"),
        ({"into": visitor}, 409, "conflict"),
        ({"into": NOBODY}, 404, "person_not_found"),
        ({"into": "x"}, 404, "person_not_found"),
        ({"into": ""}, 400, "invalid_request"),
        ({"into": None}, 400, "invalid_request"),
        ({"into": [ada]}, 400, "invalid_request"),
        ({}, 400, "invalid_request"),
        ({"into": visitor, "force": True}, 400, "invalid_request"),
    ):
        response = client.post(f"/v1/people/{ada}/merge", json=body, headers=both)
        assert_problem(response, status, code)
    assert_problem(client.post(f"/v1/people/{NOBODY}/merge", json={"into": ada}, headers=both), 404, "person_not_found")
    assert everything(runtime) == before


# -- faces --


def test_more_photos_of_a_person(client: FlaskClient, photo: Photos, ada: str) -> None:
    response = post(client, f"/v1/people/{ada}/faces", photo["obama2"], photo["obama"])
    assert response.status_code == 201, response.text
    assert response.json.keys() == enroll(client, "Grace", photo["biden"]).keys()
    assert response.json["person"] == {"id": ada, "name": "Ada", "faces": 2}
    assert [refusal["code"] for refusal in response.json["refused"]] == ["duplicate_photo"]
    assert response.json["enrolled"][0]["face_id"] in {face["id"] for face in of(client, ada)["faces"]}


def test_the_same_key_adds_a_photo_once_by_either_route(client: FlaskClient, photo: Photos, ada: str) -> None:
    once = {"Idempotency-Key": "k1"}
    first = post(client, f"/v1/people/{ada}/faces", photo["obama2"], headers=once)
    for again in (
        post(client, f"/v1/people/{ada}/faces", photo["obama2"], headers=once),
        post(client, "/enroll", photo["obama2"], person_id=ada, headers=once),
    ):
        assert again.status_code == 201
        assert {**again.json, "request_id": ""} == {**first.json, "request_id": ""}
    assert_problem(post(client, f"/v1/people/{ada}/faces", photo["biden"], headers=once), 409, "conflict")
    assert_problem(
        post(client, f"/v1/people/{ada}/faces", photo["obama3"], headers={"Idempotency-Key": "a b"}),
        400,
        "invalid_request",
    )


def test_who_repeats_a_request_after_a_merger_is_told_of_the_person_there_is_now(
    client: FlaskClient, photo: Photos, runtime: Runtime, ada: str, visitors: dict[str, str]
) -> None:
    more, admin = f"/v1/people/{ada}/faces", {"X-API-Key": runtime.keys.create(scopes=["admin", "enroll"])[1]}
    kept = person(client, "Aida", photo["obama3"], headers=admin)
    once = {"Idempotency-Key": "k1", "X-API-Key": runtime.keys.create(scopes=["enroll"])[1]}
    bound = {**once, "X-API-Key": runtime.keys.create(scopes=["enroll"], collection="default")[1]}
    first = post(client, more, photo["obama2"], headers=once)
    assert client.post(f"/v1/people/{ada}/merge", json={"into": kept}, headers=admin).status_code == 200
    for headers in (once, bound):
        again = post(client, more, photo["obama2"], headers=headers)
        assert again.status_code == 201, again.text
        assert again.json["person"] == {**first.json["person"], "id": kept, "name": "Aida"}
        assert again.json["enrolled"] == first.json["enrolled"]
    for headers in (admin, {**once, "Idempotency-Key": "k2"}, {**visitors, "Idempotency-Key": "k1"}):
        assert_problem(post(client, more, photo["obama2"], headers=headers), 404, "person_not_found")
    assert_problem(post(client, more, photo["biden"], headers=once), 404, "person_not_found")


def test_photos_that_are_no_use_are_refused_as_in_enrolment(
    client: FlaskClient, photo: Photos, no_face: bytes, ada: str
) -> None:
    before = of(client, ada)
    assert_problem(post(client, f"/v1/people/{ada}/faces", no_face), 422, "no_face")
    assert_problem(post(client, f"/v1/people/{ada}/faces", photo.two_faces()), 422, "multiple_faces")
    assert_problem(post(client, f"/v1/people/{ada}/faces"), 400, "image_missing")
    assert_problem(post(client, f"/v1/people/{ada}/faces", photo["obama2"], name="Eve"), 400, "invalid_request")
    assert_problem(post(client, f"/v1/people/{NOBODY}/faces", photo["obama2"]), 404, "person_not_found")
    assert of(client, ada) == before


def test_a_face_is_taken_back_and_the_person_stays_without_any(client: FlaskClient, photo: Photos, ada: str) -> None:
    (face,) = of(client, ada)["faces"]
    response = client.delete(f"/v1/people/{ada}/faces/{face['id']}")
    assert response.status_code == 200
    assert response.json == {
        "request_id": response.headers["X-Request-ID"],
        "face_id": face["id"],
        "person": {**of(client, ada), "faces": 0},
        "gallery_revision": revision(client),
    }
    (seen,) = post(client, "/recognize", photo["obama"]).json["faces"]
    assert seen["decision"] == "unknown"
    assert_problem(client.delete(f"/v1/people/{ada}/faces/{face['id']}"), 404, "face_not_found")
    assert_problem(client.delete(f"/v1/people/{ada}/faces/1"), 404, "face_not_found")
    assert_problem(client.delete(f"/v1/people/{NOBODY}/faces/{face['id']}"), 404, "person_not_found")
    assert post(client, f"/v1/people/{ada}/faces", photo["obama"]).json["person"]["faces"] == 1


# -- versions --


def test_what_has_not_changed_is_not_sent_again(client: FlaskClient, photo: Photos, ada: str) -> None:
    said = f"/v1/people/{ada}/rejections"
    for path in (f"/v1/people/{ada}", "/v1/people", "/v1/collections", "/v1/collections/default", said):
        first = client.get(path)
        tag = first.headers["ETag"]
        again = client.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
        assert "X-Request-ID" in again.headers
        client.patch(f"/v1/people/{ada}", json={"name": f"Ada{len(path)}"})
        post(client, said, photo["biden"])
        changed = client.get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["ETag"] != tag
        assert_problem(client.get(path, headers={"If-Match": tag}), 412, "precondition_failed")


def test_nobody_changes_what_they_have_not_seen(client: FlaskClient, photo: Photos, ada: str) -> None:
    old = client.get(f"/v1/people/{ada}").headers["ETag"]
    wrong = person(client, "Aida", photo["obama2"])
    assert client.patch(f"/v1/people/{ada}", json={"name": "Ada B"}, headers={"If-Match": old}).status_code == 200
    (face,) = of(client, ada)["faces"]
    for tag in (old, '"x"', "", f"W/{client.get(f'/v1/people/{ada}').headers['ETag']}"):
        stale = {"If-Match": tag}
        for response in (
            client.patch(f"/v1/people/{ada}", json={"name": "Ada C"}, headers=stale),
            client.post(f"/v1/people/{ada}/merge", json={"into": wrong}, headers=stale),
            client.delete(f"/v1/people/{ada}/faces/{face['id']}", headers=stale),
            client.delete(f"/v1/people/{ada}", headers=stale),
        ):
            assert_problem(response, 412, "precondition_failed")
    assert of(client, ada)["name"] == "Ada B"
    now = {"If-Match": client.get(f"/v1/people/{ada}").headers["ETag"]}
    assert client.delete(f"/v1/people/{ada}/faces/{face['id']}", headers=now).status_code == 200
    assert client.delete(f"/v1/people/{ada}", headers={"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/people", "/v1/people/{ada}", "/v1/people/{ada}/rejections", "/v1/collections/default"]
)
def test_nobody_is_answered_from_an_older_state_than_they_have_seen(client: FlaskClient, ada: str, path: str) -> None:
    path, now = path.format(ada=ada), revision(client)
    assert client.get(path, query_string={"min_revision": now}).status_code == 200
    behind = client.get(path, query_string={"min_revision": now + 1})
    assert_problem(behind, 503, "gallery_behind")
    assert behind.headers["Retry-After"] == "1"
    assert_problem(client.get(path, query_string={"min_revision": "-1"}), 400, "invalid_request")


def test_a_person_who_may_be_on_the_way_is_not_called_unknown(client: FlaskClient, ada: str) -> None:
    now = revision(client)
    assert client.post("/v1/collections", json={"name": "Quiet"}).status_code == 201
    for query, status, code in (
        ({"min_revision": now + 1}, 503, "gallery_behind"),
        ({"min_revision": now}, 503, "gallery_behind"),  # who knows whether it is of Quiet, which is at 0
        ({"min_revision": now, "collection": "default"}, 404, "person_not_found"),
        ({"min_revision": now + 1, "collection": "default"}, 503, "gallery_behind"),
        ({"collection": "Quiet"}, 404, "person_not_found"),
    ):
        assert_problem(client.get(f"/v1/people/{NOBODY}", query_string=query), status, code)
    assert (
        client.get(f"/v1/people/{ada}", query_string={"min_revision": now, "collection": "DEFAULT"}).json["id"] == ada
    )
    assert_problem(client.get(f"/v1/people/{ada}?collection=Quiet"), 404, "person_not_found")


# -- other collections --


def test_a_key_to_another_collection_neither_sees_nor_changes_nor_learns_of_a_person(
    client: FlaskClient, photo: Photos, runtime: Runtime, ada: str, visitors: dict[str, str]
) -> None:
    """It gets the very answer that it would get of somebody who does not exist."""
    visitor = enroll(client, "Zoe", photo["biden"], collection="Visitors", headers=visitors)["person"]["id"]
    with runtime.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM faces WHERE person_id = %s", (ada,))
        (face,) = cursor.fetchall()[0]
    before = everything(runtime)

    def answers(whose: str) -> list[Any]:
        one = f"/v1/people/{whose}"
        responses = [
            client.get(one, headers=visitors),
            client.get(f"{one}?min_revision=1", headers=visitors),
            client.patch(one, json={"name": "Zoe"}, headers=visitors),
            client.patch(one, json={"name": "Z"}, headers={**visitors, "If-Match": '"x"'}),
            client.delete(one, headers=visitors),
            client.post(f"{one}/merge", json={"into": visitor}, headers=visitors),
            client.post(f"/v1/people/{visitor}/merge", json={"into": whose}, headers=visitors),
            client.delete(f"{one}/faces/{face}", headers=visitors),
            client.get(f"{one}/rejections", headers=visitors),
            post(client, f"{one}/faces", photo["obama2"], headers=visitors),
            post(client, f"{one}/rejections", photo["obama2"], headers=visitors),
        ]
        return [{**assert_problem(each, 404, "person_not_found"), "request_id": ""} for each in responses]

    assert answers(ada) == answers(NOBODY)
    for response in (
        client.get("/v1/people?collection=default", headers=visitors),
        client.get("/v1/people", headers=visitors),
        client.get(f"/v1/people/{ada}?collection=default", headers=visitors),
        client.get("/v1/collections/default", headers=visitors),
        client.get("/v1/collections/nowhere", headers=visitors),
        client.patch("/v1/collections/default", json={"threshold": 0.5}, headers=visitors),
        client.delete("/v1/collections/default", headers=visitors),
        client.post("/v1/collections", json={"name": "Mine"}, headers=visitors),
        client.post("/v1/collections", json={"name": "default"}, headers=visitors),
    ):
        assert_problem(response, 403, "forbidden")
    listed = client.get("/v1/collections", headers=visitors).json["collections"]
    assert [each["name"] for each in listed] == ["Visitors"]
    assert everything(runtime) == before
