"""What tests of databases that go away ask a service, and the clients that load it meanwhile."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
from PIL import Image
from system_calls import NO_TLS, Service, enroll, recognize

LIMIT_SECONDS = 45
UNTIL_READY_SECONDS = 3.0
"""What a health check may take before it counts as not answered."""

QUICK = {
    "RECOGNIZER_REQUEST_TIMEOUT_SECONDS": "6",
    "RECOGNIZER_STATEMENT_TIMEOUT_SECONDS": "2",
    "RECOGNIZER_CONNECT_TIMEOUT_SECONDS": "2",
    "RECOGNIZER_VITALS_SECONDS": "1",
    "RECOGNIZER_LOG_FORMAT": "text",
}
"""Settings that make a service notice sooner, so that a test takes seconds and not minutes."""

HOLD_SECONDS = float(QUICK["RECOGNIZER_REQUEST_TIMEOUT_SECONDS"]) + 4.0
"""After so long every request has been answered, whatever its database does; with some patience for slow machines."""


def small_photo(photos: Path, name: str, width: int = 320) -> bytes:
    """A photo that takes the service some hundredths of a second."""
    with Image.open(photos / f"{name}.jpg") as image:
        small = image.convert("RGB").resize((width, round(image.height * width / image.width)))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def wait_for(what: str, true: Callable[[], object], seconds: float = LIMIT_SECONDS) -> float:
    """Wait until something is so, and return how many seconds it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def readiness(service: Service) -> tuple[int, float]:
    """The status of a readiness check, and how long it took."""
    began = time.monotonic()
    status = httpx.get(f"{service.url}/health/ready", timeout=UNTIL_READY_SECONDS, verify=NO_TLS).status_code
    return status, time.monotonic() - began


def wait_until_works(service: Service, photo: bytes, seconds: float = LIMIT_SECONDS) -> float:
    """Wait until the service is ready and recognises again, and return how long it took."""

    def works() -> bool:
        with suppress(httpx.HTTPError):
            return service.is_ready() and recognize(service.url, photo).status_code == 200
        return False

    return wait_for("the service to work again", works, seconds)


def all_slots_work(service: Service, photo: bytes) -> bool:
    """Whether more requests than the pools have connections are all served, and every connection comes back."""

    def all_are_served() -> bool:
        with ThreadPoolExecutor(10) as threads:
            answers = list(threads.map(lambda _: ask(lambda: recognize(service.url, photo)), range(20)))
        return {answer.status for answer in answers} == {200}

    wait_for("both workers to serve everybody", all_are_served)  # each finds out for itself that it can
    wait_for("every connection to be given back", lambda: gauge(service, "recognizer_pool_in_use") == 0)
    return True


def gauge(service: Service, name: str) -> float:
    """A gauge, summed over the workers; the workers bring it up to date every second."""
    lines = httpx.get(f"{service.url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def person(service: Service, person_id: str) -> dict[str, Any] | None:
    """A person as the service knows them, with the faces that are stored; None: nobody."""
    answer = httpx.get(f"{service.url}/v1/people/{person_id}", timeout=30, verify=NO_TLS)
    assert answer.status_code in (200, 404), answer.text
    return answer.json() if answer.status_code == 200 else None


def people(service: Service, query: str) -> list[dict[str, Any]]:
    """All people whose name contains `query`."""
    found, cursor = [], {}
    until = time.monotonic() + 30
    while True:
        response = httpx.get(f"{service.url}/v1/people", params={"query": query, "limit": 200, **cursor}, timeout=30)
        if response.status_code == 503 and time.monotonic() < until:  # a worker that has not found the database yet
            time.sleep(0.2)
            continue
        assert response.status_code == 200, response.text
        answer = response.json()
        found += answer["people"]
        if answer["next_cursor"] is None:
            return found
        cursor = {"cursor": answer["next_cursor"]}


class Answer(NamedTuple):
    """What a client was answered; status 0: the connection broke."""

    status: int
    code: str
    seconds: float
    person_id: str


def ask(call: Callable[[], httpx.Response]) -> Answer:
    """Do one call, whatever becomes of it."""
    began = time.monotonic()
    try:
        response = call()
    except httpx.TransportError:
        return Answer(0, "", time.monotonic() - began, "")
    body = response.json()
    person_id = body["person"]["id"] if response.status_code == 201 else ""
    return Answer(response.status_code, body.get("code", ""), time.monotonic() - began, person_id)


class Load:
    """Clients that recognise and enrol without pause while entered, and what they were answered."""

    def __init__(self, service: Service, photo: bytes, name: str, clients: int = 2) -> None:
        self._service, self._photo, self._name = service, photo, name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        self.recognitions: list[Answer] = []
        self.enrolments: dict[str, Answer] = {}

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"

    @property
    def answers(self) -> list[Answer]:
        """All of them, in the order of each client."""
        return [*self.recognitions, *self.enrolments.values()]

    def counts(self) -> Counter[tuple[int, str]]:
        """How often each status and code came."""
        return Counter((answer.status, answer.code) for answer in self.answers)

    def acknowledged(self) -> dict[str, str]:
        """The people that were enrolled: their names and ids."""
        return {name: answer.person_id for name, answer in self.enrolments.items() if answer.status == 201}

    def wait_until_under_way(self) -> None:
        """Wait until enrolments and recognitions have been served."""
        before = len(self.acknowledged())
        wait_for("the load to be under way", lambda: len(self.acknowledged()) >= before + 3)

    def _run(self, client: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            name = f"{self._name} {client}-{count}"
            self.recognitions.append(ask(lambda: recognize(self._service.url, self._photo)))
            self.enrolments[name] = ask(lambda name=name: enroll(self._service.url, name, self._photo, force="true"))
            time.sleep(0.02 if self.enrolments[name].status == 201 else 0.1)


def assert_ledger_holds(service: Service, load: Load, name: str) -> None:
    """Whoever was acknowledged is there by id and name; whoever was not is there in full or not at all."""
    there = {one["name"]: one for one in people(service, name)}
    acknowledged = load.acknowledged()
    assert acknowledged.keys() <= there.keys()
    assert {there[each]["id"] for each in acknowledged} == set(acknowledged.values())
    assert there.keys() <= load.enrolments.keys()
    assert {one["faces"] for one in there.values()} == {1}
