"""Measures the gallery at growing sizes: enrolling, searching, how often the search finds what an exact one finds.

    python benchmarks/gallery.py
    python benchmarks/gallery.py --sizes 10000,100000,1000000 --faces-per-person 20

It goes through the same `Gallery.enrol` and `Gallery.nearest` as the service, one call after the other, on a bundled
PostgreSQL of its own with the settings that the service gives it, in a temporary folder (the largest default size
takes about 3 GB). A million people take about half an hour (an estimate), most for building the index, which gets more
memory for that than the service would give it. The faces are synthetic, see _synthetic.py; of the probes one half are
new faces of people enrolled, the other half are strangers. An enrolment adds one face: to a new person in one case of
`--faces-per-person`, else to somebody there already. Recall@50 is the share of the exact 50 nearest people that are
among the 50 found; recall@1 likewise.
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

from recognizer.deadline import Deadline
from recognizer.faces import Box, NewFace, Quality
from recognizer.gallery.migrate import known_migrations, migrate
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery

KS = (1, 50)
SAME = 1e-4
"""Two distances that differ by less are the same: numpy's and PostgreSQL's sums are rounded differently."""


@dataclass
class Measured:
    """What was measured at one size; times in milliseconds."""

    faces: int
    people: int
    load_seconds: float = 0.0
    enrol_ms: list[float] = field(default_factory=list)
    search_ms: dict[int, list[float]] = field(default_factory=lambda: {k: [] for k in KS})
    recall: dict[int, float] = field(default_factory=dict)
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
        began = time.perf_counter()
        self.fill(stored, population.random)
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
            self.search(gallery, probes, exact(stored, self.faces_per_person, probes), done)
            self.enrol(gallery, population, people, done)
        self.weigh(done)
        print(file=sys.stderr)
        return done

    def fill(self, faces: Vectors, random: np.random.Generator) -> None:
        """Copy the faces in; then the migration that makes spaces, templates and index makes them anew."""
        say(f"{len(faces):,} faces: loading")
        with contextlib.closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE templates, spaces; TRUNCATE people CASCADE")
            load(cursor, faces, self.faces_per_person, random)
            connection.commit()
            cursor.execute("SET maintenance_work_mem = '2GB'")
            with ThreadPoolExecutor(1) as thread:
                sql = next(migration.sql for migration in known_migrations() if migration.name == "0002_templates")
                building = thread.submit(cursor.execute, sql)
                self.watch(building.done, len(faces) // self.faces_per_person)
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

    def search(self, gallery: Gallery, probes: Vectors, truth: dict[int, Vectors], done: Measured) -> None:
        hits = dict.fromkeys(KS, 0)
        for probe in probes[:20]:  # connect, read the catalogue
            gallery.nearest("default", [probe], MODEL_ID, 50, Deadline(60))
        for number, probe in enumerate(probes):
            for k in KS if number % 2 else KS[::-1]:  # the second search of a probe finds its pages in memory
                began = time.perf_counter()
                _, [found] = gallery.nearest("default", [probe], MODEL_ID, k, Deadline(60))
                done.search_ms[k].append((time.perf_counter() - began) * 1000)
                hits[k] += sum(neighbour.distance <= truth[k][number] + SAME for neighbour in found)
            if number % 50 == 0:
                say(f"{done.faces:,} faces: {number} of {len(probes)} probes searched")
        done.recall = {k: hits[k] / (min(k, done.people) * len(probes)) for k in KS}

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

    def weigh(self, done: Measured) -> None:
        with contextlib.closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_relation_size('templates_embedding'), pg_total_relation_size('people')"
                " + pg_total_relation_size('faces') + pg_total_relation_size('templates')"
            )
            done.index_mb, tables = (size / 2**20 for size in cursor.fetchall()[0])
            done.tables_mb = tables - done.index_mb
        if self.server_pid and sys.platform == "linux":
            server = psutil.Process(self.server_pid)
            done.server_mb = 0.0
            for process in [server, *server.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):  # the pool's connections are just ending
                    done.server_mb += process.memory_full_info().pss / 2**20


def exact(faces: Vectors, faces_per_person: int, probes: Vectors) -> dict[int, Vectors]:
    """For each k and probe, the distance to the k-th nearest person (the last one, where there are fewer)."""
    say(f"{len(faces):,} faces: the exact answers")
    squares = np.einsum("ij,ij->i", faces, faces)
    truth: dict[int, list[float]] = {k: [] for k in KS}
    for probe in probes:
        squared = squares - 2 * (faces @ probe) + probe @ probe
        people = squared.reshape(-1, faces_per_person).min(axis=1)
        for k in KS:
            place = min(k, len(people)) - 1
            truth[k].append(float(np.sqrt(max(0.0, np.partition(people, place)[place]))))
    return {k: np.array(distances, np.float32) for k, distances in truth.items()}


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
    for k in KS:
        for p in (50, 99):
            row(f"search, k = {k}, p{p} ms", lambda done, k=k, p=p: f"{np.percentile(done.search_ms[k], p):.2f}")
    for k in KS:
        row(f"recall@{k} against exact", lambda done, k=k: f"{done.recall[k]:.4f}")
    row("HNSW index, MB", lambda done: f"{done.index_mb:.0f}")
    row("tables and other indexes, MB", lambda done: f"{done.tables_mb:.0f}")
    row("PostgreSQL's memory, MB", lambda done: "-" if done.server_mb is None else f"{done.server_mb:.0f}")


def draw(panels: Any, results: list[Measured]) -> None:
    times, recalls = panels[0]
    sizes = [done.faces for done in results]
    curves = {f"search, k = {k}": [done.search_ms[k] for done in results] for k in KS}
    for name, values in {**curves, "enrol": [done.enrol_ms for done in results]}.items():
        (line,) = times.plot(sizes, [np.percentile(value, 50) for value in values], "o-", label=f"{name}, p50")
        times.plot(sizes, [np.percentile(value, 99) for value in values], ":", color=line.get_color())
    times.set(xscale="log", yscale="log", xlabel="faces", ylabel="ms (dotted: p99)", title="Time of a call")
    for k in KS:
        recalls.plot(sizes, [done.recall[k] for done in results], "o-", label=f"recall@{k}")
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
