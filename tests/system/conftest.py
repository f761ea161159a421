"""A running service for black-box tests; none of them may import the package."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_calls import Service, copy_folder


@pytest.fixture(scope="session")
def service(installation: Path, short_tmp: Path) -> Iterator[Service]:
    """A running service, shared by the tests that leave it as it was."""
    service = Service(copy_folder(installation, short_tmp / "shared"), "--workers", "2")
    try:
        yield service.start()
    finally:
        service.close()


@pytest.fixture
def fresh_service(short_tmp: Path) -> Iterator[Service]:
    """A service of the test's own that has never been started."""
    folder = Path(tempfile.mkdtemp(dir=short_tmp, prefix="s"))
    service = Service(folder / "d", "--workers", "2")
    try:
        yield service
    finally:
        service.close()


@pytest.fixture
def own_service(installation: Path, fresh_service: Service) -> Service:
    """A service of the test's own that has run before and is stopped: it starts in half the time."""
    copy_folder(installation, fresh_service.data_dir)
    return fresh_service
