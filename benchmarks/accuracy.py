"""How often the engine tells rightly whether two photos show the same person: ten folds, as LFW is measured.

    python benchmarks/accuracy.py --pairs ../shared/faces/pairs.csv --root ../shared/faces --reference
    python benchmarks/accuracy.py --pairs pairs.txt --root lfw --variant upsample=0 --variant upsample=1

`--variant` is a row: settings of the service as name=value, several with commas; without any there is one row with the
settings as they are. All rows look at every photo in turn and are compared with the first one pair by pair.

Of several faces the one nearest to the centre of the photo is taken. Where no face is found, the centre of the photo is
taken for one, as dlib does for its own figure on LFW; how many photos that are is reported, and the accuracy where
their pairs count as wrong. Each fold is judged with the threshold that is best on the nine others.

Milliseconds are of processor time, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _report import import_face_recognition, progress, save_picture, settings_of, table
from _verification import (
    Pair,
    mcnemar,
    mean_and_error,
    read_pairs,
    right_in_folds,
    roc,
    true_match_rate,
)

from recognizer import comparing, config
from recognizer.config import Settings, available_cores
from recognizer.deadline import Deadline
from recognizer.decisions import TargetRule
from recognizer.errors import RecognizerError
from recognizer.faces import Box
from recognizer.vision.analysis import PhotoEngine
from recognizer.vision.engine import open_engine
from recognizer.vision.images import decoded

TARGETS = (0.01, 0.003, 0.001)
FALSE_MATCH_RATES = (1e-1, 1e-2, 1e-3, 1e-4)
REFERENCE = "face_recognition"
REFERENCE_THRESHOLD = 0.6
PHOTO_SECONDS = 600.0
CENTRAL_SHARE = 0.42
"""Side of the face that is assumed where none is found, as a share of the photo's shorter side: the median of the
boxes that dlib finds in LFW's photos, whose middle is the photo's within 4 of 250 pixels."""


@dataclass(frozen=True)
class Look:
    """What one row saw in one photo, and the seconds that took; `faces` is 0 where the centre was taken instead."""

    embedding: NDArray[np.float32]
    faces: int
    photo_cpu: float
    photo_wall: float
    faces_cpu: float


class Row(Protocol):
    """A way to get an embedding from a photo."""

    def look(self, path: Path) -> Look: ...


# -- one photo --


class EngineRow:
    """The engine with some settings."""

    def __init__(self, settings: Settings) -> None:
        engine = open_engine(settings)
        assert isinstance(engine, PhotoEngine)
        self._engine = engine

    def look(self, path: Path) -> Look:
        data = path.read_bytes()
        cpu, wall = time.process_time(), time.perf_counter()
        analysis = self._engine.analyse(data, Deadline(PHOTO_SECONDS))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        timings = analysis.timings_ms
        of_faces = (timings["align"] + timings["encode"]) / max(1e-9, sum(timings.values()))
        if analysis.faces:
            chosen = most_central([face.box for face in analysis.faces], analysis.width, analysis.height)
            embedding = analysis.faces[chosen].embedding
        else:
            embedding = centre_of(self._engine, data)
        return Look(embedding, len(analysis.faces), cpu, wall, cpu * of_faces)


def centre_of(engine: PhotoEngine, data: bytes) -> NDArray[np.float32]:
    """The embedding of the photo's centre, by the engine's own stages: no service ever asks for that."""
    with decoded(data, engine._limits) as image:
        box = central_box(image.pixels.shape[1], image.pixels.shape[0])
        aligned = engine._aligner.align(image.pixels, box)
        return engine._encode(image.pixels, [aligned], Deadline(PHOTO_SECONDS))[0]


class ReferenceRow:
    """face_recognition as its documentation shows it."""

    def __init__(self) -> None:
        self._library = import_face_recognition()

    def look(self, path: Path) -> Look:
        library = self._library
        cpu, wall = time.process_time(), time.perf_counter()
        picture = library.load_image_file(path)
        boxes = library.face_locations(picture)
        found = time.process_time()
        embeddings = library.face_encodings(picture, boxes)
        ended = time.process_time()
        wall = time.perf_counter() - wall
        height, width = picture.shape[:2]
        if boxes:
            faces = [Box(left, top, right, bottom) for top, right, bottom, left in boxes]
            embedding = embeddings[most_central(faces, width, height)]
        else:
            box = central_box(width, height)
            (embedding,) = library.face_encodings(picture, [(box.top, box.right, box.bottom, box.left)])
        return Look(np.asarray(embedding, np.float32), len(boxes), ended - cpu, wall, ended - found)


def most_central(boxes: Sequence[Box], width: int, height: int) -> int:
    """Which of the faces is nearest to the centre of the photo."""
    offsets = [(box.left + box.right - width) ** 2 + (box.top + box.bottom - height) ** 2 for box in boxes]
    return offsets.index(min(offsets))


def central_box(width: int, height: int) -> Box:
    half = round(CENTRAL_SHARE * min(width, height) / 2)
    return Box(width // 2 - half, height // 2 - half, width // 2 + half, height // 2 + half)


# -- all photos --

_rows: list[Row] = []
"""Of this worker process."""


def _open_rows(variants: Sequence[Settings], reference: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    _rows.extend(EngineRow(settings) for settings in variants)
    if reference:
        _rows.append(ReferenceRow())


def _look_at(path: Path, turn: int) -> list[Look]:
    """All rows look at a photo, another one first each time."""
    order = [(number + turn) % len(_rows) for number in range(len(_rows))]
    looks = {number: _rows[number].look(path) for number in order}
    return [looks[number] for number in range(len(_rows))]


def look_at_all(
    paths: Sequence[Path], variants: Sequence[Settings], reference: bool, workers: int
) -> Iterator[list[Look]]:
    """What the rows saw, photo by photo."""
    spawning = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawning, initializer=_open_rows, initargs=(variants, reference))
    try:
        futures = [pool.submit(_look_at, path, turn) for turn, path in enumerate(paths)]
        for number, (path, future) in enumerate(zip(paths, futures, strict=True), 1):
            try:
                yield future.result(PHOTO_SECONDS)
            except RecognizerError as error:
                raise ValueError(f"{path} cannot be used. {error}") from error
            if number % 20 == 0 or number == len(paths):
                progress(f"{number} of {len(paths)} photos", last=number == len(paths))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# -- the report --


@dataclass(frozen=True)
class Result:
    """One row over all pairs."""

    name: str
    looks: list[Look]
    distances: NDArray[np.float64]
    undetected: NDArray[np.bool_]
    """Pairs with a photo in which no face was found."""
    right: NDArray[np.bool_]
    right_at_setting: float
    threshold: float


def results_of(
    pairs: Sequence[Pair], photos: Sequence[str], names: Sequence[str], looks: Sequence[list[Look]], limits: list[float]
) -> list[Result]:
    """`looks` by photo, then by row; `limits` are the rows' own thresholds."""
    index = {photo: number for number, photo in enumerate(photos)}
    a, b = (np.array([index[photo] for photo in side]) for side in zip(*((p.a, p.b) for p in pairs), strict=True))
    same, folds = np.array([pair.same for pair in pairs]), np.array([pair.fold for pair in pairs])
    results = []
    for number, (name, limit) in enumerate(zip(names, limits, strict=True)):
        own = [of_photo[number] for of_photo in looks]
        embeddings = np.array([look.embedding for look in own], np.float64)
        missing = np.array([look.faces == 0 for look in own])
        distances = np.linalg.norm(embeddings[a] - embeddings[b], axis=1)
        right = right_in_folds(distances, same, folds)
        at_setting = float(((distances <= limit) == same).mean())
        results.append(Result(name, own, distances, missing[a] | missing[b], right, at_setting, limit))
    return results


