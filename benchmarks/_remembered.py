"""Photos that are analysed once, by the service's engine in as many processes as there are cores, and used often."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from _report import Pace

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import ImageUnsupported, Unusable
from recognizer.faces import Analysis, Face
from recognizer.vision.engine import Engine, open_engine

PHOTO_SECONDS = 600.0

Which = Literal["largest", "central"]
"""Which of several faces counts."""


@dataclass(frozen=True)
class Look:
    """What was seen in one photo: the one face that counts, if any, and how many there were.

    `analysis` is None where the photo cannot be read; `sha256` is of its bytes.
    """

    sha256: bytes
    analysis: Analysis | None
    faces: int

    @property
    def face(self) -> Face | None:
        return self.analysis.faces[0] if self.analysis and self.analysis.faces else None


# -- in worker processes --

_engines: list[Engine] = []
"""Of this worker process."""


def _open(settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    _engines.append(open_engine(settings))


def _look_at(path: Path, which: Which) -> Look:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).digest()
    try:
        analysis = _engines[0].analyse(data, Deadline(PHOTO_SECONDS))
    except Unusable:
        return Look(sha256, None, 0)
    return Look(sha256, only(analysis, which), len(analysis.faces))


def only(analysis: Analysis, which: Which) -> Analysis:
    """The same with at most one face: the largest one, or that nearest to the centre of the photo."""

    def offset(face: Face) -> int:
        box = face.box
        return (box.left + box.right - analysis.width) ** 2 + (box.top + box.bottom - analysis.height) ** 2

    chosen = sorted(analysis.faces, key=offset)[:1] if which == "central" else analysis.faces[:1]
    return replace(analysis, faces=tuple(chosen))


def look_at_all(paths: Sequence[Path], settings: Settings, which: Which, workers: int) -> dict[Path, Look]:
    """What the engine sees in each of the photos."""
    spawning = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawning, initializer=_open, initargs=(settings,))
    pace = Pace("photos analysed", len(paths))
    looks = {}
    try:
        futures = {path: pool.submit(_look_at, path, which) for path in paths}
        for path, future in futures.items():
            looks[path] = future.result(PHOTO_SECONDS)
            pace.step()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return looks


# -- in the service --


class Memory:
    """An engine for `Service` that gives again what another one saw, so that no photo is analysed twice."""

    def __init__(self, engine: Engine, looks: Mapping[Path, Look]) -> None:
        self.model_id = engine.model_id
        self.parts = engine.parts
        self._seen = {look.sha256: look.analysis for look in looks.values()}

    def analyse(
        self, data: bytes, deadline: Deadline, *, min_face_pixels: int | None = None, chips: bool = False
    ) -> Analysis:
        """What was seen in this photo; `min_face_pixels` was the setting."""
        analysis = self._seen.get(hashlib.sha256(data).digest())
        if analysis is None:
            raise ImageUnsupported("This photo could not be read.")
        return analysis

    def load(self) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        """There is nothing to close."""
