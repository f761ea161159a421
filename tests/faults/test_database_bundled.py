"""The bundled PostgreSQL dies, freezes, loses its connections or can only read, under load."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from database_faults import (
    HOLD_SECONDS,
    QUICK,
    Load,
    all_slots_work,
    ask,
    assert_ledger_holds,
    readiness,
    small_photo,
    wait_for,
    wait_until_works,
)
from database_servers import TERMINATE_OTHERS, bundled_url, execute, frozen, postmaster
from system_calls import Service, copy_folder, enroll, recognize

AWAY = (503, "database_unavailable")


@pytest.fixture(scope="module")
def service(installation: Path, short_tmp: Path) -> Iterator[Service]:
    folder = copy_folder(installation, Path(tempfile.mkdtemp(dir=short_tmp, prefix="b")) / "d")
    service = Service(folder, "--workers", "2")
    try:
        yield service.start(**QUICK)
    finally:
        service.close()


@pytest.fixture(scope="module")
def photo(photos: Path) -> bytes:
    return small_photo(photos, "obama")


def kill_postmaster(service: Service) -> None:
    postmaster(service).kill()


def kill_one_backend(service: Service) -> None:
    others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    (pid,) = execute(bundled_url(service), others)[0]
    psutil.Process(pid).kill()


def shut_down(service: Service) -> None:
    postmaster(service).send_signal(signal.SIGINT)


def terminate_connections_one_by_one(service: Service) -> None:
    for _ in range(3):
        execute(bundled_url(service), TERMINATE_OTHERS)
        time.sleep(0.2)


@pytest.mark.parametrize("fault", [kill_postmaster, kill_one_backend, shut_down, terminate_connections_one_by_one])
def test_a_database_that_ends_under_load_is_back_by_itself_and_nothing_acknowledged_is_lost(
    service: Service, photo: bytes, fault: Callable[[Service], None], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    with Load(service, photo, name) as load:
        load.wait_until_under_way()
        fault(service)
        recovered = wait_until_works(service, photo, seconds=20)
        load.wait_until_under_way()
    print(f"{name}: works again after {recovered:.1f} s; {dict(load.counts())}")
    assert set(load.counts()) <= {(200, ""), (201, ""), AWAY}
    assert max(answer.seconds for answer in load.answers) < HOLD_SECONDS
    assert_ledger_holds(service, load, name)
    assert all_slots_work(service, photo)


def test_a_frozen_database_holds_no_request_beyond_its_deadline_and_readiness_says_so(
    service: Service, photo: bytes
) -> None:
    with frozen(postmaster(service)), ThreadPoolExecutor(4) as threads:
        status, seconds = readiness(service)
        assert status == 503
        assert seconds < 2.5, "the truth within 2 seconds, and some patience for slow machines"
        answers = list(threads.map(lambda _: ask(lambda: recognize(service.url, photo)), range(4)))
        assert {(answer.status, answer.code) for answer in answers} <= {AWAY, (504, "deadline_exceeded")}
        assert max(answer.seconds for answer in answers) < HOLD_SECONDS
        assert httpx.get(f"{service.url}/health/live", timeout=5).status_code == 200
    wait_until_works(service, photo, seconds=20)
    assert all_slots_work(service, photo)


def test_requests_that_wait_for_a_database_that_freezes_shortly_are_served(service: Service, photo: bytes) -> None:
    with ThreadPoolExecutor(4) as threads:
        with frozen(postmaster(service)):
            waiting = [threads.submit(ask, lambda: recognize(service.url, photo)) for _ in range(4)]
            time.sleep(1)
        assert {answer.result().status for answer in waiting} == {200}


def test_a_database_that_can_only_read_recognises_and_refuses_to_enrol(service: Service, photo: bytes) -> None:
    configuration = service.data_dir / "postgres" / "data" / "postgresql.conf"
    before = configuration.read_text()
    assert enroll(service.url, "Reader", photo, force="true").status_code == 201
    try:
        with configuration.open("a") as file:
            file.write("\ndefault_transaction_read_only = on\n")
        postmaster(service).send_signal(signal.SIGHUP)
        wait_for(
            "the database to be read-only",
            lambda: ask(lambda: enroll(service.url, "Nobody", photo, force="true"))[:2] == AWAY,
        )
        assert recognize(service.url, photo).status_code == 200
        assert readiness(service)[0] == 200, "what it can do, it shall go on doing"
        assert "in a read-only transaction" in service.said()
    finally:
        configuration.write_text(before)
        postmaster(service).send_signal(signal.SIGHUP)
    wait_for("enrolling to work again", lambda: enroll(service.url, "Writer", photo, force="true").status_code == 201)
    assert all_slots_work(service, photo)


def compare(service: Service, photo: bytes) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/verify", files={"image": photo, "other_image": photo}, timeout=30)


def detect(service: Service, photo: bytes) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/detect", files={"image": photo}, timeout=30)


def test_faces_are_found_and_compared_while_the_database_is_frozen(service: Service, photo: bytes) -> None:
    assert all_slots_work(service, photo)  # both workers have seen that there is no key
    with frozen(postmaster(service)), ThreadPoolExecutor(4) as threads:
        for ask_one in (detect, compare) * 2:
            answers = list(threads.map(lambda _: ask(lambda: ask_one(service, photo)), range(4)))  # noqa: B023
            assert {answer.status for answer in answers} == {200}
            assert max(answer.seconds for answer in answers) < 5, "a second for the database, and patience"
        assert ask(lambda: recognize(service.url, photo))[:2] == AWAY
    wait_until_works(service, photo, seconds=20)
    assert all_slots_work(service, photo)
