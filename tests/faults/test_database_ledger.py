"""The promise: what was acknowledged is found, whatever was killed meanwhile, and what was not is never half there."""

from __future__ import annotations

import io
import os
import random
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest
from database_faults import (
    LIMIT_SECONDS,
    QUICK,
    Answer,
    all_slots_work,
    ask,
    people,
    person,
    wait_for,
    wait_until_works,
)
from database_servers import bundled_url, execute, postmaster, workers
from PIL import Image, ImageEnhance
from system_calls import Service, copy_folder

ENROLMENTS = int(os.environ.get("LEDGER_ENROLMENTS", "60"))
"""500 of them take some minutes."""

PATIENCE_SECONDS = 3.0
"""How long a client waits before it tries again, while its first attempt may still be under way."""

NOT_NOW = ((0, ""), (503, "database_unavailable"), (503, "busy"))
"""What a client may meet with meanwhile: broken connections, its own time-out, and two answers."""

SAME_PHOTO_DISTANCE = 0.02


@pytest.fixture
def service(installation: Path, short_tmp: Path) -> Iterator[Service]:
    folder = copy_folder(installation, Path(tempfile.mkdtemp(dir=short_tmp, prefix="l")) / "d")
    service = Service(folder, "--workers", "2")
    try:
        yield service.start(**QUICK)
    finally:
        service.close()


