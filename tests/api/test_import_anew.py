"""A file of another model: its faces are encoded anew from its photos, and what cannot be is said, face by face."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import Photos, enroll, post
from emptying import empty
from flask.testing import FlaskClient

from recognizer.deadline import Deadline
from recognizer.errors import FileRefused
from recognizer.faces import Analysis, Box, KeptPhoto, NewFace, Quality
from recognizer.gallery.store import Gallery
from recognizer.moving import importing
from recognizer.moving.anew import Anew, Looked
from recognizer.moving.exporting import export
from recognizer.moving.importing import Import, Imported
from recognizer.moving.progress import silent
from recognizer.moving.sources import opened
from recognizer.runtime import Runtime
from recognizer.vision.engine import Engine

OLD = "old/space/1crop"
FAR_AWAY = Box(5000, 5000, 5100, 5100)


def bomb() -> bytes:
    """A PNG of some bytes that says it has 40,000 times 40,000 pixels."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class Watched:
    """The engine, counting the photos it is given."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.model_id, self.photos, self.cut_off_at = engine, engine.model_id, 0, 0

    def analyse(self, data: bytes, deadline: Deadline) -> Analysis:
        self.photos += 1
        if self.photos == self.cut_off_at:
            raise KeyboardInterrupt
        return self.engine.analyse(data, deadline)


class Elsewhere:
    """An installation that a file is brought to."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.engine, self.told = runtime, Watched(runtime.engine), list[Looked]()

    def bring(self, file: Path, *, dry_run: bool = False, re_embed: bool = True) -> Imported:
        self.told.clear()
        settings, model_id = self.runtime.settings, self.engine.model_id
        anew = Anew(self.engine, self.told.append, 2, settings.max_image_bytes)  # type: ignore[arg-type]
        with opened(file, None, model_id) as source:
            work = Import(
                self.runtime.pool, source, "default", model_id, silent, settings.max_image_bytes,
                anew if re_embed else None,
            )  # fmt: skip
            return work.preview() if dry_run else work.run()

    def reasons(self) -> Counter[str]:
        return Counter(each.refused.code for each in self.told if each.refused is not None)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.runtime.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()


@pytest.fixture
def elsewhere(runtime: Runtime) -> Elsewhere:
    return Elsewhere(runtime)


@pytest.fixture
def file(client: FlaskClient, elsewhere: Elsewhere, photo: Photos, tmp_path: Path, postgres_url: str) -> Path:
    """Four good faces and five of which nothing can be made, all of an older model, in a gallery that is empty now."""
    client.patch("/v1/collections/default", json={"keep_photos": True})
    obama = enroll(client, "Obama", photo["obama"], photo["obama2"])["person"]["id"]
    enroll(client, "Obama", photo.two_faces(), face="largest")
    enroll(client, "Biden", photo["biden"])
    broken = [photo["obama"][:50_000], bomb(), b"no image", photo["obama3"]]
    faces = [
        NewFace(
            number, FAR_AWAY, Quality(0.5), np.full(128, 0.1, np.float32), OLD, hashlib.sha256(each).digest(),
            KeptPhoto("image/jpeg", each, b"chip"),
        )
        for number, each in enumerate(broken)
    ]  # fmt: skip
    bare = NewFace(4, FAR_AWAY, Quality(0.5), np.full(128, 0.1, np.float32), OLD, bytes(32))
    gallery = Gallery(elsewhere.runtime.pool)
    gallery.enrol("default", [*faces, bare], name="Broken", deadline=Deadline(30))
    gallery.reject(obama, np.full(128, 0.1, np.float32), OLD, "local", Deadline(30))
    elsewhere.rows(f"UPDATE faces SET model_id = '{OLD}', embedding = array_fill(0.1, '{{128}}')::vector RETURNING 1")
    path = tmp_path / "people.zip"
    export(elsewhere.runtime.pool, "default", path, Deadline(60), photos=True)
    empty(postgres_url)
    return path


