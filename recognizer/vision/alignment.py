"""A box to five landmarks and upright chips, found and cut for a box exactly as dlib and `face_recognition` do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlib
import numpy as np
from numpy.typing import NDArray

from recognizer.errors import ModelError
from recognizer.faces import Box, Pixels

CHIP_PIXELS = 150
CHIP_PADDING = 0.25
"""What dlib's `compute_face_descriptor` cuts for its ResNet (tools/python/src/face_recognition.cpp)."""


CROPS = {
    # number of chips -> their paddings, and whether each is taken mirrored as well
    1: ((CHIP_PADDING,), False),
    2: ((CHIP_PADDING,), True),
    6: ((CHIP_PADDING, 0.2, 0.3), True),
}

MIN_OVERLAP = 0.3
"""Intersection over union below which a box around landmarks is not the one they were found in: they are wrong."""

# Side of the box that dlib's HOG detector puts around a face, from the distance between the eyes and from the one
# between the base of the nose and the middle of the eyes; and how far its centre lies on the way from that middle to
# the nose. Least squares over the 516 faces of Labeled Faces in the Wild (photos for developers, `people/` and
# `strangers/`) that it finds in the photos' middle; what remains is 10 % of the side, 4 % of it in each direction.
_SIDE_BY_EYES = 1.626
_SIDE_BY_NOSE = 1.179
_CENTRE_TO_NOSE = 0.569


@dataclass(frozen=True, slots=True)
class AlignedFace:
    """The box, in pixels of the array, in which the landmarks were found; the landmarks, (5, 2) int32 as x and y in
    pixels of the array (see `faces.Face` for their order); the chips, each (150, 150, 3) uint8 RGB, upright, the
    first of them dlib's own."""

    box: Box
    landmarks: NDArray[np.int32] = field(repr=False)
    chips: tuple[Pixels, ...] = field(repr=False)


class Aligner:
    """dlib's 5-point shape predictor; immutable, hence shared by all threads."""

    def __init__(self, landmarks_file: Path, crops: int = 1) -> None:
        """Read the predictor; `crops` is the number of chips of each face, one of `CROPS`."""
        self._paddings, self._mirrored = CROPS[crops]
        try:
            self._predictor = dlib.shape_predictor(str(landmarks_file))
        except RuntimeError as error:
            raise ModelError(f"The model file {landmarks_file.name} is missing or damaged.") from error

    def align(self, pixels: Pixels, box: Box, *, settle: bool = False) -> AlignedFace:
        """Find the landmarks of the face in `box` and cut its chips out of `pixels`, (H, W, 3) uint8 RGB.

        The landmarks, and so the embedding, depend a little on the box. With `settle` they are found a second time,
        in the box that dlib's HOG detector would put around the first ones: that takes the difference between
        detectors away.
        """
        shape = self._predictor(pixels, _rectangle(box))
        if settle and (better := _box_around(_points(shape))).overlap(box) >= MIN_OVERLAP:
            box = better
            shape = self._predictor(pixels, _rectangle(box))
        chips = [dlib.get_face_chip(pixels, shape, CHIP_PIXELS, padding) for padding in self._paddings]
        if self._mirrored:
            chips += [np.ascontiguousarray(chip[:, ::-1]) for chip in chips]
        return AlignedFace(box, _points(shape).astype(np.int32), tuple(chips))


def _rectangle(box: Box) -> Any:
    return dlib.rectangle(box.left, box.top, box.right, box.bottom)


def _points(shape: Any) -> NDArray[np.float64]:
    return np.array([(point.x, point.y) for point in shape.parts()], np.float64)


def _box_around(points: NDArray[np.float64]) -> Box:
    """The box that dlib's HOG detector would put around five landmarks."""
    left_eye, right_eye, nose = points[:2].mean(axis=0), points[2:4].mean(axis=0), points[4]
    middle = (left_eye + right_eye) / 2
    side = _SIDE_BY_EYES * np.hypot(*(left_eye - right_eye)) + _SIDE_BY_NOSE * np.hypot(*(nose - middle))
    x, y = middle + _CENTRE_TO_NOSE * (nose - middle)
    reach = side / 2
    return Box(*(round(float(edge)) for edge in (x - reach, y - reach, x + reach, y + reach)))
