"""The disk of the bundled PostgreSQL is full: first for the data, then for its write-ahead log as well."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg2
import pytest
from database_faults import (
    QUICK,
    all_slots_work,
    ask,
    people,
    readiness,
    small_photo,
    wait_for,
    wait_until_works,
)
from database_servers import bundled_url, execute
from system_calls import Service, copy_folder, enroll, recognize

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"),
    reason="needs root, to make a small file system",
)

AWAY = (503, "database_unavailable")
DISK = "160m"


@pytest.fixture
def disk(short_tmp: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = Path(tempfile.mkdtemp(dir=short_tmp, prefix="k"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0711", "tmpfs", folder]).returncode:
        pytest.skip("this container may not mount anything")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def service(installation: Path, disk: Path) -> Iterator[Service]:
    service = Service(copy_folder(installation, disk / "d"), "--workers", "2")
    try:
        yield service.start(**QUICK)
    finally:
        service.close()


def fill(file: Path) -> None:
    """Leave no room at all."""
    with file.open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def test_a_full_disk_refuses_enrolments_and_nothing_has_to_be_restarted_when_there_is_room_again(
    service: Service, disk: Path, photos: Path
) -> None:
    photo = small_photo(photos, "obama")
    acknowledged: list[str] = []

    def is_refused() -> bool:
        name = f"Person {len(acknowledged)}"
        answer = ask(lambda: enroll(service.url, name, photo, force="true"))
        if answer.status == 201:
            acknowledged.append(name)
        else:
            assert answer[:2] == AWAY
        return answer.status != 201

    assert not is_refused()
    fill(disk / "ballast")
    wait_for("an enrolment to be refused for want of room", is_refused)
    assert recognize(service.url, photo).status_code == 200, "what needs no room goes on"
    assert readiness(service)[0] == 200
    assert "The database cannot do this now" in service.said()
    assert "No space left on device" in service.said()

    with suppress(psycopg2.Error):  # PostgreSQL's log needs room too: it panics, and cannot start again
        for _ in range(200):
            execute(bundled_url(service), "SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1000000))")
    wait_for("readiness to tell of it", lambda: readiness(service)[0] == 503)
    assert ask(lambda: recognize(service.url, photo))[:2] == AWAY
    assert httpx.get(f"{service.url}/health/live", timeout=5).status_code == 200

    (disk / "ballast").unlink()
    recovered = wait_until_works(service, photo)
    wait_for(
        "the other worker to have found it, too",
        lambda: (
            enroll(service.url, "Afterwards", photo, force="true").status_code in (201, 422)
        ),  # 422: enrolled already
    )
    print(f"{len(acknowledged)} enrolled before; works again {recovered:.1f} s after there is room")
    there = {one["name"]: one["faces"] for one in people(service, "")}
    assert there == dict.fromkeys([*acknowledged, "Afterwards"], 1)
    assert all_slots_work(service, photo)
    assert "Traceback" not in service.said()
