"""`recognizer enroll` against the bare engine: photos per second on all cores, in the same run.

    .venv/bin/python benchmarks/enroll.py [--root DIR] [--rounds 3] [--workers N]

DIR has a folder of photos for each person. Each round has the bare engine analyse all photos in as many threads, and
then enrols them in an empty gallery of the bundled PostgreSQL, with reading, admission, storing and the report.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

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


def bare_rate(engine: Engine, items: list[Item], workers: int) -> float:
    """Photos per second of the engine alone; their bytes are in memory."""
    photos = [item.read() for item in items]
    deadline = Deadline(LIMIT_SECONDS)
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        for _ in threads.map(lambda photo: engine.analyse(photo, deadline), photos):
            pass
    return len(photos) / (time.perf_counter() - began)


def enrolling_rate(enroller: LocalEnroller, folder: Folder, workers: int, report_file: Path) -> float:
    """Photos per second of all that `recognizer enroll` does, once everything is open."""
    began = time.perf_counter()
    with Report(report_file) as report:
        run(folder, enroller, report.add, workers=workers, stop=threading.Event())
        statuses = report.statuses
    seconds = time.perf_counter() - began
    progress(f"enrolled: {dict(statuses)}", last=True)
    return sum(statuses.values()) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=SHARED_PHOTOS / "people")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=available_cores())
    options = parser.parse_args()
    bare, enrolling = [], []
    with tempfile.TemporaryDirectory() as scratch, database() as (url, _):
        settings = config.load({"data_dir": Path(scratch), "workers": 1, "queue_timeout_seconds": 300.0})
        migrate(url, 60)
        folder = Folder(options.root, settings.max_image_bytes)
        items = [each for each in folder if isinstance(each, Item)]
        with closing(open_engine(settings)) as engine, Pool.open(settings, url) as pool:
            bare_rate(engine, items[: 4 * options.workers], options.workers)  # warm
            for number in range(options.rounds):
                name, deadline = f"round-{number}", Deadline(60)
                Gallery(pool).create_collection(name, {}, deadline)
                bare.append(bare_rate(engine, items, options.workers))
                enroller = LocalEnroller(Service(engine, Gallery(pool), settings), pool, Manner(name))
                enrolling.append(enrolling_rate(enroller, folder, options.workers, Path(scratch) / "report.csv"))
    rows = [
        (number + 1, f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}")
        for number, (a, b) in enumerate(zip(bare, enrolling, strict=True))
    ]
    a, b = statistics.median(bare), statistics.median(enrolling)
    print(f"{len(items):,} photos, {options.workers} threads\n")
    print(
        table(
            ("round", "bare engine, photos/s", "enroll, photos/s", "ratio"),
            [
                *rows,
                (
                    "median",
                    f"{a:.1f}",
                    f"{b:.1f}",
                    f"{statistics.median(y / x for x, y in zip(bare, enrolling, strict=True)):.2f}",
                ),
            ],
        )
    )


if __name__ == "__main__":
    main()
