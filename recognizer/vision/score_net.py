"""dlib's CNN face detector as a map of scores: one for each 8 x 8 pixels, above 0 where a face fills the window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recognizer.vision.mmod_graph import INPUT, MEAN, NMS_OVERLAP, OUTPUT
from recognizer.vision.sessions import Provider, Session, open_session
from recognizer.vision.weights import load_detector

Scores = NDArray[np.float32]
"""(rows, columns) float32; element (y, x) is for the window around `centre(y)`, `centre(x)`."""

STRIDE = 8
BORDER_PIXELS = 11
"""How wide a margin dlib puts around a picture before it is searched, in the mean colour."""

BACKGROUND = np.rint(MEAN).astype(np.uint8)

_FIRST_CENTRE = 14
_SMALLEST_PIXELS = 30
"""What three convolutions of 5 x 5 and stride 2 make one score of, as an even number."""

_BATCH_PIXELS = 1_000_000
"""Pixels from which on a batch is run in parts; a single larger picture is not. A run takes about 40 bytes a pixel."""


_SCORE_TOLERANCE = 0.01
"""By how much an accelerator's scores may differ from the CPU's; 8 bits differ by up to 0.27."""


class Candidate(NamedTuple):
    """A window that may hold a face: its centre and side in pixels, and its score."""

    x: float
    y: float
    side: float
    score: float


def centre(index: float) -> float:
    """The pixel that a score's window has in its middle, along one axis (three convolutions of stride 2)."""
    return STRIDE * index + _FIRST_CENTRE


class ScoreNet:
    """The network; safe to be used by several threads at once."""

    def __init__(self, session: Session, *, quantized: bool) -> None:
        self._session = session
        self._quantized = quantized
        self.in_words = f"{session.provider}, {'8 bits' if quantized else '32 bits'}"

    def scores(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """Score equally large pictures.

        Args:
            pictures: (n, H, W, 3), H and W even; uint8 RGB, or float32 as `normalised` gives it.

        Returns:
            (n, rows, columns) float32; no rows and columns where the pictures are smaller than what a score depends on.
        """
        if min(pictures.shape[1:3]) < _SMALLEST_PIXELS:
            return np.empty((len(pictures), 0, 0), np.float32)
        count, height, width, _ = pictures.shape
        if self._quantized:
            pictures = _in_blocks(pictures)
        elif pictures.dtype == np.uint8:
            pictures = normalised(pictures)
        at_once = max(1, _BATCH_PIXELS // (height * width))
        parts = [self._session.run(OUTPUT, {INPUT: pictures[at : at + at_once]}) for at in range(0, count, at_once)]
        return np.concatenate(parts)[:, 0]


def _in_blocks(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, H, W, 3) to (n, H/2, W/2, 12): each block of 2 x 2 pixels, row by row."""
    count, height, width, _ = pictures.shape
    pairs = pictures.reshape(count, height, width * 3).view("V6")  # two pixels are moved at once
    blocks = pairs.reshape(count, height // 2, 2, width // 2).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(blocks).view(np.uint8).reshape(count, height // 2, width // 2, 12)


def open_score_net(models_dir: Path, wanted: Provider | Literal["auto"], *, quantized: bool) -> ScoreNet:
    """Load the network on an accelerator, in floating point, or on the CPU, there `quantized` if that is allowed.

    Raises:
        ModelError: the model file is missing or damaged, or what was wanted cannot run it.
    """
    sample = np.random.default_rng(0).integers(0, 255, (1, 480, 640, 3), np.uint8)
    graph = load_detector(models_dir, "float").graph
    session = open_session(graph, wanted, OUTPUT, {INPUT: normalised(sample)}, _SCORE_TOLERANCE)
    if not quantized or wanted not in ("auto", "cpu"):
        return ScoreNet(session, quantized=False)
    quick = Session(load_detector(models_dir, "int8").graph)
    if session.provider != "cpu":
        quick_seconds = quick.seconds(OUTPUT, {INPUT: _in_blocks(sample)})
        if session.seconds(OUTPUT, {INPUT: normalised(sample)}) < quick_seconds:
            return ScoreNet(session, quantized=False)
    return ScoreNet(quick, quantized=True)


def normalised(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 RGB as the network was trained with it: less the mean, divided by 256."""
    return (pixels - np.array(MEAN, np.float32)) * np.float32(1 / 256)


def strongest(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Drop every candidate that overlaps a stronger one, as dlib does; the strongest come first."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: -each.score):
        if all(_overlap(candidate, other) <= NMS_OVERLAP for other in kept):
            kept.append(candidate)
    return kept


def _overlap(a: Candidate, b: Candidate) -> float:
    """Intersection over union of two squares."""
    reach = (a.side + b.side) / 2
    width = min(a.side, b.side, reach - abs(a.x - b.x))
    height = min(a.side, b.side, reach - abs(a.y - b.y))
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (a.side**2 + b.side**2 - shared)
