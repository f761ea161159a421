"""A migrated database, emptied for each test, and pools on it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2
import pytest
from database_proxy import Proxy
from emptying import empty
from moving_home import MODEL_ID, Home

from recognizer.deadline import Deadline
from recognizer.faces import Box, NewFace, Quality
from recognizer.gallery.migrate import migrate
from recognizer.gallery.opened import Opened
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery
from recognizer.keyring import Key, Keyring, new_key
from recognizer.postgres.server import BundledPostgres

DROP_TABLES = """
    DO $$
    DECLARE one text;
    BEGIN
        FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
            EXECUTE 'DROP TABLE IF EXISTS ' || quote_ident(one) || ' CASCADE';
        END LOOP;
    END $$
"""
OpenPool = Callable[..., Pool]

KEY = Key.of_text(new_key())


@pytest.fixture
def postgres_process(postgres: BundledPostgres) -> psutil.Process:
    """The server's first process, parent of all its others."""
    return psutil.Process(postgres.pid)


@pytest.fixture(scope="session")
def migrated_url(postgres_url: str) -> str:
    execute(postgres_url, DROP_TABLES)
    migrate(postgres_url, 30)
    return postgres_url


@pytest.fixture
def database_url(migrated_url: str) -> str:
    """A migrated database that holds nothing but the collection `default`."""
    empty(migrated_url, "UPDATE collections SET revision = 0")
    return migrated_url


@pytest.fixture
def open_pool(database_url: str) -> Iterator[OpenPool]:
    """Opens pools with a test's own settings, and closes them when the test is over."""
    with ExitStack() as pools:

        def open_one(url: str = database_url, **settings: Any) -> Pool:
            plain = {
                "minimum": 0,
                "maximum": 2,
                "timeout_seconds": 5.0,
                "connect_timeout_seconds": 5.0,
                "statement_timeout_seconds": 10.0,
                "keyring": Keyring([KEY]),
            }
            return pools.enter_context(Pool(url, **{**plain, **settings}))

        yield open_one


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    with Proxy(database_url) as door:
        yield door


@pytest.fixture
def pool(open_pool: OpenPool) -> Pool:
    return open_pool(maximum=8)


@pytest.fixture
def key() -> Key:
    """What the pools encrypt with."""
    return KEY


@pytest.fixture
def keyring(key: Key) -> Keyring:
    """The same as a keyring."""
    return Keyring([key])


@pytest.fixture
def memory(pool: Pool) -> Opened:
    return Opened(pool)


@pytest.fixture
def gallery(pool: Pool, memory: Opened) -> Gallery:
    return Gallery(pool, memory)


@pytest.fixture
def enrol(gallery: Gallery, new_face: Callable[..., NewFace]) -> Callable[..., str]:
    """Enrols a name with so many new faces; returns the person's id."""
    return lambda name, faces=1, collection="default": (
        gallery.enrol(collection, [new_face(n) for n in range(faces)], name=name, deadline=Deadline(60)).person_id
    )


@pytest.fixture
def encrypted(gallery: Gallery, deadline: Deadline) -> None:
    """The collection `default` has its embeddings encrypted."""
    gallery.change_collection("default", {"encrypt_embeddings": True}, deadline)


@pytest.fixture
def decryptions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For what places something was decrypted."""
    done: list[str] = []
    opening = Keyring.open

    def noted(self: Keyring, sealed: bytes, place: str) -> bytes:
        done.append(place)
        return opening(self, sealed, place)

    monkeypatch.setattr(Keyring, "open", noted)
    return done


@pytest.fixture(params=["plain", "encrypted"])
def either_form(request: pytest.FixtureRequest, database_url: str) -> str:
    """The test is run with embeddings as they are and, once more, with encrypted ones."""
    if request.param == "encrypted":
        execute(database_url, "UPDATE collections SET encrypt_embeddings = true")
    return request.param


@pytest.fixture
def deadline() -> Deadline:
    return Deadline(60)


@pytest.fixture
def new_face() -> Callable[..., NewFace]:
    """Makes faces of photos that are all different, unless a test says otherwise."""
    numbers = count()
    random = np.random.default_rng(0)

    def make(index: int = 0, *, photo: str | None = None, **given: object) -> NewFace:
        photo = f"photo {next(numbers)}" if photo is None else photo
        plain = {
            "index": index,
            "box": Box(1, 2, 30, 40),
            "quality": Quality(0.75, ("LOW_SHARPNESS",)),
            "embedding": random.normal(0, 0.1, 128).astype(np.float32),
            "model_id": "model-1",
            "photo_sha256": hashlib.sha256(photo.encode()).digest(),
        }
        return NewFace(**{**plain, **given})

    return make


def execute(url: str, sql: str) -> list[tuple[object, ...]]:
    """Run some SQL beside the code under test."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def sql(database_url: str) -> Callable[[str], list[tuple[object, ...]]]:
    """Runs SQL beside the code under test."""
    return lambda statement: execute(database_url, statement)


@pytest.fixture
def empty_url(database_url: str) -> Iterator[str]:
    """The database without any table; ours are back when the test is over."""
    execute(database_url, DROP_TABLES)
    yield database_url
    execute(database_url, DROP_TABLES)
    migrate(database_url, 30)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until something is so."""

    def wait(condition: Callable[[], object], within_seconds: float = 20.0) -> None:
        until = time.monotonic() + within_seconds
        while not condition():
            assert time.monotonic() < until, "it never came about"
            time.sleep(0.01)

    return wait


@pytest.fixture
def home(pool: Pool) -> Home:
    return Home(pool)


@pytest.fixture
def vectors() -> Callable[[int], np.ndarray]:
    """Draws embeddings, (n, 128), that nobody else has."""
    random = np.random.default_rng(5)
    return lambda count: random.normal(0, 0.12, (count, 128)).astype(np.float32)


@pytest.fixture
def exported(home: Home, vectors: Callable[[int], np.ndarray], tmp_path: Path) -> Path:
    """An export of three people with six faces, one of whom has a rejection."""
    anna = home.enrol("Anna", *vectors(3), external_id="a-1", metadata={"Raum": "Süd"})
    home.enrol("Berta", *vectors(1))
    home.enrol("Çelik", *vectors(2))
    home.gallery.reject(anna, vectors(1)[0], MODEL_ID, "local", Deadline(30))
    return home.export(tmp_path / "people.zip")
