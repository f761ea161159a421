"""What all tests share: real photos, the folder ../shared where there is one, a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from recognizer.host import datadir
from recognizer.host.account import database_account
from recognizer.postgres.server import BundledPostgres

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
PHOTO_CACHE = ROOT / ".cache" / "test-photos"


def pytest_report_header() -> str:
    found = "found, its tests run" if SHARED.is_dir() else "not there, its tests are skipped"
    return f"photos beside the checkout ({SHARED}): {found}"


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("RECOGNIZER_")]:
        del os.environ[name]  # the tests' settings are their own


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
def postgres(short_tmp: Path) -> Iterator[BundledPostgres]:
    """The bundled PostgreSQL with an empty database, shared by all tests of one process."""
    folder = short_tmp / "pg"
    account = database_account()
    datadir.prepare(folder, account)
    with BundledPostgres(folder) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: BundledPostgres) -> str:
    return postgres.url
