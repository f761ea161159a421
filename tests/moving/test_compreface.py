"""Moving in from CompreFace: a stand-in speaks the part of its REST API that is read, as its 1.2 does."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Command
from stand_in import Answer, Request, StandIn, stand_in
from system_calls import Service

from recognizer.client import Recognizer
from recognizer.enrolling import compreface
from recognizer.enrolling.compreface import CompreFace
from recognizer.enrolling.items import Item, NoPhoto
from recognizer.errors import StartupError

Small = Callable[[str], bytes]
KEY = "00000000-0000-0000-0000-000000000002"
PREFIX = "/api/v1/recognition/"


@dataclass
class Store:
    """What a CompreFace holds: photos by id of each subject. `before` is called with each request."""

    subjects: dict[str, dict[str, bytes]] = field(default_factory=dict)
    before: Callable[[Request], Answer | None] = lambda request: None

    def add(self, subject: str, *photos: bytes) -> list[str]:
        ids = [str(uuid.uuid4()) for _ in photos]
        self.subjects.setdefault(subject, {}).update(zip(ids, photos, strict=True))
        return ids

    def __call__(self, request: Request) -> Answer:
        key = request.headers.get("x-api-key", "")
        if len(key) != len(KEY):
            return Answer(400, {"message": "Service API key should be UUID", "code": 26})
        if key != KEY:
            return Answer(404, {"message": f"Recognition service with API Key {key} not found", "code": 10})
        if answer := self.before(request):
            return answer
        path = request.path.removeprefix(PREFIX)
        if path == "subjects":
            return Answer(body={"subjects": list(self.subjects)})
        if path == "faces":
            return self._page(request)
        _, image_id, img = path.split("/")
        assert img == "img"
        found = [photos[image_id] for photos in self.subjects.values() if image_id in photos]
        return Answer(body=found[0] if found else b"", headers={"Content-Type": "application/octet-stream"})

    def _page(self, request: Request) -> Answer:
        number, size = int(request.query["page"]), int(request.query["size"])
        wanted = request.query.get("subject")
        faces = [
            {"image_id": image_id, "subject": subject}
            for subject, photos in self.subjects.items()
            for image_id in photos
            if wanted in (None, subject)
        ]
        page = faces[number * size : (number + 1) * size]
        pages = -(-len(faces) // size)
        about = {"page_number": number, "page_size": size, "total_pages": pages, "total_elements": len(faces)}
        return Answer(body={"faces": page, **about})


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def server(store: Store) -> Iterator[StandIn]:
    with stand_in(store) as server:
        yield server


@contextmanager
def source(server: StandIn, key: str = KEY) -> Iterator[CompreFace]:
    with closing(CompreFace(f"{server.url}/api/v1/", key, retry_seconds=1)) as opened:
        yield opened


def test_all_photos_of_all_subjects_come_page_by_page(
    store: Store, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compreface, "PAGE_SIZE", 2)
    odd = "Ann & Bob?/#+50%é"
    ids = store.add(odd, b"1", b"2", b"3", b"4", b"5") + store.add("Zoe", b"6")
    store.subjects["Nobody"] = {}
    with source(server) as faces:
        assert faces.count() == 6
        found = list(faces)
        read = {each.label.rpartition("/")[2]: each.read() for each in found if isinstance(each, Item)}
    assert read == dict(zip(ids, [b"1", b"2", b"3", b"4", b"5", b"6"], strict=True))
    assert [each.person for each in found] == [*[odd] * 5, "Nobody", "Zoe"]
    assert [each.outcome.reasons for each in found if not isinstance(each, Item)] == [("no_photos",)]


def test_photos_that_shift_between_two_pages_are_not_lost(
    store: Store, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compreface, "PAGE_SIZE", 2)
    ids = store.add("Ada", *(f"{number}".encode() for number in range(6)))

    def delete_the_first(request: Request) -> None:
        if request.query.get("page") == "1":
            store.subjects["Ada"].pop(ids[0], None)
            if "Late" not in store.subjects:
                store.add("Late", b"late")

    store.before = delete_the_first
    with source(server) as faces:
        labels = [each.label.partition("/") for each in faces]
    assert {image_id for subject, _, image_id in labels if subject == "Ada"} >= set(ids[1:])
    assert "Late" in {subject for subject, _, _ in labels}


def test_a_photo_that_is_gone_or_fails_is_a_row(store: Store, server: StandIn) -> None:
    gone, failing = store.add("Ada", b"1", b"2")
    store.before = lambda request: Answer(500, {"message": "?", "code": 0}) if failing in request.path else None
    reasons = []
    with source(server) as faces:
        items = list(faces)
        del store.subjects["Ada"][gone]
        for item in items:
            assert isinstance(item, Item)
            with pytest.raises(NoPhoto) as caught:
                item.read()
            reasons.append(caught.value.outcome.reasons)
    assert reasons == [("photo_gone",), ("unreadable",)]


@pytest.mark.parametrize("key", ["wrong", KEY.replace("2", "3")])
def test_a_wrong_key_is_told_which_one_is_needed(key: str, server: StandIn) -> None:
    with source(server, key) as faces, pytest.raises(StartupError, match="RECOGNITION") as caught:
        faces.count()
    assert key not in str(caught.value)


@pytest.mark.parametrize("answer", [Answer(404, b"<html>"), Answer(200, b"<html>"), Answer(200, {"a": 1}), Answer(500)])
def test_what_is_no_compreface_is_said(answer: Answer) -> None:
    with stand_in(lambda _: answer) as server, source(server) as faces, pytest.raises(StartupError, match="CompreFace"):
        faces.count()


def test_one_that_is_away_for_a_moment_is_asked_again_and_not_for_ever(store: Store, server: StandIn) -> None:
    answers = [Answer(broken=0), Answer(503, b""), None]
    store.before = lambda request: answers.pop(0) if answers else None
    with closing(CompreFace(server.url, KEY, retry_seconds=10)) as faces:
        assert faces.count() == 0
    nowhere = CompreFace("http://127.0.0.1:1", KEY, retry_seconds=0)
    with closing(nowhere), pytest.raises(StartupError, match="Nobody answers"):
        nowhere.count()


@pytest.mark.parametrize("how", ["local", "remote"])
def test_everybody_moves_once(
    how: str,
    store: Store,
    server: StandIn,
    small: Small,
    running: Service,
    client: Recognizer,
    collection: str,
    command: Command,
    tmp_path: Path,
) -> None:
    store.add("Obama", small("obama"), small("obama2"))
    (landscape,) = store.add("Biden", b"no photo")
    store.add("Biden", small("biden"))
    into = ("--data-dir", str(running.data_dir)) if how == "local" else ("--to-url", running.url)
    arguments = ("migrate-from", "compreface", "--url", server.url, "--collection", collection, *into)
    first = command(*arguments, COMPREFACE_API_KEY=KEY)
    assert first.returncode == 4, first.stderr
    assert first.stdout.startswith("3 enrolled, 1 refused.")
    store.add("Biden", small("biden"))
    del store.subjects["Biden"][landscape]
    second = command(*arguments, "--key", KEY)
    assert (second.returncode, second.stdout.splitlines()[0][:30]) == (0, "1 enrolled, 3 enrolled before.")
    assert {person.name: person.faces for person in client.people(collection)} == {"Biden": 2, "Obama": 2}
    with (tmp_path / "report.csv").open(newline="") as file:
        assert {row["file"] for row in csv.DictReader(file)} == {
            f"{subject}/{image_id}" for subject, photos in store.subjects.items() for image_id in photos
        }
