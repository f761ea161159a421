"""The real app over the real engine and a real PostgreSQL, called without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from calls import Photos, encoded
from emptying import empty
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from system_calls import copy_folder

from recognizer import config
from recognizer.app import create_app
from recognizer.gallery.migrate import migrate
from recognizer.keyring import new_key
from recognizer.runtime import Runtime


@pytest.fixture(scope="session")
def data_dir(models: Path, short_tmp: Path) -> Path:
    folder = short_tmp / "api"
    folder.mkdir()
    copy_folder(models, folder / "models")
    return folder


@pytest.fixture(scope="module")  # not for all of them: its threads end before other tests use the database
def runtime(postgres_url: str, data_dir: Path) -> Iterator[Runtime]:
    migrate(postgres_url, 60)
    settings = config.load(
        {
            "database_url": postgres_url,
            "data_dir": data_dir,
            "workers": 1,
            "encryption_keys": new_key(),
            "max_image_bytes": 5 * 2**20,
            "max_request_bytes": 8 * 2**20,
        }
    )
    runtime = Runtime(settings)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> Flask:
    return create_app(runtime.settings, runtime)


@pytest.fixture
def client(app: Flask, postgres_url: str) -> FlaskClient:
    """A client of the app over an empty gallery without keys."""
    empty(postgres_url)
    return app.test_client()


@pytest.fixture(scope="session")
def photo(photos: Path) -> Photos:
    return Photos(photos)


@pytest.fixture(scope="session")
def no_face() -> bytes:
    return encoded(Image.linear_gradient("L").convert("RGB").resize((320, 240)))
