"""gunicorn as the service configures it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recognizer import config
from recognizer.servers import linux

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give privileges away")


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation that everybody can read, as far as the choice of the account looks at it."""
    linux._account_of_workers.cache_clear()
    with tempfile.TemporaryDirectory(prefix="install-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        file = path / "program"
        file.touch(0o644)
        file.chmod(0o644)
        monkeypatch.setattr(sys, "executable", str(file))
        monkeypatch.setattr(os, "__file__", str(file))
        monkeypatch.setattr(config, "__file__", str(file))
        yield path
    linux._account_of_workers.cache_clear()


@as_root
def test_workers_that_root_starts_run_as_the_system_user(readable: Path) -> None:
    account = linux._account_of_workers(readable)
    assert account is not None
    assert account.name == "recognizer"
    assert account.uid != 0


@as_root
def test_workers_stay_root_with_a_warning_where_the_system_user_cannot_read(
    readable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (readable / "program").chmod(0o600)
    assert linux._account_of_workers(readable) is None
    assert f"cannot read {readable / 'program'}" in caplog.text


def test_an_ordinary_user_stays_itself(readable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert linux._account_of_workers(readable) is None
