"""A data directory with a database in it, for whoever starts a supervisor."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recognizer.postgres.server import BundledPostgres


@pytest.fixture(scope="session")
def prepared() -> Iterator[Path]:
    """A data directory to copy, and never to work in: initdb takes longer than most tests."""
    path = Path(tempfile.mkdtemp(prefix="sv-"))
    BundledPostgres(path).prepare()
    yield path
    shutil.rmtree(path)


@contextmanager
def copied(prepared: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sv-"))
    subprocess.run(["cp", "-a", f"{prepared}/.", path], check=True)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def folder(prepared: Path) -> Iterator[Path]:
    with copied(prepared) as path:
        yield path


@pytest.fixture
def elsewhere(prepared: Path) -> Iterator[Path]:
    """Another one, for a database that is not the service's own."""
    with copied(prepared) as path:
        yield path