@pytest.fixture(scope="module")
def faces(photos: Path) -> list[bytes]:
    """As many photos, no two with the same face in the same light and position."""
    people = photos.parents[2] / "shared" / "faces"
    files = sorted([*people.glob("people/*/*_0001.jpg"), *people.glob("strangers/*.jpg")])
    files = files or [photos / f"{name}.jpg" for name in ("obama", "biden", "obama2", "obama3")]
    return [photo_of(files[number % len(files)], number // len(files)) for number in range(ENROLMENTS)]


def photo_of(file: Path, variant: int) -> bytes:
    """A small photo of the person in the file; each variant is another one."""
    with Image.open(file) as image:
        small = image.convert("RGB").resize((240, round(image.height * 240 / image.width)))
    turned = small.rotate((variant % 7 - 3) * 3 if variant else 0, fillcolor="grey")
    lit = ImageEnhance.Brightness(turned).enhance(1 + 0.03 * (variant // 7))
    buffer = io.BytesIO()
    lit.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


class Killer:
    """Kills PostgreSQL and workers (-9) at random times while entered."""

    def __init__(self, service: Service, photo: bytes, seed: int) -> None:
        self._service, self._photo = service, photo
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills: Counter[str] = Counter()
        self.recoveries: dict[str, list[float]] = {"postgres": [], "worker": [], "all workers": []}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(LIMIT_SECONDS + 10)

    def _run(self) -> None:
        victims = ["postgres", "worker", "all workers"]
        self._random.shuffle(victims)
        while not self._stop.wait(self._random.uniform(0.3, 1.5)):
            victim = victims[sum(self.kills.values()) % 3]  # each of them has its turn, in few seconds too
            with suppress(psutil.Error, StopIteration, IndexError):  # it is gone by itself, or not back yet
                self._kill(victim)
                self.kills[victim] += 1
                self.recoveries[victim].append(wait_until_works(self._service, self._photo))

    def _kill(self, victim: str) -> None:
        if victim == "postgres":
            postmaster(self._service).kill()
        elif victim == "worker":
            self._random.choice(workers(self._service)).kill()
        else:
            for worker in workers(self._service):
                worker.kill()


class Clerk:
    """Enrols people one after the other, each with a key of its own, until acknowledged; every fifth only once."""

    def __init__(self, service: Service, faces: list[bytes], killer: Killer) -> None:
        self._service, self._faces, self._killer = service, faces, killer
        self.acknowledged: dict[int, str] = {}
        self.given_up: dict[int, Answer] = {}
        self.answers: Counter[tuple[int, str]] = Counter()

    def enrol(self, number: int) -> None:
        """Enrol one person; the second half waits until there has been a kill of each kind."""
        if number >= len(self._faces) // 2:
            wait_for("a kill of each kind", lambda: len(self._killer.kills) == len(self._killer.recoveries))
        key, until = uuid.uuid4().hex, time.monotonic() + 2 * LIMIT_SECONDS
        while time.monotonic() < until:
            answer = ask(lambda: self._attempt(number, key))
            self.answers[answer[:2]] += 1
            if answer.status == 201:
                self.acknowledged[number] = answer.person_id
                return
            assert answer[:2] in NOT_NOW, f"person {number}: {answer}"
            if number % 5 == 0:
                self.given_up[number] = answer
                return
            time.sleep(0.1)
        raise AssertionError(f"person {number} could not be enrolled")

    def _attempt(self, number: int, key: str) -> httpx.Response:
        return httpx.post(
            f"{self._service.url}/enroll",
            files={"image": self._faces[number]},
            data={"name": f"Person {number}", "force": "true", "face": "largest"},
            headers={"Idempotency-Key": key},
            timeout=PATIENCE_SECONDS,
        )


def is_recognised(service: Service, photo: bytes, person_id: str) -> bool:
    """Whether the photo is found to be that person's own."""
    answer = httpx.post(f"{service.url}/recognize", files={"image": photo}, data={"top_k": "20"}, timeout=60)
    assert answer.status_code == 200, answer.text
    candidates = [each for face in answer.json()["faces"] for each in face["candidates"]]
    return any(c["person"]["id"] == person_id and c["distance"] < SAME_PHOTO_DISTANCE for c in candidates)


@pytest.mark.timeout(60 + 3 * ENROLMENTS)
def test_every_acknowledged_enrolment_is_found_by_id_name_and_photo_whatever_was_killed(
    service: Service, faces: list[bytes]
) -> None:
    with Killer(service, faces[0], seed=ENROLMENTS) as killer, ThreadPoolExecutor(4) as threads:
        clerk = Clerk(service, faces, killer)
        list(threads.map(clerk.enrol, range(ENROLMENTS)))
    wait_until_works(service, faces[0])
    print(f"{len(clerk.acknowledged)} of {ENROLMENTS} acknowledged, {len(clerk.given_up)} given up after one attempt")
    print(f"answers {dict(clerk.answers)}; kills {dict(killer.kills)}")
    for victim, seconds in killer.recoveries.items():
        print(f"works again after kill -9 of {victim}: {' '.join(f'{one:.1f}' for one in sorted(seconds))} s")
    there = {int(one["name"].split()[1]): one for one in people(service, "Person")}
    assert set(clerk.acknowledged) == set(range(ENROLMENTS)) - set(clerk.given_up)
    assert {number: there[number]["id"] for number in clerk.acknowledged} == clerk.acknowledged
    assert set(there) <= set(range(ENROLMENTS)), "nobody else"
    for number, one in there.items():
        kept = person(service, one["id"])
        assert kept
        assert len(kept["faces"]) == one["faces"] == 1, "neither none nor a second one"
        assert is_recognised(service, faces[number], one["id"]), one["name"]
    assert_consistent(service, len(there))
    assert all_slots_work(service, faces[0])


def assert_consistent(service: Service, count: int) -> None:
    """Every table has the same number of people; the collection has changed once for each."""
    counts = """
        SELECT (SELECT count(*) FROM people), (SELECT count(*) FROM faces), (SELECT count(*) FROM templates),
               (SELECT count(*) FROM cohorts), (SELECT count(*) FROM idempotency_keys),
               (SELECT sum(people) FROM spaces), (SELECT sum(faces) FROM spaces),
               (SELECT revision FROM collections WHERE name_key = 'default')
    """
    assert set(execute(bundled_url(service), counts)[0]) == {count}
