"""What `engine.py` measures on labelled photos: how many faces each detector finds, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _photos import read_labels
from _report import import_face_recognition, photos_in, progress
from _stages import DLIB_CNN, Detectors

from recognizer.config import Settings
from recognizer.faces import Box, Pixels

SAME_FACE = 0.3
SAME_BOX = 0.9
BASE = "dlib HOG, upsample 1"
"""What the times are compared with: face_recognition's default."""


@dataclass
class Found:
    """What one detector found so far; `extra` boxes are on no labelled face, or a second one on the same."""

    photos: int = 0
    labelled: int = 0
    right: int = 0
    extra: int = 0
    seconds: float = 0.0

    def add(self, labels: Sequence[Box], boxes: Sequence[Box], overlap: float, seconds: float = 0.0) -> None:
        pairs = paired(labels, boxes, overlap)
        self.photos += 1
        self.labelled += len(labels)
        self.right += pairs
        self.extra += len(boxes) - pairs
        self.seconds += seconds


@dataclass
class Findings:
    """Every detector against the labels, and the exact one against dlib's CNN."""

    detectors: dict[str, Found] = field(default_factory=dict)
    exact: Found = field(default_factory=Found)


def paired(labels: Sequence[Box], boxes: Sequence[Box], overlap: float) -> int:
    """How many pairs of a label and a box overlap so much, each in one pair at most; the closest pair first."""
    overlaps = [(a.overlap(b), i, j) for i, a in enumerate(labels) for j, b in enumerate(boxes)]
    taken_labels: set[int] = set()
    taken_boxes: set[int] = set()
    for shared, label, box in sorted(overlaps, reverse=True):
        if shared >= overlap and label not in taken_labels and box not in taken_boxes:
            taken_labels.add(label)
            taken_boxes.add(box)
    return len(taken_labels)


def findings_in(folder: Path, settings: Settings, dlib_cnn_pixels: int) -> Findings:
    """Let all detectors search all photos of a folder with a boxes.csv, in turns.

    Raises:
        ValueError: there are no labels.
    """
    labels, library = read_labels(folder), import_face_recognition()
    if not labels:
        raise ValueError(f"there is no boxes.csv with labels in {folder}.")
    detectors, findings = Detectors(settings, settings.upsample), Findings()
    paths = photos_in(folder)
    for number, path in enumerate(paths, 1):
        pixels = library.load_image_file(path)
        with_dlib_cnn = pixels.shape[0] * pixels.shape[1] * 4**settings.upsample <= dlib_cnn_pixels
        searches = _searches(detectors, pixels, settings.upsample, with_dlib_cnn)
        boxes = _search(searches, number, labels[path.name], findings.detectors)
        if with_dlib_cnn:
            findings.exact.add(boxes[DLIB_CNN], boxes["cnn_exact"], SAME_BOX)
        progress(f"{number} of {len(paths)} labelled photos", last=number == len(paths))
    return findings


def _searches(
    detectors: Detectors, pixels: Pixels, upsample: int, with_dlib_cnn: bool
) -> dict[str, Callable[[], list[Box]]]:
    searches: dict[str, Callable[[], list[Box]]] = {BASE: lambda: detectors.dlib_hog(pixels, 1)}
    for name in detectors.names:
        searches[name] = lambda name=name: detectors.ours(name, pixels)
    if with_dlib_cnn:
        searches[DLIB_CNN] = lambda: detectors.dlib_cnn(pixels, upsample)
    return searches


def _search(
    searches: Mapping[str, Callable[[], list[Box]]], turn: int, labels: Sequence[Box], found: dict[str, Found]
) -> dict[str, list[Box]]:
    """The boxes of one photo by detector; another one is first each time."""
    names = list(searches)
    boxes = {}
    for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
        started = time.thread_time()
        boxes[name] = searches[name]()
        found.setdefault(name, Found()).add(labels, boxes[name], SAME_FACE, time.thread_time() - started)
    return {name: boxes[name] for name in names}
