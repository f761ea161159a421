"""A running service, photos that are small and all different, and folders of people."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from system_calls import Service, copy_folder

from recognizer.client import Recognizer

Command = Callable[..., "subprocess.CompletedProcess[str]"]
LIMIT_SECONDS = 90


@pytest.fixture(scope="session")
def running(installation: Path, short_tmp: Path) -> Iterator[Service]:
    """A service that all tests of this folder share; each has a collection of its own."""
    service = Service(copy_folder(installation, short_tmp / "moving"), "--workers", "2")
    try:
        yield service.start()
    finally:
        service.close()


@pytest.fixture
def client(running: Service) -> Iterator[Recognizer]:
    with Recognizer(running.url) as client:
        yield client


@pytest.fixture
def collection(client: Recognizer, request: pytest.FixtureRequest) -> str:
    """An empty collection of the running service."""
    return client.create_collection(f"of {request.node.name}"[:100]).name


@pytest.fixture(scope="session")
def small(photos: Path) -> Callable[[str], bytes]:
    """A photo of the album, 300 pixels wide, different each time it is asked for: `small("obama")`."""
    numbers = itertools.count()

    def make(name: str) -> bytes:
        with Image.open(photos / f"{name}.jpg") as image:
            image.thumbnail((300, 600))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=90, comment=f"photo {next(numbers)}")
            return file.getvalue()

    return make


@pytest.fixture(scope="session")
def two_faces(photos: Path) -> bytes:
    with Image.open(photos / "obama.jpg") as left, Image.open(photos / "biden.jpg") as right:
        both = [image.convert("RGB").resize((300, 300 * image.height // image.width)) for image in (left, right)]
    page = Image.new("RGB", (600, max(image.height for image in both)))
    page.paste(both[0], (0, 0))
    page.paste(both[1], (300, 0))
    file = io.BytesIO()
    page.save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `recognizer ...` to its end; the report, if there is one, is `tmp_path / "report.csv"`."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "recognizer", *arguments, "--report", str(tmp_path / "report.csv")],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )

    return run
