"""An export under the real server: made as the client takes it, and room for others after it."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from system_calls import Service, enroll

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
PHOTOS = 3


def large(photo: Path, seed: int) -> bytes:
    """The photo in the corner of noise: about 9 MB."""
    page = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (1750, 1750, 3), np.uint8))
    with Image.open(photo) as image:
        image.thumbnail((700, 700))
        page.paste(image, (0, 0))
    file = io.BytesIO()
    page.save(file, "PNG", compress_level=0)
    return file.getvalue()


@pytest.fixture
def export(own_service: Service, photos: Path) -> Iterator[str]:
    """Where a person with large photos is exported, at a service of one worker."""
    own_service._options = ("--workers", "1")
    own_service.start(RECOGNIZER_ENCRYPTION_KEYS=KEY, RECOGNIZER_WORKING_PIXELS="1500000")
    httpx.patch(f"{own_service.url}/v1/collections/default", json={"keep_photos": True}).raise_for_status()
    made = [enroll(own_service.url, "Obama", large(photos / "obama.jpg", seed)).json() for seed in range(PHOTOS)]
    yield f"{own_service.url}/v1/people/{made[0]['person']['id']}/export"


@pytest.mark.skipif(os.name == "nt", reason="waitress sends it from a thread")
def test_a_photo_is_read_when_its_turn_comes_and_the_file_is_whole_all_the_same(export: str) -> None:
    leave_and_come_back(export)
    with begun(export) as answer:
        whole = zipfile.ZipFile(io.BytesIO(answer.read()))
    assert whole.testzip() is None
    assert len(whole.namelist()) == 3 + 2 * PHOTOS
    received = bytearray()
    with begun(export) as answer:
        pieces = answer.iter_raw(2**20)
        received += next(pieces)
        time.sleep(1)  # the service has time to be ahead, and is not
        assert httpx.delete(export.removesuffix("/export"), timeout=60).json()["deleted"]["photos"] == PHOTOS
        for piece in pieces:
            received += piece
    archive = zipfile.ZipFile(io.BytesIO(received))
    assert archive.testzip() is None
    faces = json.loads(archive.read("person.json"))["faces"]
    assert faces[0]["files"][0] in archive.namelist()
    assert [said.partition(":")[0] for said in faces[-1]["files"]] == ["no photo", "no chip"]


def leave_and_come_back(export: str) -> None:
    """Whoever goes before the end makes room for others."""
    for _ in range(4):  # more than there may be at a time
        with begun(export) as answer:
            next(answer.iter_raw(2**16))


@contextmanager
def begun(export: str) -> Iterator[httpx.Response]:
    """An export, as soon as there is room: that one before has gone is seen a moment later."""
    until = time.monotonic() + 30
    while True:
        with httpx.stream("GET", export, timeout=60) as answer:
            if answer.status_code == 200:
                yield answer
                return
        assert (answer.status_code, time.monotonic() < until) == (503, True)
        time.sleep(0.2)
