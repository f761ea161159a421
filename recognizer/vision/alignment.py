"""A box to five landmarks and an upright chip, exactly as dlib and `face_recognition` cut it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import dlib
import numpy as np
from numpy.typing import NDArray

from recognizer.errors import ModelError
from recognizer.faces import Box, Pixels

CHIP_PIXELS = 150
CHIP_PADDING = 0.25
"""What dlib's `compute_face_descriptor` cuts for its ResNet (tools/python/src/face_recognition.cpp)."""


@dataclass(frozen=True, slots=True)
class AlignedFace:
    """The landmarks, (5, 2) int32 as x and y in pixels of the array (see `faces.Face` for their order),
    and the chip, (150, 150, 3) uint8 RGB, upright."""

    landmarks: NDArray[np.int32] = field(repr=False)
    chip: Pixels = field(repr=False)


class Aligner:
    """dlib's 5-point shape predictor; immutable, hence shared by all threads."""

    def __init__(self, landmarks_file: Path) -> None:
        try:
            self._predictor = dlib.shape_predictor(str(landmarks_file))
        except RuntimeError as error:
            raise ModelError(f"The model file {landmarks_file.name} is missing or damaged.") from error

    def align(self, pixels: Pixels, box: Box) -> AlignedFace:
        """Find the landmarks of the face in `box` and cut its chip out of `pixels`, (H, W, 3) uint8 RGB."""
        rectangle = dlib.rectangle(box.left, box.top, box.right, box.bottom)
        shape = self._predictor(pixels, rectangle)
        landmarks = np.array([(point.x, point.y) for point in shape.parts()], np.int32)
        return AlignedFace(landmarks, dlib.get_face_chip(pixels, shape, CHIP_PIXELS, CHIP_PADDING))
