"""A PostgreSQL of one's own with a standby: the service's URL names both, and it finds the one that can write."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from database_faults import (
    QUICK,
    Load,
    all_slots_work,
    assert_ledger_holds,
    small_photo,
    wait_for,
    wait_until_works,
)
from database_servers import OwnPostgres, execute, family
from system_calls import Service

AWAY = (503, "database_unavailable")


class Pair(NamedTuple):
    """A primary, and a standby that has everything the primary has acknowledged."""

    primary: OwnPostgres
    standby: OwnPostgres

    @property
    def url(self) -> str:
        """Both, as the service is told of them."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://recognizer:unasked@{hosts}/recognizer?target_session_attrs=read-write"

    def promote(self) -> None:
        """Make the standby the one that can write."""
        assert execute(self.standby.superuser_url, "SELECT pg_promote(true, 30)") == [(True,)]


@pytest.fixture(scope="module")
def origin(short_tmp: Path) -> Iterator[OwnPostgres]:
    """An initialized database to copy, stopped."""
    folder = Path(tempfile.mkdtemp(dir=short_tmp, prefix="o"))
    folder.chmod(0o711)
    origin = OwnPostgres(folder / "origin")
    origin.initialize()
    execute(origin.superuser_url, "ALTER ROLE recognizer REPLICATION")
    origin.stop()
    yield origin
    origin.remove()


@pytest.fixture
def pair(origin: OwnPostgres) -> Iterator[Pair]:
    with ExitStack() as closing:
        folder = Path(tempfile.mkdtemp(dir=origin.data.parent, prefix="p"))
        folder.chmod(0o711)
        primary = origin.copy(folder / "primary", synchronous_standby_names="*")
        source = f"host=127.0.0.1 port={primary.port} user=recognizer connect_timeout=1"
        standby = origin.copy(folder / "standby", primary_conninfo=source)
        for server in (primary, standby):
            closing.callback(server.remove)
        (standby.data / "standby.signal").touch()
        primary.start()
        standby.start()
        in_step = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_for("the standby to follow", lambda: execute(primary.superuser_url, in_step) == [(1,)])
        yield Pair(primary, standby)


@pytest.fixture
def service(short_tmp: Path, pair: Pair) -> Iterator[Service]:
    service = Service(Path(tempfile.mkdtemp(dir=short_tmp, prefix="f")) / "d", "--workers", "2")
    try:
        yield service.start(**QUICK, RECOGNIZER_DATABASE_URL=pair.url)
    finally:
        service.close()


def fall_silent(server: OwnPostgres) -> None:
    """As when its machine or its network is gone: nothing is refused, and nothing is answered."""
    for each in family(server.process):
        with suppress(psutil.NoSuchProcess):
            each.suspend()


def test_the_service_goes_on_with_the_standby_that_was_promoted(service: Service, pair: Pair, photos: Path) -> None:
    photo = small_photo(photos, "obama")
    with Load(service, photo, "load") as load:
        load.wait_until_under_way()
        fall_silent(pair.primary)
        pair.promote()
        recovered = wait_until_works(service, photo)
        load.wait_until_under_way()
    print(f"works with the standby after {recovered:.1f} s; {dict(load.counts())}")
    assert set(load.counts()) <= {(200, ""), (201, ""), AWAY, (504, "deadline_exceeded")}
    assert_ledger_holds(service, load, "load")
    assert all_slots_work(service, photo)


def test_every_command_understands_the_url_of_a_pair(pair: Pair, short_tmp: Path) -> None:
    data_dir = Path(tempfile.mkdtemp(dir=short_tmp, prefix="c"))

    def recognizer(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "recognizer", *arguments, "--data-dir", str(data_dir)],
            env={**os.environ, "RECOGNIZER_DATABASE_URL": pair.url},
            capture_output=True,
            text=True,
            timeout=60,
        )

    migrated = recognizer("migrate")
    assert migrated.returncode == 0, migrated.stderr
    made = recognizer("keys", "create", "--label", "front door", "--scope", "recognize")
    assert made.returncode == 0, made.stderr
    pair.primary.kill()
    pair.promote()
    listed = recognizer("keys", "list")
    assert listed.returncode == 0, listed.stderr
    assert "front door" in listed.stdout, "the standby has it, and is asked in the primary's place"
