"""A data directory with a database in it, for whoever starts a supervisor."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from system_calls import copy_folder


@contextmanager
def copied(cluster: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sv-"))
    yield copy_folder(cluster, path)
    shutil.rmtree(path)


@pytest.fixture
def folder(cluster: Path) -> Iterator[Path]:
    with copied(cluster) as path:
        yield path


@pytest.fixture(scope="module")
def folder_of_all(cluster: Path) -> Iterator[Path]:
    """One for all tests of a file."""
    with copied(cluster) as path:
        yield path


@pytest.fixture
def elsewhere(cluster: Path) -> Iterator[Path]:
    """Another one, for a database that is not the service's own."""
    with copied(cluster) as path:
        yield path
