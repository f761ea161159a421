"""A PostgreSQL of one's own behind a network that is cut, silent or slow, or that loses the answer to a commit."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import psycopg2
import pytest
from database_faults import (
    HOLD_SECONDS,
    LIMIT_SECONDS,
    QUICK,
    Answer,
    Load,
    all_slots_work,
    ask,
    assert_ledger_holds,
    people,
    person,
    readiness,
    small_photo,
    wait_for,
    wait_until_works,
)
from database_servers import CommitTrap, OwnPostgres, execute, workers
from system_calls import Service, recognize

AWAY = (503, "database_unavailable")
CONNECTIONS = 20


@pytest.fixture(scope="module")
def server(short_tmp: Path) -> Iterator[OwnPostgres]:
    server = OwnPostgres(short_tmp / "network-pg", max_connections=CONNECTIONS)
    try:
        server.initialize()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def door(server: OwnPostgres) -> Iterator[CommitTrap]:
    with CommitTrap(server.url) as door:
        yield door


@pytest.fixture(scope="module")
def service(short_tmp: Path, door: CommitTrap) -> Iterator[Service]:
    service = Service(short_tmp / "network", "--workers", "2")
    try:
        yield service.start(**QUICK, RECOGNIZER_DATABASE_URL=door.url)
    finally:
        service.close()


@pytest.fixture(autouse=True)
def open_again(door: CommitTrap) -> Iterator[None]:
    """Whatever a test has done to the network, the next one finds it in order."""
    yield
    door.armed, door.delay_seconds = False, 0.0
    door.let_go.set()
    door.open()


@pytest.fixture(scope="module")
def photo(photos: Path) -> bytes:
    return small_photo(photos, "obama")


@pytest.mark.parametrize("fault", [CommitTrap.shut, CommitTrap.freeze], ids=["cut", "silent"])
def test_a_network_that_fails_under_load_is_told_at_once_and_all_is_well_when_it_is_back(
    service: Service,
    door: CommitTrap,
    photo: bytes,
    fault: Callable[[CommitTrap], None],
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id
    with Load(service, photo, name) as load:
        load.wait_until_under_way()
        fault(door)
        status, seconds = readiness(service)
        assert status == 503
        assert seconds < 2.5, "the truth within 2 seconds, and some patience for slow machines"
        wait_for("all requests to be refused", lambda: door_is_known_to_be_shut(service, photo))
        began = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            refused = list(threads.map(lambda _: ask(lambda: recognize(service.url, photo)), range(40)))
        assert {answer[:2] for answer in refused} == {AWAY}
        assert time.monotonic() - began < 40 * 2 / 4, "nobody waits for an attempt, the own or another's, to connect"
        assert httpx.get(f"{service.url}/health/live", timeout=5).status_code == 200
        door.open()
        recovered = wait_until_works(service, photo, seconds=20)
        load.wait_until_under_way()
    print(f"{name}: works again after {recovered:.1f} s; {dict(load.counts())}")
    assert set(load.counts()) <= {(200, ""), (201, ""), AWAY, (504, "deadline_exceeded")}
    assert max(answer.seconds for answer in load.answers) < HOLD_SECONDS
    assert_ledger_holds(service, load, name)
    assert all_slots_work(service, photo)


def door_is_known_to_be_shut(service: Service, photo: bytes) -> bool:
    """Whether both workers refuse at once; one of them may find it out later than the other."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ask(lambda: recognize(service.url, photo)), range(8)))
    return all(answer[:2] == AWAY and answer.seconds < 1 for answer in answers)


def test_a_slow_network_is_slow_and_nothing_is_refused(service: Service, door: CommitTrap, photo: bytes) -> None:
    door.delay_seconds = 0.02
    with Load(service, photo, "slow") as load:
        load.wait_until_under_way()
        assert readiness(service)[0] == 200
    assert set(load.counts()) == {(200, ""), (201, "")}
    assert_ledger_holds(service, load, "slow")


def test_a_server_without_a_connection_to_spare_refuses_and_is_used_as_soon_as_it_has_one(
    service: Service, server: OwnPostgres, door: CommitTrap, photo: bytes
) -> None:
    door.shut()
    with ExitStack() as hogs:
        with pytest.raises(psycopg2.OperationalError, match=r"too many clients|reserved"):
            for _ in range(CONNECTIONS + 1):
                hogs.enter_context(closing(psycopg2.connect(server.url)))
        door.open()
        assert readiness(service)[0] == 503
        assert ask(lambda: recognize(service.url, photo))[:2] == AWAY
    wait_until_works(service, photo, seconds=20)
    assert all_slots_work(service, photo)


# -- an enrolment whose commit is carried out, and whose answer is lost --


def enroll_once(service: Service, name: str, key: str, photo: bytes) -> Answer:
    headers = {"Idempotency-Key": key}
    form = {"name": name, "force": "true"}
    return ask(
        lambda: httpx.post(
            f"{service.url}/enroll", files={"image": photo}, data=form, headers=headers, timeout=LIMIT_SECONDS
        )
    )


def kill_the_workers(service: Service) -> None:
    for worker in workers(service):
        worker.kill()


def cut_the_network(service: Service) -> None:
    """That is what the trap does by itself."""


@pytest.mark.parametrize(("fault", "told"), [(cut_the_network, AWAY), (kill_the_workers, (0, ""))])
def test_a_retry_after_a_lost_answer_gets_the_first_answer_and_makes_no_second_face(
    service: Service,
    server: OwnPostgres,
    door: CommitTrap,
    photo: bytes,
    fault: Callable[[Service], None],
    told: tuple[int, str],
) -> None:
    wait_until_works(service, photo)
    name, key = f"Lost by {fault.__name__}", uuid.uuid4().hex
    door.sprung.clear()
    door.let_go.clear()
    door.armed = True
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(enroll_once, service, name, key, photo)
        assert door.sprung.wait(LIMIT_SECONDS), "the commit has not been seen"
        fault(service)
        door.let_go.set()
        assert first.result()[:2] == told
    ((stored,),) = execute(server.url, f"SELECT id FROM people WHERE name = '{name}'")
    wait_until_works(service, photo)
    for _ in range(2):
        again = enroll_once(service, name, key, photo)
        assert (again.status, again.person_id) == (201, stored)
    assert [one["faces"] for one in people(service, name)] == [1]
    kept = person(service, stored)
    assert kept
    assert len(kept["faces"]) == 1


def test_a_retry_without_a_key_is_told_that_the_photo_is_there_already(
    service: Service, door: CommitTrap, photo: bytes
) -> None:
    assert enroll_once(service, "Without key", "k1", photo).status == 201
    assert enroll_once(service, "Without key", "k2", photo)[:2] == (422, "duplicate_photo")
    assert [one["faces"] for one in people(service, "Without key")] == [1]
