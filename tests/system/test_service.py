"""The promises of the README, kept by the real thing."""

from __future__ import annotations

import io
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import httpx
import pytest
from PIL import Image
from system_calls import Service, copy_folder, enroll, is_gone, recognize


def photo(photos: Path, name: str) -> bytes:
    return (photos / f"{name}.jpg").read_bytes()


@cache
def slow_photo(photos: Path) -> bytes:
    """Obama on a wall of 20 megapixels: a PNG that takes a worker about a second."""
    with Image.open(photos / "obama.jpg") as face:
        wall = Image.new("RGB", (5000, 4000), "grey")
        wall.paste(face.resize((2400, 3000)), (1000, 200))
    buffer = io.BytesIO()
    wall.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_a_person_enrolled_is_recognised_by_every_worker_at_once(service: Service, photos: Path) -> None:
    for round_number in range(5):
        name = f"Ada {round_number}"
        person = enroll(service.url, name, photo(photos, "obama")).json()["person"]
        for _ in range(4):
            (face,) = recognize(service.url, photo(photos, "obama2")).json()["faces"]
            assert face["person"] == {"id": person["id"], "name": name}
        assert httpx.delete(f"{service.url}/v1/people/{person['id']}").json()["left"] == 0


def test_the_start_says_where_it_listens_and_what_to_try(service: Service) -> None:
    said = service.said()
    assert service.url in said
    assert "curl" in said
    assert "Traceback" not in said


def test_a_second_start_on_the_same_data_directory_says_so_and_stops(service: Service) -> None:
    second = Service(service.data_dir)
    second.start(wait=False)
    assert second.process
    assert second.process.wait(20) not in (0, None)
    assert str(service.data_dir) in second.said()
    assert "Traceback" not in second.said()
    assert service.is_ready()
    second.close()


def test_a_taken_port_is_said_before_anything_is_started(service: Service, own_service: Service) -> None:
    own_service.port = service.port
    own_service.start(wait=False)
    assert own_service.process
    assert own_service.process.wait(20) not in (0, None)
    assert f"{service.port}" in own_service.said()
    assert "Traceback" not in own_service.said()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_requests_in_flight_and_exits_0(own_service: Service, photos: Path, sig: int) -> None:
    slowly = {"RECOGNIZER_DETECTOR": "hog", "RECOGNIZER_WORKING_PIXELS": "8000000"}
    own_service.start(RECOGNIZER_QUEUE_TIMEOUT_SECONDS="60", **slowly)
    processes = own_service.processes()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(recognize, own_service.url, slow_photo(photos)) for _ in range(4)]
        time.sleep(1)  # they have been received, and take longer than that together
        assert not any(answer.done() for answer in answers[2:])
        assert own_service.stop(sig) == 0
        assert [answer.result().status_code for answer in answers] == [200] * 4
    assert all(map(is_gone, processes))


@pytest.fixture(scope="module")
def sturdy(installation: Path, short_tmp: Path, photos: Path) -> Iterator[Service]:
    """A service that knows Ada, to be killed piece by piece: each test leaves it as well as it was."""
    service = Service(copy_folder(installation, short_tmp / "sturdy"), "--workers", "2")
    try:
        assert enroll(service.start().url, "Ada", photo(photos, "obama")).status_code == 201
        yield service
    finally:
        service.close()


def test_an_acknowledged_enrolment_survives_kill_9_of_everything(sturdy: Service, photos: Path) -> None:
    stop = threading.Event()
    acknowledged = []

    def keep_enrolling() -> None:
        number = 0
        while not stop.is_set():
            name = f"Person {number}"
            try:
                if enroll(sturdy.url, name, photo(photos, "biden"), force="true").status_code == 201:
                    acknowledged.append(name)
            except httpx.HTTPError:
                return
            number += 1

    thread = threading.Thread(target=keep_enrolling)
    thread.start()
    deadline = time.monotonic() + 60
    while len(acknowledged) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    sturdy.kill_all()
    stop.set()
    thread.join(60)
    assert len(acknowledged) >= 5
    sturdy.start()
    people = httpx.get(f"{sturdy.url}/v1/people?limit=1000").json()["people"]
    assert set(acknowledged) <= {person["name"] for person in people}
    assert {person["faces"] for person in people} == {1}


