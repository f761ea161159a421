"""What `engine.py` measures: the stages of the engine, and what face_recognition and dlib do at the same stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import dlib
import numpy as np
from _photos import Photo
from _report import import_face_recognition

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.faces import Box, Pixels
from recognizer.vision.alignment import CHIP_PADDING, CHIP_PIXELS
from recognizer.vision.detection import Detector
from recognizer.vision.engine import OnnxEngine
from recognizer.vision.exact_cnn import ExactCnnDetector
from recognizer.vision.fast_cnn import FastCnnDetector
from recognizer.vision.hog import HogDetector
from recognizer.vision.images import decoded
from recognizer.vision.score_net import open_score_net
from recognizer.vision.weights import DETECTOR, RESNET, landmarks_file

FEWEST_ROUNDS, MOST_ROUNDS = 3, 9
PHOTO_SECONDS = 600.0
ANY_SIZE = 2**40
"""Pixels: lets the exact detector enlarge a photo as dlib's does, however large it becomes."""

WARM_UP_PIXELS = 160

DLIB_CNN = "dlib CNN"


class Comparison(NamedTuple):
    """One of our tasks against one of theirs; with `per_face` the times are of one face, else of the photo."""

    stage: str
    ours: str
    theirs: str
    per_face: bool = False


COMPARISONS = (
    Comparison("decode", "decode", "face_recognition.load_image_file"),
    Comparison("decode", "decode", "dlib.load_rgb_image"),
    Comparison("detect", "cnn", "dlib HOG, upsample 1"),
    Comparison("detect", "cnn", DLIB_CNN),
    Comparison("detect", "cnn_exact", DLIB_CNN),
    Comparison("detect", "hog, upsample 0", "dlib HOG, upsample 0"),
    Comparison("detect", "hog, upsample 1", "dlib HOG, upsample 1"),
    Comparison("align", "landmarks and chips", "dlib landmarks and chip", per_face=True),
    Comparison("encode", "encode", "dlib compute_face_descriptor", per_face=True),
    Comparison("whole photo", "bytes to embeddings", "face_recognition"),
)
"""`face_recognition` detects with dlib's HOG and upsample 1 unless told otherwise. dlib's `compute_face_descriptor`
also cuts the chip, a hundredth of its time. Both CNN detectors, ours that is exact and dlib's, do not enlarge here."""


Task = Callable[[], "int | None"]
"""Gives the number of faces it found, where it looks for faces."""


class Times(NamedTuple):
    """Median seconds of processor time of each task with one photo, how many faces those that look for faces found,
    and how many were aligned and encoded."""

    seconds: Mapping[str, float]
    found: Mapping[str, int | None]
    faces: int

    def ratio(self, comparison: Comparison) -> float | None:
        """How many times longer theirs takes; None where it was left out."""
        if comparison.theirs not in self.seconds:
            return None
        return self.seconds[comparison.theirs] / max(1e-9, self.seconds[comparison.ours])


class Detectors:
    """All of them, loaded once: ours by the settings' names, dlib's own."""

    def __init__(self, settings: Settings, exact_upsample: int) -> None:
        working, folder = settings.working_pixels, settings.models_dir
        exact = open_score_net(folder, settings.providers, quantized=False)
        fast = open_score_net(folder, settings.providers, quantized=True)
        self._ours: dict[str, tuple[Detector, float]] = {
            # the exact one enlarges only for faces smaller than its window
            "cnn": (FastCnnDetector(fast, working), settings.min_face_pixels),
            "cnn_exact": (ExactCnnDetector(exact, exact_upsample, ANY_SIZE), 1.0),
            "hog, upsample 0": (HogDetector(0, working), settings.min_face_pixels),
            "hog, upsample 1": (HogDetector(1, working), settings.min_face_pixels),
        }
        self.names = tuple(self._ours)
        self._dlib_hog = dlib.get_frontal_face_detector()
        self._dlib_cnn = dlib.cnn_face_detection_model_v1(str(_dlib_model(DETECTOR)))
        for name in self.names:
            # the first search of a thread also loads: 0.25 s for HOG
            self.ours(name, np.zeros((WARM_UP_PIXELS, WARM_UP_PIXELS, 3), np.uint8))

    def ours(self, name: str, pixels: Pixels, scale: float = 1.0) -> list[Box]:
        """Boxes in pixels of the array, which is `scale` times as large as the photo was."""
        detector, smallest = self._ours[name]
        return [found.box for found in detector.detect(pixels, smallest * scale)]

    def dlib_hog(self, pixels: Pixels, upsample: int) -> list[Box]:
        return [_box(rectangle) for rectangle in self._dlib_hog(pixels, upsample)]

    def dlib_cnn(self, pixels: Pixels, upsample: int) -> list[Box]:
        return [_box(found.rect) for found in self._dlib_cnn(pixels, upsample)]


