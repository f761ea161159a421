"""A running service for black-box tests; none of them may import the package."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_calls import Service


@pytest.fixture(scope="session")
def service(short_tmp: Path) -> Iterator[Service]:
    """A running service, shared by the tests that leave it as it was."""
    service = Service(short_tmp / "shared", "--workers", "2")
    try:
        yield service.start()
    finally:
        service.close()


@pytest.fixture
def own_service(short_tmp: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service of the test's own, not started yet."""
    folder = Path(tempfile.mkdtemp(dir=short_tmp, prefix="s"))
    service = Service(folder / "d", "--workers", "2")
    try:
        yield service
    finally:
        service.close()