@pytest.mark.parametrize("victim", ["supervisor", "server", "worker", "postgres"])
def test_one_killed_process_is_replaced(sturdy: Service, photos: Path, victim: str) -> None:
    kill_one(sturdy, photos, victim)


def kill_one(service: Service, photos: Path, victim: str) -> None:
    assert service.process
    children = {process: " ".join(process.cmdline()) for process in service.processes()[1:]}
    server = next(p for p, line in children.items() if "servers" in line and p.ppid() == service.process.pid)
    if victim == "supervisor":
        service.process.kill()
        service.process.wait(10)
        deadline = time.monotonic() + 20  # the children notice and go; the next start waits for them itself
        while not all(map(is_gone, children)) and time.monotonic() < deadline:
            time.sleep(0.1)
        service.start()
    else:
        chosen = {
            "server": lambda: server,
            "worker": lambda: server.children()[0],
            "postgres": lambda: next(p for p, line in children.items() if "postgres" in line and p.ppid() != 1),
        }[victim]()
        chosen.kill()
        time.sleep(0.5)
        service.wait_until_ready()
    deadline = time.monotonic() + 30
    while (answer := recognize(service.url, photo(photos, "obama2"))).status_code != 200:
        assert answer.status_code == 503
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (face,) = answer.json()["faces"]
    assert face["person"]["name"] == "Ada"


def test_an_open_address_without_a_key_is_refused(own_service: Service) -> None:
    refused = Service(own_service.data_dir, "--host", "0.0.0.0")
    refused.start(wait=False)
    assert refused.process
    assert refused.process.wait(60) not in (0, None)
    assert "keys create" in refused.said()
    refused.close()


def test_an_external_database_that_is_down_at_start_is_waited_for(own_service: Service, photos: Path) -> None:
    own_service.start(wait=False, RECOGNIZER_DATABASE_URL="postgresql://nobody:x@127.0.0.1:9/none")
    deadline = time.monotonic() + 30
    while "database" not in own_service.said().lower():
        assert time.monotonic() < deadline, own_service.said()
        time.sleep(0.2)
    while True:
        try:
            ready = httpx.get(f"{own_service.url}/health/ready", timeout=5)
            break
        except httpx.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"]["ok"] is False
    assert httpx.get(f"{own_service.url}/health/live").status_code == 200
    answer = recognize(own_service.url, photo(photos, "obama"))
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert own_service.stop() == 0


def test_a_hundred_megabytes_are_refused_with_an_answer(service: Service) -> None:
    response = httpx.post(f"{service.url}/recognize", files={"image": bytes(100 * 2**20)}, timeout=60)
    assert (response.status_code, response.json()["code"]) == (413, "image_too_large")


def test_garbage_on_the_wire_hurts_nobody(service: Service) -> None:
    for garbage in (
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /recognize HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(2000)
        assert not answer or (answer.startswith(b"HTTP/1.1 4") and b"application/problem+json" in answer), answer
    assert service.is_ready()


def test_hostile_images_are_answered_200_or_4xx(service: Service, shared: Path) -> None:
    files = sorted(path for path in (shared / "hostile").iterdir() if path.suffix != ".md")
    before = sum(process.memory_info().rss for process in service.processes())

    def send(path: Path) -> tuple[str, int]:
        return path.name, recognize(service.url, path.read_bytes()).status_code

    with ThreadPoolExecutor(2) as pool:
        answers = dict(pool.map(send, files))
    assert len(answers) > 300
    wrong = {name: status for name, status in answers.items() if status != 200 and not 400 <= status < 500}
    assert not wrong
    after = sum(process.memory_info().rss for process in service.processes())
    assert after - before < 600 * 2**20
    assert service.is_ready()