def report(results: Sequence[Result], pairs: Sequence[Pair], photos: Sequence[str]) -> None:
    same, folds = np.array([pair.same for pair in pairs]), np.array([pair.fold for pair in pairs])
    print(f"{same.sum()} same and {(~same).sum()} different pairs of {len(results[0].looks)} photos\n")
    head = ("accuracy, %", "mean", "std. error", "no face = wrong", "at setting", "photos without face", "their pairs")
    print(table(head, (_accuracy_row(result, folds) for result in results)))
    rates = [f"FMR {rate:g}" for rate in FALSE_MATCH_RATES]
    print("\n" + table(("matches of the same person, %", *rates), (_roc_row(result, same) for result in results)))
    for rate in FALSE_MATCH_RATES:
        expected = rate * (~same).sum()
        if 1 <= expected < 10:
            print(f"FMR {rate:g} rests on {int(expected)} of the different pairs: rather a hint than a figure.")
        elif expected < 1:
            print(f"FMR {rate:g} cannot be measured: it takes {round(1 / rate):,} different pairs.")
    head = ("as /v1/verify decides, FMR and FNMR, %", *(f"target_fpir {target:g}" for target in TARGETS))
    print("\n" + table(head, (_verified_row(result, pairs, photos) for result in results)))
    head = ("processor time, ms", "per face", "per photo", "faces", "elapsed per photo", "ratio to the first")
    print("\n" + table(head, (_time_row(result, results[0]) for result in results)))
    if len(results) > 1:
        head = (
            f"against `{results[0].name}`",
            "accuracy",
            "std. error",
            "only it right",
            "only first",
            "p (McNemar)",
            "",
        )
        print("\n" + table(head, (_difference_row(result, results[0], folds) for result in results[1:])))


def _accuracy_row(result: Result, folds: NDArray[np.int_]) -> tuple[object, ...]:
    mean, error = mean_and_error(result.right.astype(float), folds)
    strict, _ = mean_and_error((result.right & ~result.undetected).astype(float), folds)
    figures = f"{mean:.2%}", f"{error:.2%}", f"{strict:.2%}", f"{result.right_at_setting:.2%} ({result.threshold:g})"
    undetected = sum(look.faces == 0 for look in result.looks)
    return result.name, *(figure.replace("%", "") for figure in figures), undetected, int(result.undetected.sum())


