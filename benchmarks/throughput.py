"""Photos per second over HTTP: the service against a plain Flask service around face_recognition.

    python benchmarks/throughput.py                       # about eight minutes
    python benchmarks/throughput.py --root ../shared/faces --seconds 5 --concurrency 2,8 --setting upsample=0

Both run under gunicorn with as many workers and get the same photos from the same client, in turns, so what else the
machine does meets both alike; read the ratios. The third in the round is the engine alone, one process per core: no
server on these cores can be faster. Settings are the service's defaults, `RECOGNIZER_*` and `--setting`. The photos
are brought to 853x480 pixels or to 12 megapixels in their own shape. Linux and macOS only, where gunicorn runs.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _contenders import EngineLoops, Failed, OtherWork, Service, free_port, our_service, plain_service
from _photos import UNREADABLE, native_pixels, resized
from _report import default_root, photos_in, progress, save_picture, settings_of, table

from recognizer import config
from recognizer.config import Settings, available_cores
from recognizer.errors import ConfigError

SIZES = {"480p": 853 * 480, "12mp": 12_000_000}
GOALS = {"480p": 10, "12mp": 60}
ENGINE_GOAL, LATENCY_GOAL = 0.9, 2.0
MOST_FACES = 4
FEW_PHOTOS = 3
"""So many of each size at least, enlarged where too few are large enough."""

REQUEST_SECONDS = 300.0  # 32 requests for large photos wait for each other at the plain service
BOUNDARY = "photo-of-the-benchmark"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


# -- photos --


def photo_set(paths: Sequence[Path], pixels: int, count: int, faces_in: Callable[[bytes], int]) -> list[bytes]:
    """`count` photos with one to a few faces at this size; fewer, where the others would have to be enlarged."""
    native = native_pixels(paths)
    chosen: list[bytes] = []
    for path in sorted(native, key=lambda path: -min(pixels, native[path])):
        if len(chosen) >= count or (len(chosen) >= FEW_PHOTOS and native[path] < pixels):
            break
        progress(f"choosing photos of {pixels:,} pixels: {len(chosen)}, looking at {path.name}")
        with suppress(*UNREADABLE):
            photo = resized(path, pixels)
            if 1 <= faces_in(photo) <= MOST_FACES:
                chosen.append(photo)
    return chosen


def form(photo: bytes, **values: str) -> bytes:
    """A multipart form with the photo as `image`."""
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in values.items()]
    parts.append(b'name="image"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + photo)
    start = f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
    return b"".join(start + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


# -- the client --


@dataclass
class Load:
    """What the client saw of one service: `answers` are (moment, seconds, faces), the moment since the start."""

    slots: int
    """How many requests are worked on at a time."""
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    client_cores: float = 0.0

    @property
    def rate(self) -> float:
        """Answers per second.

        Every request that was begun is waited for, and at the end the workers fall idle one after the other:
        the time is the mean of their last moments, so that none counts as slow for having nothing left to do.
        """
        last = sorted(moment for moment, _, _ in self.answers)[-self.slots :]
        return len(self.answers) / fmean(last) if last else 0.0

    def seconds(self, share: float) -> float:
        """The time within which this share of the answers came."""
        times = sorted(seconds for _, seconds, _ in self.answers)
        return times[math.ceil(share * len(times)) - 1] if times else math.nan

    @property
    def faces(self) -> float:
        """Faces per answer: that both services do the same work."""
        return fmean(faces for _, _, faces in self.answers) if self.answers else 0.0


def put_load(service: Service, bodies: list[bytes], concurrency: int, seconds: float, workers: int) -> Load:
    """Send photos from `concurrency` threads, each with a connection of its own, each again when it is answered."""
    load = Load(min(concurrency, workers))
    began, busy = time.perf_counter(), time.process_time()
    threads = [
        threading.Thread(target=_send_photos, args=(service, bodies[n:] + bodies[:n], began, seconds, load))
        for n in (number % len(bodies) for number in range(concurrency))
    ]
    for thread in threads:
        thread.daemon = True  # Ctrl-C does not wait for answers
        thread.start()
    for thread in threads:
        thread.join(seconds + REQUEST_SECONDS)
    load.client_cores = (time.process_time() - busy) / (time.perf_counter() - began)
    return load


def _send_photos(service: Service, bodies: Sequence[bytes], began: float, seconds: float, load: Load) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=REQUEST_SECONDS)
    for body in itertools.cycle(bodies):
        sent = time.perf_counter()
        if sent - began >= seconds:
            break
        try:
            connection.request("POST", "/recognize", body, HEADERS)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            load.errors[type(error).__name__] += 1
            time.sleep(0.2)
            continue
        now = time.perf_counter()
        if answer.status == 200:
            load.answers.append((now - began, now - sent, len(json.loads(content)["faces"])))
        else:
            load.errors[f"status {answer.status}"] += 1
            time.sleep(min(1.0, float(answer.getheader("Retry-After", "0"))))  # as a well-behaved client would
    connection.close()


def enrol(service: Service, photos: Sequence[bytes]) -> None:
    """Remember the largest face of every photo, so that there are people to search."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=REQUEST_SECONDS)
    enrolled = 0
    for number, photo in enumerate(photos, 1):
        connection.request("POST", "/enroll", form(photo, name=f"Person {number}", face="largest"), HEADERS)
        answer = connection.getresponse()
        said = answer.read()
        enrolled += answer.status == 201
    connection.close()
    if not enrolled:
        raise Failed(f"nobody could be enrolled; the last answer was {answer.status}: {said.decode()}")


