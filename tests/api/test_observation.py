"""What is seen of each request: one line without anybody in it, its metrics, and who may read those."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from calls import Photos, assert_problem, enroll, post
from flask.testing import FlaskClient

from recognizer import logs
from recognizer.runtime import Runtime

NAME = "Zebulon Quetzalcoatl"


class Log:
    """The process's log in its real format, at a level that the test chooses."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(logs.formatter("json"))

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def requests(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if line["message"] == "request"]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    log = Log()
    root = logging.getLogger()
    level = root.level
    root.addHandler(log.handler)
    root.setLevel(logging.INFO)
    yield log
    root.removeHandler(log.handler)
    root.setLevel(level)


def key(runtime: Runtime, *scopes: str) -> tuple[str, dict[str, str]]:
    """A new key's id and the header that presents it."""
    record, secret = runtime.keys.create(scopes=scopes)
    return record.id, {"X-API-Key": secret}


def counted(runtime: Runtime) -> dict[str, float]:
    lines = [line for line in runtime.metrics.scrape().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_recognition_has_one_line_that_says_what_was_done(client: FlaskClient, photo: Photos, log: Log) -> None:
    enroll(client, NAME, photo["obama"])
    response = post(client, "/recognize", photo.two_faces(), headers={"X-Request-ID": "front-door-17"})
    _, line = log.requests()
    assert line["request_id"] == response.headers["X-Request-ID"] == response.json["request_id"] == "front-door-17"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/recognize", 200)
    assert line["faces"] == 2
    assert line["decisions"] == {"match": 1, "unknown": 1}
    assert set(line["timings_ms"]) == {"decode", "detect", "align", "encode", "search", "total"}
    assert line["duration_ms"] >= line["timings_ms"]["total"] > 0
    assert line["request_bytes"] > len(photo.two_faces())
    assert "code" not in line
    assert "key_id" not in line


def test_an_enrolment_has_one_line_that_says_what_was_done(
    client: FlaskClient, photo: Photos, no_face: bytes, log: Log
) -> None:
    answer = enroll(client, NAME, photo["obama"], no_face)
    (line,) = log.requests()
    assert (line["route"], line["status"]) == ("/enroll", 201)
    assert (line["enrolled"], line["refused"]) == (1, {"no_face": 1})
    assert line["gallery_revision"] == answer["gallery_revision"]


def test_the_line_names_the_pattern_of_a_route_and_not_the_person(client: FlaskClient, photo: Photos, log: Log) -> None:
    person = enroll(client, NAME, photo["obama"])["person"]
    client.get(f"/v1/people/{person['id']}")
    client.get(f"/v1/people?query={NAME}")
    client.get(f"/people/{NAME}")
    assert [line["route"] for line in log.requests()[1:]] == ["/v1/people/<person_id>", "/v1/people", "none"]
    assert person["id"] not in log.text


def test_an_error_has_its_line_with_its_code(client: FlaskClient, no_face: bytes, log: Log) -> None:
    post(client, "/recognize", b"no image at all")
    post(client, "/enroll", no_face, name=NAME)
    client.get("/nowhere")
    client.put("/recognize")
    assert [(line["status"], line["code"]) for line in log.requests()] == [
        (415, "image_unsupported"),
        (422, "no_face"),
        (404, "not_found"),
        (405, "method_not_allowed"),
    ]


def test_a_failure_of_our_own_has_its_line_and_a_stack_trace_under_the_same_id(
    client: FlaskClient, photo: Photos, log: Log, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(runtime.service, "recognize", fail)
    response = post(client, "/recognize", photo["obama"])
    body = assert_problem(response, 500, "internal_error")
    (line,) = log.requests()
    assert (line["status"], line["code"], line["request_id"]) == (500, "internal_error", body["request_id"])
    (failure,) = [json.loads(line) for line in log.text.splitlines() if "exc_info" in line]
    assert body["request_id"] in failure["message"]
    assert failure["exc_info"].endswith("ZeroDivisionError: planted")
    assert "planted" not in response.text


@pytest.mark.parametrize("sent", ["", "two words", "a\tb", "x" * 129, "Jos\u00e9", '{"level":"INFO"}'])
def test_a_request_id_that_could_forge_a_line_is_replaced(client: FlaskClient, log: Log, sent: str) -> None:
    response = client.get("/v1/people", headers={"X-Request-ID": sent})
    (line,) = log.requests()
    assert line["request_id"] == response.headers["X-Request-ID"] != sent
    assert len(line["request_id"]) == 32


def test_the_line_names_the_key_by_its_id(client: FlaskClient, runtime: Runtime, log: Log) -> None:
    key_id, header = key(runtime, "admin")
    client.get("/v1/people", headers=header)
    client.get("/v1/people")
    with_key, without_key = log.requests()
    assert with_key["key_id"] == key_id
    assert "key_id" not in without_key
    assert (without_key["status"], without_key["code"]) == (401, "unauthorized")


def test_no_line_of_a_whole_round_holds_a_name_an_embedding_or_a_secret(
    client: FlaskClient, runtime: Runtime, photo: Photos, no_face: bytes, log: Log
) -> None:
    _, header = key(runtime, "admin")
    secret = header["X-API-Key"].rpartition("_")[2]
    wrong = {"X-API-Key": header["X-API-Key"][:-4] + "0000"}
    options = {"name": NAME, "external_id": "external-4711", "metadata": json.dumps({"note": "metadata-4711"})}
    enrolment = post(client, "/enroll", photo["obama"], no_face, headers=header, **options)
    person_id = enrolment.json["person"]["id"]
    seen = post(client, "/recognize", photo["obama2"], headers=header, include="embedding,landmarks").json
    assert seen["faces"][0]["person"]["name"] == NAME
    embedding = seen["faces"][0]["embedding"]
    statuses = [
        post(client, "/recognize", photo["obama2"], headers=wrong).status_code,
        post(client, "/enroll", photo["obama"], headers=header, name=NAME).status_code,
        post(client, "/enroll", photo["biden"], headers=header, name=NAME, nickname=NAME).status_code,
        client.get(f"/v1/people?query={NAME}", headers=header).status_code,
        client.get(f"/v1/people/{person_id}", headers=header).status_code,
        client.delete(f"/v1/people/{person_id}", headers=header).status_code,
        client.delete(f"/v1/people/{person_id}", headers=header).status_code,
    ]
    assert statuses == [401, 422, 400, 200, 200, 200, 404]
    assert len(log.requests()) == 2 + len(statuses)
    for hidden in (NAME, NAME.split()[0], "external-4711", "metadata-4711", secret, wrong["X-API-Key"], person_id):
        assert hidden.casefold() not in log.text.casefold(), f"{hidden} is in the log"
    for number in embedding[:8]:
        assert str(number)[:8] not in log.text


def test_health_probes_and_scrapes_are_lines_at_debug_level_only(client: FlaskClient, log: Log) -> None:
    probes = ["/health/live", "/health/ready", "/metrics"]
    for path in probes:
        assert client.get(path).status_code == 200
    assert log.requests() == []
    logging.getLogger().setLevel(logging.DEBUG)
    for path in probes:
        client.get(path)
    assert [(line["route"], line["level"]) for line in log.requests()] == [(path, "DEBUG") for path in probes]


def test_probes_are_counted_but_do_not_flatter_the_vitals(client: FlaskClient, runtime: Runtime) -> None:
    runtime.tally.take()
    client.get("/health/live")
    client.get("/metrics")
    assert runtime.tally.take()["requests"] == 0
    post(client, "/recognize", b"no image at all")
    taken = runtime.tally.take()
    assert (taken["requests"], taken["errors"]) == (1, {"image_unsupported": 1})


def test_metrics_need_the_scope_admin(client: FlaskClient, runtime: Runtime) -> None:
    _, header = key(runtime, "recognize", "enroll")
    assert_problem(client.get("/metrics"), 401, "unauthorized")
    assert_problem(client.get("/metrics", headers=header), 403, "forbidden")
    _, header = key(runtime, "admin")
    assert client.get("/metrics", headers=header).status_code == 200
    token = {"Authorization": f"Bearer {header['X-API-Key']}"}  # the way of Prometheus
    response = client.get("/metrics", headers=token)
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain")


def test_requests_faces_decisions_and_stages_are_counted(
    client: FlaskClient, runtime: Runtime, photo: Photos, no_face: bytes
) -> None:
    before = counted(runtime)
    enroll(client, NAME, photo["obama"], no_face)
    post(client, "/enroll", no_face, name=NAME)
    post(client, "/recognize", photo.two_faces())
    post(client, "/recognize", b"no image at all")
    after = counted(runtime)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    expected = {
        'recognizer_requests_total{code="",route="/enroll",status="201"}': 1,
        'recognizer_requests_total{code="",route="/recognize",status="200"}': 1,
        'recognizer_requests_total{code="image_unsupported",route="/recognize",status="415"}': 1,
        'recognizer_request_seconds_count{route="/recognize"}': 2,
        'recognizer_faces_total{route="/enroll"}': 1,
        'recognizer_faces_total{route="/recognize"}': 2,
        'recognizer_decisions_total{decision="match"}': 1,
        'recognizer_decisions_total{decision="unknown"}': 1,
        'recognizer_refused_photos_total{code="no_face"}': 2,
        'recognizer_stage_seconds_count{stage="detect"}': 1,
        'recognizer_stage_seconds_count{stage="total"}': 1,
    }
    assert {name: grown.get(name) for name in expected} == expected
    shown = client.get("/metrics").text
    assert all(name in shown for name in expected)
    assert NAME not in shown
