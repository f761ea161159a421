"""The client against a server that is busy, breaks off, lies or is none of ours."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stand_in import Answer, Request, Script, StandIn, in_turn, problem, stand_in

from recognizer.client import Recognizer, RecognizerClientError, Unreachable

ENROLMENT = {
    "person": {"id": "p", "name": "Ada", "faces": 1},
    "gallery_revision": 1,
    "enrolled": [
        {
            "index": 0,
            "face_id": "f",
            "box": {"left": 1, "top": 2, "right": 3, "bottom": 4},
            "quality": {"score": 1.0, "issues": []},
        }
    ],
    "refused": [],
    "warnings": [],
    "request_id": "r",
}
NOBODY = {
    "collection": "default",
    "gallery_revision": 1,
    "image": {"width": 1, "height": 1, "format": "PNG"},
    "faces": [],
}
COLLECTIONS = {"collections": []}

Serve = Callable[[Script], StandIn]


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Serve:
    def start(script: Script) -> StandIn:
        server = stand_in(script)
        request.addfinalizer(lambda: server.__exit__(None, None, None))
        return server.__enter__()

    return start


def test_importing_it_imports_nothing_of_the_service() -> None:
    code = "import sys, recognizer.client; print('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = set(ran.stdout.split())
    ours = {name for name in modules if name.startswith("recognizer.")}
    assert "recognizer.client" in ours
    assert {name.split(".")[1] for name in ours} == {"client"}
    heavy = {"numpy", "flask", "psycopg2", "onnxruntime", "dlib", "PIL", "scipy", "cryptography", "tqdm"}
    assert not modules & heavy


# -- sent again --


def test_a_busy_service_is_asked_again_when_it_says(serve: Serve) -> None:
    server = serve(
        in_turn(
            problem(503, "busy", headers={"Retry-After": "1"}),
            problem(429, "rate_limited", headers={"Retry-After": "0"}),
            Answer(body=COLLECTIONS),
        )
    )
    with Recognizer(server.url) as client:
        assert client.collections() == ()
    first, second, _ = server.requests
    assert second.at - first.at >= 1.0


def test_all_attempts_of_an_enrolment_are_one(serve: Serve) -> None:
    """Whether it was the request or the answer that was lost, nobody can say; the key makes it the same."""
    server = serve(in_turn(Answer(broken=0), Answer(body=ENROLMENT, broken=20), Answer(201, ENROLMENT)))
    with Recognizer(server.url) as client:
        assert client.enroll(b"photo", name="Ada").person.name == "Ada"
        assert client.enroll(b"photo", name="Ada").person.id == "p"
    first, second, third, other_call = (request.headers["idempotency-key"] for request in server.requests)
    assert first == second == third != other_call


def test_what_must_not_be_done_twice_is_sent_again_only_if_it_was_not_done(serve: Serve) -> None:
    server = serve(in_turn(problem(503, "busy", headers={"Retry-After": "0"}), Answer(broken=0)))
    with Recognizer(server.url) as client, pytest.raises(Unreachable, match="broke off"):
        client.merge_people("a", into="b")
    assert len(server.requests) == 2
    away = serve(in_turn(problem(503, "database_unavailable", headers={"Retry-After": "0"})))
    with Recognizer(away.url) as client, pytest.raises(RecognizerClientError) as caught:
        client.delete_person("a")
    assert (caught.value.code, len(away.requests)) == ("database_unavailable", 1)


def test_it_gives_up_in_time_with_the_reason(serve: Serve) -> None:
    server = serve(in_turn(problem(503, "busy", headers={"Retry-After": "30"})))
    with Recognizer(server.url, retry_seconds=5) as client, pytest.raises(RecognizerClientError) as caught:
        client.collections()
    assert (caught.value.status, caught.value.code, len(server.requests)) == (503, "busy", 1)
    with (
        Recognizer("http://127.0.0.1:1", retry_seconds=0) as client,
        pytest.raises(Unreachable, match="Nobody answers"),
    ):
        client.collections()


# -- what an answer says --


def test_an_error_has_all_that_the_service_says(serve: Serve) -> None:
    refused = [{"index": 0, "code": "low_quality", "detail": "It is blurred.", "issues": ["LOW_SHARPNESS"]}]
    server = serve(in_turn(problem(422, "low_quality", refused=refused)))
    with Recognizer(server.url, "rk_secret") as client, pytest.raises(RecognizerClientError) as caught:
        client.enroll(b"photo", name="Ada")
    error = caught.value
    assert (error.status, error.code, str(error)) == (422, "low_quality", "It is low_quality.")
    assert (error.request_id, error.refused[0].issues) == ("request-1", ("LOW_SHARPNESS",))
    assert server.requests[0].headers["x-api-key"] == "rk_secret"
    assert "rk_secret" not in repr(error)


@pytest.mark.parametrize(
    "answer",
    [Answer(404, b"<html>nginx</html>"), Answer(500, {"message": "?"}), Answer(200, b"<html>"), Answer(200, {"a": 1})],
)
def test_what_is_none_of_ours_is_said_to_be(answer: Answer, serve: Serve) -> None:
    with Recognizer(serve(in_turn(answer)).url) as client, pytest.raises(RecognizerClientError) as caught:
        client.collections()
    assert caught.value.code == "answer_not_understood"


def test_the_key_goes_nowhere_else(serve: Serve) -> None:
    elsewhere = serve(in_turn(Answer(body=COLLECTIONS)))
    server = serve(in_turn(Answer(307, b"", {"Location": f"{elsewhere.url}/v1/collections"})))
    with Recognizer(server.url, "rk_secret") as client, pytest.raises(RecognizerClientError):
        client.collections()
    assert elsewhere.requests == []


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://localhost", "http://", "http://[::1"])
def test_an_impossible_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(RecognizerClientError, match="must look like"):
        Recognizer(url)


def test_a_name_is_one_part_of_the_path(serve: Serve) -> None:
    server = serve(in_turn(problem(404, "collection_not_found")))
    with Recognizer(server.url) as client, pytest.raises(RecognizerClientError):
        client.collection("a/../b?c")
    assert server.requests[0].path == "/v1/collections/a%2F..%2Fb%3Fc"


def test_people_are_listed_page_by_page_as_they_are_read(serve: Serve) -> None:
    def page(request: Request) -> Answer:
        number = int(request.query.get("cursor", "0"))
        person = {"id": str(number), "collection": "c", "name": f"n{number}", "external_id": None, "metadata": {}}
        person |= {"faces": 1, "created_at": "2026-01-01T00:00:00+00:00"}
        return Answer(body={"people": [person], "next_cursor": str(number + 1) if number < 2 else None})

    server = serve(page)
    with Recognizer(server.url) as client:
        people = client.people("c", query="n")
        assert (next(people).id, len(server.requests)) == ("0", 1)
        assert [person.id for person in people] == ["1", "2"]
    assert {request.query["query"] for request in server.requests} == {"n"}


# -- many images --


def images_of(request: Request) -> list[bytes]:
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    parts = request.body.split(b"--" + boundary)
    return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts if b'name="image"' in part]


def result_or(error: Callable[[bytes], str | None]) -> Script:
    """Each image has the result of its own text as collection, or an error."""

    def answer(request: Request) -> Answer:
        results = []
        for index, image in enumerate(images_of(request)):
            code = error(image)
            found = (
                {"error": {"code": code, "detail": "."}}
                if code
                else {"result": {**NOBODY, "collection": image.decode()}}
            )
            results.append({"index": index, **found})
        return Answer(body={"results": results, "request_id": "r"})

    return answer


def test_many_images_are_read_as_their_results_are(serve: Serve) -> None:
    server = serve(result_or(lambda image: None))
    read = itertools.count()

    def images() -> Iterator[bytes]:
        for number in range(100):
            next(read)
            yield f"{number}".encode()

    with Recognizer(server.url) as client:
        results = client.recognize_many(images())
        first = next(results)
        assert not isinstance(first, RecognizerClientError)
        assert (first.collection, next(read)) == ("0", 33)  # one batch, and the one that was one too many
        rest = list(results)
    assert [each.collection for each in rest] == [str(number) for number in range(1, 100)]  # type: ignore[union-attr]
    assert [len(images_of(request)) for request in server.requests] == [32, 32, 32, 4]


def test_what_is_wrong_with_one_image_harms_no_other(serve: Serve, tmp_path: Path) -> None:
    server = serve(result_or(lambda image: "image_corrupt" if image == b"bad" else None))
    with Recognizer(server.url) as client:
        good, bad, absent, last = client.recognize_many([b"good", b"bad", tmp_path / "absent.jpg", b"last"])
    assert isinstance(bad, RecognizerClientError)
    assert isinstance(absent, RecognizerClientError)
    assert (bad.code, absent.code) == ("image_corrupt", "image_unreadable")
    assert (good.collection, last.collection) == ("good", "last")  # type: ignore[union-attr]


def test_images_whose_turn_did_not_come_are_sent_again(serve: Serve) -> None:
    turns = {b"a": 1, b"b": 2, b"c": 3}

    def too_late(image: bytes) -> str | None:
        turns[image] -= 1
        return "deadline_exceeded" if turns[image] else None

    server = serve(result_or(too_late))
    with Recognizer(server.url) as client:
        assert [each.collection for each in client.recognize_many([b"a", b"b", b"c"])] == ["a", "b", "c"]  # type: ignore[union-attr]
    assert [images_of(request) for request in server.requests] == [[b"a", b"b", b"c"], [b"b", b"c"], [b"c"]]


def test_an_image_that_takes_too_long_alone_has_that_error(serve: Serve) -> None:
    server = serve(result_or(lambda image: "deadline_exceeded"))
    with Recognizer(server.url) as client:
        (outcome,) = client.recognize_many([b"a"])
    assert (isinstance(outcome, RecognizerClientError), len(server.requests)) == (True, 1)


# -- export --


def test_an_export_is_there_whole_or_not_at_all(serve: Serve, tmp_path: Path) -> None:
    archive = b"PK" + bytes(100_000)
    server = serve(in_turn(Answer(body=archive, broken=50_000), Answer(body=archive)))
    file = tmp_path / "ada.zip"
    with Recognizer(server.url, retry_seconds=0) as client:
        with pytest.raises(Unreachable):
            client.export_person("p", file)
        assert list(tmp_path.iterdir()) == []
        client.export_person("p", file)
    assert file.read_bytes() == archive
    assert [path.name for path in tmp_path.iterdir()] == ["ada.zip"]
    assert file.stat().st_mode & 0o077 == 0


def test_options_are_sent_as_the_service_reads_them(serve: Serve) -> None:
    server = serve(in_turn(Answer(201, ENROLMENT)))
    with Recognizer(server.url) as client:
        client.enroll([b"a", b"b"], name="Ada", metadata={"room": 7}, largest_face=True, force=True)
    body = server.requests[0].body.decode()
    assert len(images_of(server.requests[0])) == 2
    for name, value in (("face", "largest"), ("force", "true"), ("metadata", json.dumps({"room": 7}))):
        assert f'name="{name}"\r\n\r\n{value}\r\n' in body