# -- the measurement --


@dataclass(frozen=True)
class Cell:
    """One photo size at one concurrency: both services, the engine alone in photos per second, and the cores that
    were busy with something else."""

    size: str
    concurrency: int
    ours: Load
    plain: Load
    engine: float
    others: float


@dataclass(frozen=True)
class Bench:
    """Everything that is running, and the photos of each size."""

    options: argparse.Namespace
    threads: int
    """Of each of our workers; the plain ones have one."""
    ours: Service
    plain: Service
    loops: EngineLoops
    photos: Mapping[str, Sequence[bytes]]

    def cells(self) -> Iterator[Cell]:
        """Measure them one by one; the three take turns within each."""
        seconds, workers = self.options.seconds, self.options.workers
        for size, photos in self.photos.items():
            bodies = [form(photo) for photo in photos]
            progress(f"{size}: warming up")
            for service, threads in ((self.ours, self.threads), (self.plain, 1)):
                # twice as many as there are threads, so that each of them has had its first request
                put_load(service, bodies, 2 * workers * threads, min(2.0, seconds), workers)
            self.loops.rate(photos, min(2.0, seconds))
            for concurrency in self.options.concurrency:
                others = OtherWork()
                progress(f"{size}, {concurrency} at a time: the engine alone")
                engine = self.loops.rate(photos, seconds)
                progress(f"{size}, {concurrency} at a time: the service")
                ours = put_load(self.ours, bodies, concurrency, seconds, workers)
                progress(f"{size}, {concurrency} at a time: the plain service")
                plain = put_load(self.plain, bodies, concurrency, seconds, workers)
                yield Cell(size, concurrency, ours, plain, engine, others.cores())


def measure(options: argparse.Namespace, settings: Settings, folder: Path) -> tuple[list[Cell], dict[str, int]]:
    """Start everything, measure, stop everything; also how many photos there were of each size."""
    paths = photos_in(options.root or default_root())
    with ExitStack() as running:
        progress("starting the engine processes")
        loops = running.enter_context(EngineLoops.open(settings, available_cores()))
        photos = {size: photo_set(paths, SIZES[size], options.photos, loops.faces) for size in options.sizes}
        if not all(photos.values()):
            raise Failed(f"no photo with 1 to {MOST_FACES} faces in {options.root or default_root()}.")
        people = next(iter(photos.values()))
        known = folder / "known"
        known.mkdir()
        for number, photo in enumerate(people, 1):
            (known / f"person-{number}.jpg").write_bytes(photo)
        progress("starting the services")
        plain = running.enter_context(plain_service(options.workers, known))
        ours = running.enter_context(our_service(settings))
        enrol(ours, people)
        cells = list(Bench(options, settings.threads, ours, plain, loops, photos).cells())
        progress("stopping", last=True)
    return cells, {size: len(some) for size, some in photos.items()}


# -- the report --


def report(cells: Sequence[Cell], photos: Mapping[str, int], options: argparse.Namespace) -> None:
    """The tables and what they say about the goals."""
    print(f"{available_cores()} cores, {options.workers} workers each, {options.seconds:g} s per figure")
    for size, count in photos.items():
        some = [cell for cell in cells if cell.size == size]
        ours, plain = fmean(cell.ours.faces for cell in some), fmean(cell.plain.faces for cell in some)
        print(f"\n{size}: {count} photos; faces per answer: recognizer {ours:.2f}, plain {plain:.2f}")
        print(_size_table(some))
    print("\np99 of fewer than 100 answers is the slowest of them.")
    busy = max(load.client_cores for cell in cells for load in (cell.ours, cell.plain))
    others = max(cell.others for cell in cells)
    print(f"The client took at most {busy:.2f} of a core; what else ran on the machine, at most {others:.1f} cores.")
    for name, what in (("ours", "recognizer"), ("plain", "plain")):
        errors: Counter[str] = sum((getattr(cell, name).errors for cell in cells), Counter())
        if errors:
            print(f"Errors of {what}: " + ", ".join(f"{count} x {kind}" for kind, count in errors.items()))
    print()
    print(table(("", "measured", "goal", ""), _goals(cells)))


