"""`recognizer enroll` against the bare engine: photos per second on all cores, in the same run.

    .venv/bin/python benchmarks/enroll.py [--root DIR] [--rounds 5]

DIR has a folder of photos for each person. Each round has the bare engine analyse all photos, one thread per core, and
then enrols them in an empty collection of the bundled PostgreSQL: reading, admission, storing, the report. Beside the
photos per second stands the processor time of all of it, PostgreSQL's included, which what else the machine does
disturbs less; where all cores are busy, the ratio of the rates can be no better than that of these times.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil
from _database import database
from _report import SHARED_PHOTOS, progress, table

from recognizer import config
from recognizer.config import available_cores
from recognizer.deadline import Deadline
from recognizer.enrolling.folder import Folder
from recognizer.enrolling.items import Item, Manner
from recognizer.enrolling.local import LocalEnroller
from recognizer.enrolling.pipeline import run
from recognizer.enrolling.report import Report
from recognizer.gallery.migrate import migrate
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery
from recognizer.service import Service
from recognizer.vision.engine import Engine, open_engine

LIMIT_SECONDS = 3600.0


class Measured(NamedTuple):
    """One pass over all photos: photos per second, and milliseconds of processor time for each."""

    rate: float
    processor_ms: float


def measured(photos: int, postgres: psutil.Process, work: Callable[[], object]) -> Measured:
    """Do the work, and say what it took."""
    began, used = time.perf_counter(), _processor_seconds(postgres)
    work()
    seconds, more = time.perf_counter() - began, _processor_seconds(postgres) - used
    return Measured(photos / seconds, 1000 * more / photos)


def _processor_seconds(postgres: psutil.Process) -> float:
    seconds = time.process_time()
    for process in (postgres, *postgres.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
    return seconds


def analyse(engine: Engine, photos: list[bytes], threads: int) -> None:
    """The bare engine; the photos are in memory."""
    deadline = Deadline(LIMIT_SECONDS)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda photo: engine.analyse(photo, deadline), photos):
            pass


def enrol(enroller: LocalEnroller, folder: Folder, report_file: Path) -> None:
    """All that `recognizer enroll` does, once everything is open."""
    with Report(report_file) as report:
        run(folder, enroller, report.add, workers=available_cores() + 1, stop=threading.Event())
        progress(f"{dict(report.statuses)}", last=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=SHARED_PHOTOS / "people")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    bare: list[Measured] = []
    enrolling: list[Measured] = []
    with tempfile.TemporaryDirectory() as scratch, database() as (url, pid):
        postgres = psutil.Process(pid)
        settings = config.load({"data_dir": Path(scratch), "workers": 1, "queue_timeout_seconds": 300.0})
        migrate(url, 60)
        folder = Folder(options.root, settings.max_image_bytes)
        photos = [each.read() for each in folder if isinstance(each, Item)]
        with closing(open_engine(settings)) as engine, Pool.open(settings, url) as pool:
            gallery = Gallery(pool)
            service = Service(engine, gallery, settings)
            analyse(engine, photos[:50], available_cores())  # warm
            for number in range(options.rounds):
                name = f"round-{number}"
                gallery.create_collection(name, {}, Deadline(60))
                enroller = LocalEnroller(service, pool, Manner(name))
                bare.append(measured(len(photos), postgres, lambda: analyse(engine, photos, available_cores())))
                work = (enroller, folder, Path(scratch) / "report.csv")
                enrolling.append(measured(len(photos), postgres, lambda work=work: enrol(*work)))  # type: ignore[misc]
    print(f"{len(photos):,} photos, {available_cores()} cores\n")
    print(
        table(
            ("round", "bare, photos/s", "enroll, photos/s", "ratio", "bare, ms", "enroll, ms", "ratio"),
            _rows(bare, enrolling),
        )
    )


def _rows(bare: list[Measured], enrolling: list[Measured]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    rates, times = [], []
    for number, (a, b) in enumerate(zip(bare, enrolling, strict=True), start=1):
        rates.append(b.rate / a.rate)
        times.append(a.processor_ms / b.processor_ms)
        row = (a.rate, b.rate, rates[-1], a.processor_ms, b.processor_ms, times[-1])
        rows.append((number, *(f"{value:.{2 if index % 3 == 2 else 1}f}" for index, value in enumerate(row))))
    rows.append(("median", "", "", f"{statistics.median(rates):.2f}", "", "", f"{statistics.median(times):.2f}"))
    return rows


if __name__ == "__main__":
    main()
