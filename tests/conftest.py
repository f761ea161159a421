"""What all tests share: real photos, the folder ../shared where there is one, a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from system_calls import copy_folder

from recognizer import supervisor
from recognizer.gallery.migrate import migrate
from recognizer.postgres.server import BundledPostgres

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
PHOTO_CACHE = ROOT / ".cache" / "test-photos"
LONG_FIRST = ("system", "faults", "servers", "fuzz", "moving", "api", "gallery")
OF_THIS_RUN = "TESTS_FOLDER_OF_THIS_RUN"
"""The environment variable with the folder that all processes of a run share."""


def pytest_report_header() -> str:
    found = "found, its tests run" if SHARED.is_dir() else "not there, its tests are skipped"
    return f"photos beside the checkout ({SHARED}): {found}"


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("RECOGNIZER_")]:
        del os.environ[name]  # the tests' settings are their own
    if not _is_worker():
        os.environ[OF_THIS_RUN] = tempfile.mkdtemp(prefix="run-", dir="/tmp" if os.name == "posix" else None)
        Path(os.environ[OF_THIS_RUN]).chmod(0o711)


def pytest_unconfigure() -> None:
    if not _is_worker():
        shutil.rmtree(os.environ[OF_THIS_RUN], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take long: at the end, who is left alone with a file has soon done it."""
    last = len(LONG_FIRST)
    places = {folder: place for place, folder in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(ROOT / "tests").parts[0], last))


def _is_worker() -> bool:
    """Whether this is one of several processes that run tests, and another one has started it."""
    return "PYTEST_XDIST_WORKER" in os.environ


@pytest.fixture(scope="session")
def photos() -> Path:
    """The photos of the face_recognition source package, fetched once, checked by hash."""
    PHOTO_CACHE.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(PHOTO_CACHE.parent / "test-photos.lock", timeout=300):
        if not PHOTO_CACHE.is_dir():
            _fetch_photos()
    return PHOTO_CACHE


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with more real photos and bad files; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the photos of ../shared")
    return SHARED


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder with a short path (a socket's has at most 107 bytes) that others may pass through."""
    path = Path(tempfile.mkdtemp(prefix="rec-", dir="/tmp" if os.name == "posix" else None))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _fetch_photos() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        lock = str(ROOT / "requirements" / "photos.lock")
        subprocess.run(
            [sys.executable, "-m", "pip", *command, "--require-hashes", "-r", lock, "-d", folder],
            check=True,
            timeout=300,
        )
        (package,) = Path(folder).glob("*.tar.gz")
        unpacked = Path(folder) / "photos"
        unpacked.mkdir()
        with tarfile.open(package) as archive:
            for member in archive.getmembers():
                if "/test_images/" in member.name and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    (unpacked / Path(member.name).name).write_bytes(content.read())
        shutil.move(unpacked, PHOTO_CACHE)


@pytest.fixture(scope="session")
def cluster() -> Path:
    """A data directory with an empty database, to copy and never to work in: initdb takes longer than most tests."""
    return _made_once("cluster", lambda folder: BundledPostgres(folder).prepare())


@pytest.fixture(scope="session")
def models() -> Path:
    """The converted models, to copy into the `models` of a data directory."""
    return _made_once("models", supervisor.prepare_models)


@pytest.fixture(scope="session")
def installation(cluster: Path, models: Path) -> Path:
    """The data directory of a service that has run and is empty, to copy and never to work in."""

    def install(folder: Path) -> None:
        copy_folder(cluster, folder)
        with BundledPostgres(folder) as server:
            migrate(server.url, 60)
        copy_folder(models, folder / "models")

    return _made_once("installation", install)


def _made_once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that whichever process of this run comes first makes."""
    folder = Path(os.environ[OF_THIS_RUN]) / name
    with FileLock(f"{folder}.lock", timeout=120):
        if not folder.exists():
            fresh = folder.with_suffix(".new")
            make(fresh)
            fresh.rename(folder)
    return folder


@pytest.fixture(scope="session")
def postgres(cluster: Path, short_tmp: Path) -> Iterator[BundledPostgres]:
    """The bundled PostgreSQL with an empty database, shared by all tests of one process."""
    with BundledPostgres(copy_folder(cluster, short_tmp / "pg")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: BundledPostgres) -> str:
    return postgres.url