def _size_table(cells: Sequence[Cell]) -> str:
    head = ("at a time", "recognizer/s", "plain/s", "ratio", "engine/s", "of engine")
    head += ("p50 ms", "p99 ms", "plain p50", "plain p99", "errors", "plain errors")
    rows = []
    for cell in cells:
        ours, plain = cell.ours, cell.plain
        rates = (f"{ours.rate:.2f}", f"{plain.rate:.2f}", _ratio(ours.rate, plain.rate, ".1f"))
        engine = (f"{cell.engine:.2f}", f"{ours.rate / cell.engine:.2f}")
        times = (f"{load.seconds(share) * 1000:.0f}" for load in (ours, plain) for share in (0.5, 0.99))
        errors = (load.errors.total() for load in (ours, plain))
        rows.append((cell.concurrency, *rates, *engine, *times, *errors))
    return table(head, rows)


def _ratio(a: float, b: float, form: str) -> str:
    return f"{a / b:{form}}x" if b else "-"


def _goals(cells: Sequence[Cell]) -> Iterator[tuple[str, ...]]:
    """Rows of what was wanted and what came of it; ratios are those of the rows, for their parts were measured
    one after the other."""
    for size in dict.fromkeys(cell.size for cell in cells):
        some = [cell for cell in cells if cell.size == size]
        if ratios := [cell.ours.rate / cell.plain.rate for cell in some if cell.plain.rate]:
            yield _goal(f"{size}: median ratio to plain", median(ratios), GOALS[size])
        # fewer requests at a time than cores cannot keep the cores busy
        if ratios := [cell.ours.rate / cell.engine for cell in some if cell.concurrency >= available_cores()]:
            yield _goal(f"{size}: median ratio to the engine alone", median(ratios), ENGINE_GOAL)
        for cell in (cell for cell in some if cell.concurrency == 2):
            spread = cell.ours.seconds(0.99) / cell.ours.seconds(0.5)
            yield _goal(f"{size}: p99 / p50, 2 at a time", spread, LATENCY_GOAL, at_most=True)


def _goal(what: str, measured: float, goal: float, at_most: bool = False) -> tuple[str, ...]:
    reached = measured <= goal if at_most else measured >= goal
    return what, f"{measured:.2f}", f"{'<=' if at_most else '>='} {goal:g}", "reached" if reached else "missed"


def draw(panels: Any, cells: Sequence[Cell]) -> None:
    """Above photos per second, below the time to answer; one column for each size."""
    for column, size in enumerate(dict.fromkeys(cell.size for cell in cells)):
        some = [cell for cell in cells if cell.size == size]
        at = [str(cell.concurrency) for cell in some]
        rates, times = panels[0][column], panels[1][column]
        rates.plot(at, [cell.engine for cell in some], "--", color="tab:gray", label="engine alone")
        for name, colour in (("ours", "tab:blue"), ("plain", "tab:orange")):
            loads = [getattr(cell, name) for cell in some]
            label = "recognizer" if name == "ours" else "plain face_recognition"
            rates.plot(at, [load.rate for load in loads], "o-", color=colour, label=label)
            for share, style in ((0.5, "o-"), (0.99, "^:")):
                milliseconds = [load.seconds(share) * 1000 for load in loads]
                times.plot(at, milliseconds, style, color=colour, label=f"{label}, p{share * 100:.0f}")
        rates.set_title(size)
        for panel, label in ((rates, "photos per second"), (times, "time to answer, ms")):
            panel.set(ylabel=label, xlabel="requests at a time", yscale="log")
            panel.grid(alpha=0.3, which="both")
            panel.legend(fontsize="small")


# -- the command --


def parse() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of photos, searched recursively (those of the tests)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure (10)")
    parser.add_argument("--concurrency", type=numbers, default=[1, 2, 8, 32], help="requests at a time (1,2,8,32)")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=list(SIZES), help="(480p,12mp)")
    parser.add_argument("--photos", type=int, default=8, help="of each size at most (8)")
    parser.add_argument("--workers", type=int, default=available_cores(), help="of each service (one per core)")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="of ours; repeatable")
    parser.add_argument("--picture", type=Path, default=Path("benchmark-throughput.png"), help="(%(default)s)")
    options = parser.parse_args()
    if not set(options.sizes) <= set(SIZES):
        parser.error(f"--sizes are some of {', '.join(SIZES)}.")
    if min(options.seconds, options.photos, options.workers, *options.concurrency) <= 0:
        parser.error("--seconds, --concurrency, --photos and --workers must be more than 0.")
    if options.root and not options.root.is_dir():
        parser.error(f"there is no folder {options.root}.")
    return options


def main() -> int:
    options = parse()
    # 0711 inside the system's folder: as root, PostgreSQL runs as another user and has to pass through
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chmod(folder, 0o711)
        # people are enrolled: never in a database that is somebody's
        own = {"data_dir": folder / "data", "database_url": "", "host": "127.0.0.1", "port": free_port()}
        try:
            settings = config.load({**settings_of(options.setting), **own, "workers": options.workers})
            cells, photos = measure(options, settings, folder)
        except (ConfigError, ValueError, Failed) as error:
            print(f"\nError: {error}", file=sys.stderr)
            return 1
    report(cells, photos, options)
    save_picture(options.picture, len(photos), 2, lambda panels: draw(panels, cells))
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