class Stages:
    """Every contender, loaded once."""

    def __init__(self, settings: Settings, dlib_cnn_pixels: int) -> None:
        self._engine = OnnxEngine(settings)
        self._detectors = Detectors(settings, exact_upsample=0)
        self._dlib_cnn_pixels = dlib_cnn_pixels
        self._face_recognition = import_face_recognition()
        self._predictor = dlib.shape_predictor(str(landmarks_file()))
        self._resnet = dlib.face_recognition_model_v1(str(_dlib_model(RESNET)))

    def find(self, photo: bytes) -> list[Box]:
        """The faces that the engine finds."""
        return [face.box for face in self._engine.analyse(photo, Deadline(PHOTO_SECONDS)).faces]

    def times(self, photo: Photo, path: Path, seconds: float) -> Times:
        """Measure all tasks in turns for about so many seconds; `path` is where the photo lies."""
        path.write_bytes(photo.data)
        with ExitStack() as opened:
            image = opened.enter_context(decoded(photo.data, self._engine._limits))
            theirs = self._face_recognition.load_image_file(path)
            boxes = self._detectors.ours("cnn", image.pixels, image.scale)
            tasks = {
                **self._decoding(photo.data, path),
                **self._detecting(image.pixels, image.scale, theirs),
                **self._faces(image.pixels, image.scale, theirs, boxes),
                **self._whole(photo.data, path),
            }
            return Times(*_medians(tasks, seconds), len(boxes))

    def _decoding(self, data: bytes, path: Path) -> dict[str, Task]:
        def decode() -> None:
            with decoded(data, self._engine._limits):
                pass

        return {
            "decode": decode,
            "face_recognition.load_image_file": lambda: _nothing(self._face_recognition.load_image_file(path)),
            "dlib.load_rgb_image": lambda: _nothing(dlib.load_rgb_image(str(path))),
        }

    def _detecting(self, pixels: Pixels, scale: float, theirs: Pixels) -> dict[str, Task]:
        """Ours are given what our decoding gives, at most `working_pixels`; theirs all that the photo has."""
        detectors = self._detectors
        tasks: dict[str, Task] = {
            name: lambda name=name: len(detectors.ours(name, pixels, scale)) for name in detectors.names
        }
        for upsample in (0, 1):
            tasks[f"dlib HOG, upsample {upsample}"] = lambda upsample=upsample: len(
                detectors.dlib_hog(theirs, upsample)
            )
        if theirs.shape[0] * theirs.shape[1] <= self._dlib_cnn_pixels:
            tasks[DLIB_CNN] = lambda: len(detectors.dlib_cnn(theirs, 0))
        return tasks

    def _faces(self, pixels: Pixels, scale: float, theirs: Pixels, boxes: Sequence[Box]) -> dict[str, Task]:
        """The same faces for both, each in its own pixels."""
        engine = self._engine
        rectangles = [dlib.rectangle(*(round(edge / scale) for edge in _edges(box))) for box in boxes]
        shapes = [self._predictor(theirs, rectangle) for rectangle in rectangles]

        def align() -> list[Any]:
            return [engine._aligner.align(pixels, box, settle=engine._settle) for box in boxes]

        def dlib_align() -> None:
            for rectangle in rectangles:
                shape = self._predictor(theirs, rectangle)
                dlib.get_face_chip(theirs, shape, CHIP_PIXELS, CHIP_PADDING)

        def dlib_encode() -> None:
            for shape in shapes:  # as face_recognition calls it, one by one
                np.array(self._resnet.compute_face_descriptor(theirs, shape, 1))

        aligned = align()
        return {
            "landmarks and chips": lambda: _nothing(align()),
            "dlib landmarks and chip": dlib_align,
            "encode": lambda: _nothing(engine._encode(pixels, aligned, Deadline(PHOTO_SECONDS))),
            "dlib compute_face_descriptor": dlib_encode,
        }

    def _whole(self, data: bytes, path: Path) -> dict[str, Task]:
        library = self._face_recognition

        def face_recognition() -> int:
            picture = library.load_image_file(path)
            return len(library.face_encodings(picture, library.face_locations(picture)))

        return {"bytes to embeddings": lambda: len(self.find(data)), "face_recognition": face_recognition}


def _nothing(result: object) -> None:
    """Makes a task, which tells of faces only, of what gives something else."""


def _medians(tasks: Mapping[str, Task], seconds: float) -> tuple[dict[str, float], dict[str, int | None]]:
    """The tasks take turns, another one first each time; dlib's CNN, which takes so much longer, has one turn."""
    names, spent, began = list(tasks), defaultdict(list), time.monotonic()
    found: dict[str, int | None] = {}
    for turn in range(MOST_ROUNDS):
        if turn >= FEWEST_ROUNDS and time.monotonic() - began > seconds:
            break
        for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
            if name == DLIB_CNN and turn:
                continue
            started = time.thread_time()
            found[name] = tasks[name]()
            spent[name].append(time.thread_time() - started)
    return {name: median(times) for name, times in spent.items()}, found


def _dlib_model(name: str) -> Path:
    return landmarks_file().with_name(name)


def _box(rectangle: Any) -> Box:
    return Box(rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom())


def _edges(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.right, box.bottom