def _roc_row(result: Result, same: NDArray[np.bool_]) -> tuple[object, ...]:
    rates = (true_match_rate(result.distances, same, rate) for rate in FALSE_MATCH_RATES)
    return result.name, *("-" if rate is None else f"{rate * 100:.2f}" for rate in rates)


def _verified_row(result: Result, pairs: Sequence[Pair], photos: Sequence[str]) -> tuple[object, ...]:
    """Different people called the same, and the same person missed, by the rule for comparing one to one."""
    embedding = {photo: look.embedding for photo, look in zip(photos, result.looks, strict=True)}
    same = np.array([pair.same for pair in pairs])
    cells = []
    for target in TARGETS:
        rule = TargetRule(target, people=1, shift=0.0)
        found = (comparing.compare(embedding[pair.a], embedding[pair.b][None], rule) for pair in pairs)
        called = np.array([candidate.score >= 0 for candidate in found])
        cells.append(f"{called[~same].mean() * 100:.2f} {(~called[same]).mean() * 100:.2f}")
    return result.name, *cells


def _time_row(result: Result, first: Result) -> tuple[object, ...]:
    def per_photo(of: Result) -> float:
        return float(np.mean([look.photo_cpu for look in of.looks]))

    faces = sum(look.faces for look in result.looks)
    face = sum(look.faces_cpu for look in result.looks) / max(1, faces)
    wall = np.mean([look.photo_wall for look in result.looks])
    times = (f"{face * 1000:.1f}", f"{per_photo(result) * 1000:.1f}", faces, f"{wall * 1000:.1f}")
    return result.name, *times, f"{per_photo(result) / per_photo(first):.2f}"


def _difference_row(result: Result, first: Result, folds: NDArray[np.int_]) -> tuple[object, ...]:
    """Better or worse by how much, and whether chance would do that too."""
    mean, error = mean_and_error(result.right.astype(float) - first.right.astype(float), folds)
    only_it, only_first, chance = mcnemar(result.right, first.right)
    verdict = "a difference" if chance < 0.05 else "may be chance"
    return result.name, f"{mean * 100:+.2f}", f"{error * 100:.2f}", only_it, only_first, f"{chance:.3f}", verdict


def drawing(results: Sequence[Result], pairs: Sequence[Pair]) -> Callable[[Any], None]:
    """Draws the ROC curves."""
    same = np.array([pair.same for pair in pairs])

    def draw(panels: Any) -> None:
        panel, lowest = panels[0][0], 1.0
        for number, result in enumerate(results):
            wrong, right = roc(result.distances, same)
            lowest = min(lowest, right[wrong > 0][0])
            # the first ones are wider, so that they are seen beneath the others
            panel.step(wrong, right, where="post", label=result.name, linewidth=1.5 * (len(results) - number))
        panel.set(xlabel="different people that match", ylabel="same person that matches", xscale="log")
        panel.set(xlim=(1 / (~same).sum(), 1), ylim=(lowest - 0.02, 1.002))
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize="small", loc="lower right")

    return draw


# -- the command --


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="CSV with a,b,same, or a pairs.txt of LFW")
    parser.add_argument("--root", type=Path, required=True, help="folder that the photos' paths begin in")
    parser.add_argument("--variant", action="append", metavar="NAME=VALUE,...", help="a row; repeatable")
    parser.add_argument("--reference", action="store_true", help="a row for face_recognition itself")
    parser.add_argument("--workers", type=int, default=available_cores(), help="photos at a time (one per core)")
    parser.add_argument("--picture", type=Path, default=Path("benchmark-accuracy.png"), help="(%(default)s)")
    options = parser.parse_args()
    if options.workers < 1:
        parser.error("--workers must be at least 1.")
    return options


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[Result], list[Pair], list[str]]:
    """Check everything that can be wrong, then look at the photos."""
    texts = options.variant or [""]
    own = {"data_dir": folder, "workers": 1}
    variants = [config.load({**settings_of(text.split(",") if text else ()), **own}) for text in texts]
    pairs = read_pairs(options.pairs)
    photos = sorted({photo for pair in pairs for photo in (pair.a, pair.b)})
    absent = [photo for photo in photos if not (options.root / photo).is_file()]
    if absent:
        raise ValueError(f"{len(absent)} of {len(photos)} photos are not below {options.root}: {absent[0]}, ...")
    names = [text or "settings as they are" for text in texts] + [REFERENCE] * options.reference
    thresholds = [settings.threshold or REFERENCE_THRESHOLD for settings in variants] + [
        REFERENCE_THRESHOLD
    ] * options.reference
    paths = [options.root / photo for photo in photos]
    looks = list(look_at_all(paths, variants, options.reference, options.workers))
    return results_of(pairs, photos, names, looks, thresholds), pairs, photos


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            results, pairs, photos = measure(options, Path(folder))
        except (RecognizerError, ValueError, OSError, BrokenProcessPool) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
    report(results, pairs, photos)
    save_picture(options.picture, 1, 1, drawing(results, pairs))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
