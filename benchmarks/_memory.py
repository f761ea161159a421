"""What `engine.py` measures of memory: one child process per case, so that none sees what another has left."""

from __future__ import annotations

import io
import multiprocessing
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil
from _photos import saved, scaled
from _report import import_face_recognition
from PIL import Image

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.vision.engine import open_engine

SMALL_PHOTOS = 50
SMALL_PIXELS = 853 * 480
GRAIN_PIXELS = 1_000_000
"""Detail of the largest photos: more would be more bytes than the settings allow."""

CASE_SECONDS = 600.0
OURS, THEIRS = "recognizer", "face_recognition"


class Memory(NamedTuple):
    """Bytes that one process held: resident after loading, after small photos and after the largest, and its peak."""

    who: str
    largest: str
    loaded: int
    small: int
    after: int
    peak: int
    faces: int


class Case(NamedTuple):
    """Who looks at which photos: `photos` are files, the last is the largest and is called `largest`."""

    who: str
    largest: str
    photos: tuple[Path, ...]


def largest_photos(photo: bytes, settings: Settings, folder: Path) -> dict[str, Path]:
    """The photo with as many pixels as the settings allow, in three formats; what is too many bytes is left out."""
    with Image.open(io.BytesIO(photo)) as image:
        detail = scaled(image.convert("RGB"), GRAIN_PIXELS)
    pixels = settings.max_image_pixels - settings.max_image_pixels // 1000  # sides are rounded
    smooth = scaled(detail, pixels, Image.Resampling.BILINEAR)
    files = {
        "JPEG": saved(smooth),
        # all of its coefficients are held until the last one is read
        "progressive JPEG": saved(smooth, progressive=True),
        # repeated pixels, which a PNG can pack
        "PNG": saved(scaled(detail, pixels, Image.Resampling.NEAREST), "PNG", compress_level=1),
    }
    paths = {}
    for number, (name, data) in enumerate(files.items()):
        if len(data) <= settings.max_image_bytes:
            paths[name] = folder / f"largest-{number}"
            paths[name].write_bytes(data)
    return paths


def memory_of(case: Case, settings: Settings) -> Memory:
    """Measure one case in a process of its own.

    Raises:
        ValueError: the process ended early; what it said is above.
    """
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_measure, args=(theirs, case, settings), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(CASE_SECONDS):
            raise ValueError(f"{case.who} was not done with a {case.largest} after {CASE_SECONDS:g} seconds.")
        result: Memory = ours.recv()
    except EOFError as error:
        raise ValueError(f"the process of {case.who} with a {case.largest} ended early.") from error
    finally:
        process.kill()
        process.join()
    return result


def _measure(connection: Connection, case: Case, settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    faces_in = _OPEN[case.who](settings)
    loaded = _resident()
    *small, largest = case.photos
    for number in range(SMALL_PHOTOS):
        faces_in(small[number % len(small)])
    settled = _resident()
    faces = faces_in(largest)
    connection.send(Memory(case.who, case.largest, loaded, settled, _resident(), _peak(), faces))


def _open_ours(settings: Settings) -> Callable[[Path], int]:
    engine = open_engine(settings)
    return lambda path: len(engine.analyse(path.read_bytes(), Deadline(CASE_SECONDS)).faces)


def _open_theirs(settings: Settings) -> Callable[[Path], int]:
    library = import_face_recognition()

    def faces_in(path: Path) -> int:
        picture = library.load_image_file(path)
        return len(library.face_encodings(picture, library.face_locations(picture)))

    return faces_in


_OPEN: Mapping[str, Callable[[Settings], Callable[[Path], int]]] = {OURS: _open_ours, THEIRS: _open_theirs}


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _peak() -> int:
    """The most that was ever resident in this process."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage's figure would begin with what the parent held when it started this process
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
