"""Measures what encrypted embeddings cost: the same collection searched and enrolled into, plain and then encrypted.

    python benchmarks/encrypted_search.py
    python benchmarks/encrypted_search.py --sizes 1000,10000,100000,200000 --faces-per-person 1

On a bundled PostgreSQL of its own, in a temporary folder, with synthetic faces (see _synthetic.py). It goes through
the same `Gallery.nearest` and `Gallery.enrol` as the service, one call after the other, one probe a call; half of the
probes are new faces of people enrolled. "First search" reads and decrypts everything, as a worker does after its start;
"after an enrolment" is the first search that finds the revision moved. Memory is what the process has grown by. The
switch is that of PATCH /v1/collections, without its limit.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the service has it

import numpy as np
import psutil
import psycopg2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _database import database
from _synthetic import MODEL_ID, Population, Vectors, load

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.faces import Box, Neighbourhood, NewFace, Quality
from recognizer.gallery import switching
from recognizer.gallery.migrate import migrate
from recognizer.gallery.opened import Opened
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery
from recognizer.keyring import Keyring, new_key

LIMIT_SECONDS = 3600.0


@dataclass
class Measured:
    """What was measured at one size; times in milliseconds, first of the plain, then of the encrypted collection."""

    faces: int
    people: int
    search_ms: list[list[float]] = field(default_factory=list)
    enrol_ms: list[list[float]] = field(default_factory=list)
    refresh_ms: list[float] = field(default_factory=list)
    first_ms: float = 0.0
    switch_ms: list[float] = field(default_factory=list)
    memory_mb: float = 0.0
    tables_mb: list[float] = field(default_factory=list)
    same: float = 0.0


def say(text: str) -> None:
    print(f"\r{time.strftime('%H:%M:%S')} {text:<70}", end="", file=sys.stderr, flush=True)


def took_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


class Bench:
    """One collection of one size, in both forms."""

    def __init__(self, url: str, faces: int, faces_per_person: int, probes: int) -> None:
        self.url, self.probes = url, probes
        self.population = Population()
        self.done = Measured(faces, faces // faces_per_person)
        self.people = self.population.people(self.done.people)
        self.stored = self.population.faces(np.repeat(self.people, faces_per_person, axis=0))
        self.enrolled = 0

    def measure(self) -> Measured:
        """Fill the database, measure, switch, measure."""
        done, random = self.done, self.population.random
        self.fill()
        known = self.people[random.integers(0, len(self.people), self.probes // 2)]
        probes = self.population.faces(np.concatenate([known, self.population.people(self.probes - len(known))]))
        pool = Pool(
            self.url, minimum=1, maximum=2, timeout_seconds=5, connect_timeout_seconds=5,
            statement_timeout_seconds=LIMIT_SECONDS, keyring=Keyring.of_text(new_key()),
        )  # fmt: skip
        with pool:
            gallery = Gallery(pool)
            self.enrol(gallery)
            plain = self.search(gallery, probes)
            self.weigh()
            self.switch(gallery, on=True)
            gc.collect()
            before = psutil.Process().memory_info().rss
            gallery = Gallery(pool, Opened(pool))
            done.first_ms = took_ms(lambda: self.look(gallery, probes[0]))
            done.memory_mb = (psutil.Process().memory_info().rss - before) / 2**20
            sealed = self.search(gallery, probes)
            done.same = np.mean([self.best(one) == self.best(other) for one, other in zip(plain, sealed, strict=True)])
            self.enrol(gallery)
            for probe in probes[:20]:
                self.enrol_one(gallery)
                done.refresh_ms.append(took_ms(lambda probe=probe: self.look(gallery, probe)))
            self.weigh()
            self.switch(gallery, on=False)
        print(file=sys.stderr)
        return done

    def fill(self) -> None:
        say(f"{self.done.faces:,} faces: loading")
        templates = np.array([evidence.template(each) for each in self.stored.reshape(self.done.people, -1, 128)])
        with closing(psycopg2.connect(self.url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE people, spaces CASCADE")
            cursor.execute("UPDATE collections SET encrypt_embeddings = false")
            load(cursor, self.stored, templates, self.population.random)
        with closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("VACUUM ANALYZE")

    def look(self, gallery: Gallery, probe: Vectors) -> Neighbourhood:
        return gallery.nearest("default", [probe], MODEL_ID, 1, Deadline(LIMIT_SECONDS))

    def search(self, gallery: Gallery, probes: Vectors) -> list[Neighbourhood]:
        for probe in probes[:10]:
            self.look(gallery, probe)
        found, times = [], []
        for number, probe in enumerate(probes):
            times.append(took_ms(lambda probe=probe: found.append(self.look(gallery, probe))))
            if number % 20 == 0:
                say(f"{self.done.faces:,} faces: {number} probes searched")
        self.done.search_ms.append(times)
        return found

    @staticmethod
    def best(found: Neighbourhood) -> str:
        return found.of_probes[0][0].face_id

    def enrol(self, gallery: Gallery) -> None:
        say(f"{self.done.faces:,} faces: enrolling")
        self.done.enrol_ms.append([took_ms(lambda: self.enrol_one(gallery)) for _ in range(50)])

    def enrol_one(self, gallery: Gallery) -> None:
        """Somebody new, with one face."""
        self.enrolled += 1
        [embedding] = self.population.faces(self.population.people(1))
        photo = hashlib.sha256(f"photo {self.enrolled}".encode()).digest()
        face = NewFace(0, Box(1, 2, 101, 102), Quality(1.0), embedding, MODEL_ID, photo)
        gallery.enrol("default", [face], name=f"new {self.enrolled}", deadline=Deadline(60))

    def switch(self, gallery: Gallery, *, on: bool) -> None:
        say(f"{self.done.faces:,} faces: switching {'on' if on else 'off'}")
        change = {"encrypt_embeddings": on}
        deadline = Deadline(LIMIT_SECONDS)
        self.done.switch_ms.append(took_ms(lambda: gallery.change_collection("default", change, deadline)))

    def weigh(self) -> None:
        with closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("VACUUM FULL faces, templates")
            cursor.execute("SELECT pg_total_relation_size('faces') + pg_total_relation_size('templates')")
            self.done.tables_mb.append(cursor.fetchall()[0][0] / 2**20)


def table(results: list[Measured]) -> None:
    """One column for each size."""

    def row(what: str, value: Callable[[Measured], str]) -> None:
        print(f"| {what} |" + "".join(f" {value(done)} |" for done in results))

    def both(times: list[list[float]], percentile: int) -> str:
        plain, sealed = (np.percentile(each, percentile) for each in times)
        return f"{plain:.1f} / {sealed:.1f} ({sealed / plain:.2f}x)"

    row("faces", lambda done: f"{done.faces:,}")
    row("people", lambda done: f"{done.people:,}")
    row("search, p50 ms, plain / encrypted", lambda done: both(done.search_ms, 50))
    row("search, p95 ms, plain / encrypted", lambda done: both(done.search_ms, 95))
    row("the same nearest face", lambda done: f"{100 * done.same:.1f} %")
    row("first search of a worker, s", lambda done: f"{done.first_ms / 1000:.2f}")
    row("search after an enrolment, p50 ms", lambda done: f"{np.percentile(done.refresh_ms, 50):.1f}")
    row("enrol, p50 ms, plain / encrypted", lambda done: both(done.enrol_ms, 50))
    row("memory of a worker, MB", lambda done: f"{done.memory_mb:.0f}")
    row("tables and indexes, MB, plain / encrypted", lambda done: " / ".join(f"{each:.0f}" for each in done.tables_mb))
    row("switching on / off, s", lambda done: " / ".join(f"{each / 1000:.1f}" for each in done.switch_ms))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000", help="numbers of faces (default: %(default)s)")
    parser.add_argument("--faces-per-person", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--probes", type=int, default=200, help="faces searched at each size (default: %(default)s)")
    parser.add_argument("--database-url", help="an empty database to use; ALL PEOPLE IN IT ARE DELETED")
    options = parser.parse_args()
    switching.MAX_FACES = switching.MAX_PEOPLE_TO_INDEX = sys.maxsize
    results = []
    with database(options.database_url) as (url, _):
        migrate(url, 60)
        for size in options.sizes.split(","):
            results.append(Bench(url, int(size), options.faces_per_person, options.probes).measure())
    table(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
