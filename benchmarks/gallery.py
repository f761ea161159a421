"""Measures the gallery at growing sizes: enrolling, searching, how often the search finds what an exact one finds.

    python benchmarks/gallery.py
    python benchmarks/gallery.py --sizes 10000,100000,1000000 --faces-per-person 20

It goes through the same `Gallery.enrol`, `Gallery.nearest` and rule as the service, one call after the other, on a
bundled PostgreSQL of its own with the settings that the service gives it, in a temporary folder (the largest default
size takes about 3 GB). A million people take about half an hour (an estimate), most for building the index, which
gets more memory for that than the service would give it. The faces are synthetic, see _synthetic.py; of the probes
one half are new faces of people enrolled, the other half are strangers. An enrolment adds one face: to a new person
in one case of `--faces-per-person`, else to somebody there already. Recall@1 is the share of probes whose nearest
person by distance is found, recall@50 the share of the 50 people with the most alike templates, a probe's cohort, who
are among those found. "Decision" is what the rule takes after the search. Last, the cohort figures of all people,
stale after the load, are brought up to date for so many seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _database import database
from _report import save_picture
from _synthetic import MODEL_ID, Population, Vectors, load

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.decisions import decide, rule_for
from recognizer.faces import Box, Face, NewFace, Quality
from recognizer.gallery.cohorts import bring_up_to_date
from recognizer.gallery.migrate import migrate
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery

COHORT = 50
SAME = 1e-4
"""Two distances that differ by less are the same: numpy's and PostgreSQL's sums are rounded differently."""


@dataclass
class Measured:
    """What was measured at one size; times in milliseconds."""

    faces: int
    people: int
    load_seconds: float = 0.0
    enrol_ms: list[float] = field(default_factory=list)
    search_ms: list[float] = field(default_factory=list)
    decide_ms: list[float] = field(default_factory=list)
    recall_nearest: float = 0.0
    recall_cohort: float = 0.0
    cohorts_per_second: float = 0.0
    index_mb: float = 0.0
    tables_mb: float = 0.0
    server_mb: float | None = None


def say(text: str) -> None:
    print(f"\r{time.strftime('%H:%M:%S')} {text:<70}", end="", file=sys.stderr, flush=True)


class Bench:
    """One database, filled anew for each size."""

    def __init__(self, url: str, server_pid: int | None, faces_per_person: int, probes: int, seconds: float) -> None:
        self.url, self.server_pid = url, server_pid
        self.faces_per_person, self.probes, self.seconds = faces_per_person, probes, seconds

    def measure(self, faces: int) -> Measured:
        done = Measured(faces, faces // self.faces_per_person)
        population = Population()
        people = population.people(done.people)
        stored = population.faces(np.repeat(people, self.faces_per_person, axis=0))
        say(f"{faces:,} faces: templates")
        templates = np.array([evidence.template(of_person) for of_person in stored.reshape(done.people, -1, 128)])
        began = time.perf_counter()
        self.fill(stored, templates, population.random)
        done.load_seconds = time.perf_counter() - began
        known = people[population.random.integers(0, len(people), self.probes // 2)]
        probes = population.faces(np.concatenate([known, population.people(self.probes - len(known))]))
        with Pool(
            self.url,
            minimum=1,
            maximum=1,
            timeout_seconds=5,
            connect_timeout_seconds=5,
            statement_timeout_seconds=60,
        ) as pool:
            gallery = Gallery(pool)
            self.search(gallery, probes, Truth(stored, templates), done)
            self.enrol(gallery, population, people, done)
            self.keep_cohorts(pool, done)
        self.weigh(done)
        print(file=sys.stderr)
        return done

    def fill(self, faces: Vectors, templates: Vectors, random: np.random.Generator) -> None:
        """Copy everything in without the index of the templates, then make that anew as it was."""
        say(f"{len(faces):,} faces: loading")
        with contextlib.closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE people, spaces CASCADE")
            cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'templates_embedding'")
            ((index,),) = cursor.fetchall()
            cursor.execute("DROP INDEX templates_embedding")
            load(cursor, faces, templates, random)
            connection.commit()
            cursor.execute("SET maintenance_work_mem = '2GB'")
            with ThreadPoolExecutor(1) as thread:
                building = thread.submit(cursor.execute, index)
                self.watch(building.done, len(templates))
                building.result()
            connection.commit()

    def watch(self, is_done: Callable[[], bool], people: int) -> None:
        """Say how far the index is."""
        with contextlib.closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not is_done():
                cursor.execute("SELECT coalesce(max(tuples_done), 0) FROM pg_stat_progress_create_index")
                say(f"{people:,} people: {cursor.fetchall()[0][0]:,} in the index")
                time.sleep(min(1.0, people / 100_000))

    def search(self, gallery: Gallery, probes: Vectors, truth: Truth, done: Measured) -> None:
        nearest = cohort = 0
        for probe in probes[:20]:  # connect, read the catalogue
            gallery.nearest("default", [probe], MODEL_ID, 1, Deadline(60))
        for number, probe in enumerate(probes):
            began = time.perf_counter()
            found = gallery.nearest("default", [probe], MODEL_ID, 1, Deadline(60))
            searched = time.perf_counter()
            decide([Face(Box(1, 2, 101, 102), 1.0, Quality(1.0), (), probe)], found, rule_for(None, 0.01, found))
            done.decide_ms.append((time.perf_counter() - searched) * 1000)
            done.search_ms.append((searched - began) * 1000)
            distance, likeness = truth.of(probe)
            nearest += found.of_probes[0][0].distance <= distance + SAME
            cohort += sum(neighbour.likeness >= likeness for neighbour in found.of_probes[0])
            if number % 50 == 0:
                say(f"{done.faces:,} faces: {number} of {len(probes)} probes searched")
        done.recall_nearest = nearest / len(probes)
        done.recall_cohort = cohort / (min(COHORT, done.people) * len(probes))

    def enrol(self, gallery: Gallery, population: Population, people: Vectors, done: Measured) -> None:
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            number = len(done.enrol_ms)
            who = int(population.random.integers(0, len(people)))
            is_new = number % self.faces_per_person == 0
            [embedding] = population.faces(population.people(1) if is_new else people[who : who + 1])
            photo = hashlib.sha256(f"photo {number}".encode()).digest()
            face = NewFace(0, Box(1, 2, 101, 102), Quality(1.0), embedding, MODEL_ID, photo)
            began = time.perf_counter()
            gallery.enrol("default", [face], name=f"new {number}" if is_new else f"p {who}", deadline=Deadline(60))
            done.enrol_ms.append((time.perf_counter() - began) * 1000)
            if number % 50 == 0:
                say(f"{done.faces:,} faces: {number} more enrolled")

    def keep_cohorts(self, pool: Pool, done: Measured) -> None:
        began, people = time.monotonic(), 0
        while time.monotonic() < began + self.seconds and (more := bring_up_to_date(pool, Deadline(60))):
            people += more
            say(f"{done.faces:,} faces: {people:,} cohort figures brought up to date")
        done.cohorts_per_second = people / (time.monotonic() - began)

    def weigh(self, done: Measured) -> None:
        with contextlib.closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_relation_size('templates_embedding'), pg_total_relation_size('people')"
                " + pg_total_relation_size('faces') + pg_total_relation_size('templates')"
                " + pg_total_relation_size('cohorts')"
            )
            done.index_mb, tables = (size / 2**20 for size in cursor.fetchall()[0])
            done.tables_mb = tables - done.index_mb
        if self.server_pid and sys.platform == "linux":
            server = psutil.Process(self.server_pid)
            done.server_mb = 0.0
            for process in [server, *server.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):  # the pool's connections are just ending
                    done.server_mb += process.memory_full_info().pss / 2**20


class Truth:
    """Searches exactly, in memory."""

    def __init__(self, faces: Vectors, templates: Vectors) -> None:
        self._faces, self._templates = faces, templates
        self._squares = np.einsum("ij,ij->i", faces, faces)

    def of(self, probe: Vectors) -> tuple[float, float]:
        """The distance to the nearest person, and the likeness of the 50th template (the last, of fewer)."""
        squared = self._squares - 2 * (self._faces @ probe) + probe @ probe
        alike = self._templates @ evidence.unit(probe)
        place = len(alike) - min(COHORT, len(alike))
        return float(np.sqrt(max(0.0, squared.min()))), float(np.partition(alike, place)[place])


def table(results: list[Measured]) -> None:
    """One column for each size."""

    def row(what: str, value: Callable[[Measured], str]) -> None:
        print(f"{what:<44}" + "".join(f"{value(done):>14}" for done in results))

    row("faces", lambda done: f"{done.faces:,}")
    row("people", lambda done: f"{done.people:,}")
    row("bulk load with index, s", lambda done: f"{done.load_seconds:.1f}")
    row("enrol, faces per second", lambda done: f"{1000 / np.mean(done.enrol_ms):.0f}")
    for p in (50, 99):
        row(f"enrol, p{p} ms per face", lambda done, p=p: f"{np.percentile(done.enrol_ms, p):.1f}")
    for p in (50, 99):
        row(f"search, p{p} ms", lambda done, p=p: f"{np.percentile(done.search_ms, p):.2f}")
    row("decision, p50 ms", lambda done: f"{np.percentile(done.decide_ms, 50):.2f}")
    row("recall@1 against exact", lambda done: f"{done.recall_nearest:.4f}")
    row("recall@50 of the cohort", lambda done: f"{done.recall_cohort:.4f}")
    row("cohort figures per second", lambda done: f"{done.cohorts_per_second:.0f}")
    row("HNSW index, MB", lambda done: f"{done.index_mb:.0f}")
    row("tables and other indexes, MB", lambda done: f"{done.tables_mb:.0f}")
    row("PostgreSQL's memory, MB", lambda done: "-" if done.server_mb is None else f"{done.server_mb:.0f}")


def draw(panels: Any, results: list[Measured]) -> None:
    times, recalls = panels[0]
    sizes = [done.faces for done in results]
    curves = {"search": [done.search_ms for done in results], "enrol": [done.enrol_ms for done in results]}
    for name, values in curves.items():
        (line,) = times.plot(sizes, [np.percentile(value, 50) for value in values], "o-", label=f"{name}, p50")
        times.plot(sizes, [np.percentile(value, 99) for value in values], ":", color=line.get_color())
    times.set(xscale="log", yscale="log", xlabel="faces", ylabel="ms (dotted: p99)", title="Time of a call")
    recalls.plot(sizes, [done.recall_nearest for done in results], "o-", label="recall@1")
    recalls.plot(sizes, [done.recall_cohort for done in results], "o-", label="recall@50 of the cohort")
    recalls.set(xscale="log", xlabel="faces", ylim=(None, 1.001), title="Found of what an exact search finds")
    for axes in (times, recalls):
        axes.grid(alpha=0.3)
        axes.legend()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000,1000000", help="numbers of faces (default: %(default)s)")
    parser.add_argument("--faces-per-person", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--probes", type=int, default=1000, help="faces searched at each size (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of enrolling at each size (default: %(default)s)")
    parser.add_argument("--database-url", help="an empty database to use; ALL PEOPLE IN IT ARE DELETED")
    parser.add_argument("--picture", type=Path, default=Path("benchmark-gallery.png"), help="(default: %(default)s)")
    options = parser.parse_args()
    results = []
    with database(options.database_url) as (url, server_pid):
        migrate(url, 60)
        bench = Bench(url, server_pid, options.faces_per_person, options.probes, options.seconds)
        for size in options.sizes.split(","):
            results.append(bench.measure(int(size)))
    print()
    table(results)
    save_picture(options.picture, 2, 1, lambda panels: draw(panels, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