def named(client: FlaskClient, photo: bytes) -> list[str | None]:
    faces = post(client, "/recognize", photo).json["faces"]
    return [face["person"] and face["person"]["name"] for face in faces]


REFUSED = {"image_corrupt": 1, "image_too_large": 1, "image_unsupported": 1, "no_face": 1, "photo_not_found": 1}


def test_who_is_in_the_file_is_recognised_and_each_face_that_is_not_has_a_reason(
    client: FlaskClient, elsewhere: Elsewhere, photo: Photos, file: Path
) -> None:
    with pytest.raises(FileRefused, match=r"recognizer import \S+people\.zip --re-embed"):
        elsewhere.bring(file, re_embed=False)
    planned = elsewhere.bring(file, dry_run=True)
    assert (planned.tally.people, planned.tally.faces, elsewhere.reasons()) == (3, 4, REFUSED)
    assert elsewhere.rows("SELECT count(*) FROM people") == [(0,)]
    done = elsewhere.bring(file)
    assert (done.tally.people, done.tally.faces, done.tally.photos_left_out, done.rejections_left_out) == (3, 4, 4, 1)
    assert elsewhere.reasons() == REFUSED
    assert Counter(each.name for each in elsewhere.told if each.anew) == {"Obama": 3, "Biden": 1}
    assert all(each.face.box == each.anew.box for each in elsewhere.told if each.anew)  # of two faces the same one
    assert elsewhere.rows("SELECT DISTINCT model_id FROM faces") == [(elsewhere.engine.model_id,)]
    assert elsewhere.rows("SELECT count(*) FROM rejections") == [(0,)]
    assert named(client, photo["obama3"]) == ["Obama"]
    again = elsewhere.bring(file)
    assert (again.tally.changes, again.tally.faces_there, elsewhere.reasons()) == (0, 4, REFUSED)
    assert elsewhere.engine.photos == 3 * 8 - 4


def test_photos_are_kept_of_the_faces_that_are_found(client: FlaskClient, elsewhere: Elsewhere, file: Path) -> None:
    client.patch("/v1/collections/default", json={"keep_photos": True})
    assert elsewhere.bring(file).tally.photos == 4
    assert elsewhere.rows("SELECT count(*), count(face_id) FROM faces LEFT JOIN photos ON face_id = id") == [(4, 4)]
    again = file.with_name("again.zip")
    export(elsewhere.runtime.pool, "default", again, Deadline(60), photos=True)
    with opened(file, None, OLD) as one, opened(again, None, OLD) as other:
        before = {key: each for person in one.read() for key, each in person.photos.items()}
        after = {key: each for person in other.read() for key, each in person.photos.items()}
        assert after.keys() < before.keys()
        for key, each in after.items():
            assert each.record == before[key].record
            assert each.read("photo") == before[key].read("photo")


def test_what_is_cut_off_goes_on_without_looking_at_a_photo_twice(
    elsewhere: Elsewhere, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "FACES_ANEW_AT_ONCE", 1)  # each person is a transaction
    elsewhere.engine.cut_off_at = 8
    with pytest.raises(KeyboardInterrupt):
        elsewhere.bring(file)
    ((before,),) = elsewhere.rows("SELECT count(*) FROM faces")
    assert 0 < before <= 4
    elsewhere.engine.photos = elsewhere.engine.cut_off_at = 0
    elsewhere.bring(file)
    assert elsewhere.engine.photos == 8 - before
    assert elsewhere.rows("SELECT count(*) FROM faces") == [(4,)]


def test_a_file_without_photos_says_what_to_do(elsewhere: Elsewhere, file: Path, client: FlaskClient) -> None:
    client.patch("/v1/collections/default", json={"keep_photos": True})
    elsewhere.bring(file)
    plain = file.with_name("plain.zip")
    export(elsewhere.runtime.pool, "default", plain, Deadline(60))
    with pytest.raises(FileRefused, match="export it with --photos"):
        elsewhere.bring(plain)
