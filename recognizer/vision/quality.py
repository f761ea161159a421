"""What makes a face good or bad evidence, from what has been computed anyway: landmarks, chip, detection score.

The score is the product of six factors between 0 and 1, each a straight line between a value at which the
face is worthless and one from which on it is as good as any; a factor below one half is named as an issue.
The product, because each flaw spoils an embedding whatever else is right.

The lines come from 80 people of Labeled Faces in the Wild, five photos each: one photo was made worse step
by step, and the mean distance between its embedding and those of the other photos of that person (0.439
unspoilt, 0.62 to the nearest stranger) was compared. The good end is where that distance has grown by
about 0.01, the middle by about 0.03 to 0.05, the worthless end beyond 0.08.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from recognizer.faces import Pixels, Quality
from recognizer.vision.alignment import AlignedFace

SMALL_FACE: Final = "SMALL_FACE"
LOW_SHARPNESS: Final = "LOW_SHARPNESS"
TOO_DARK: Final = "TOO_DARK"
TOO_BRIGHT: Final = "TOO_BRIGHT"
LOW_CONTRAST: Final = "LOW_CONTRAST"
FACE_TURNED: Final = "FACE_TURNED"

# (worthless, good); what was measured as (value: distance to the same person's other photos)
_EYE_DISTANCE_PIXELS = (6.0, 24.0)  # reduced photos: 20: 0.443, 16: 0.448, 12: 0.468, 10: 0.490, 8: 0.522
_SHARPNESS = (0.09, 0.29)  # blurred: 0.34: 0.450, 0.25: 0.465, 0.18: 0.486, 0.12: 0.532, 0.09: 0.576
_BRIGHTNESS_LOW = (5.0, 45.0)  # darkened: 37: 0.456, 25: 0.469, 12: 0.517
_BRIGHTNESS_HIGH = (250.0, 190.0)  # brightened: 194: 0.457, 221: 0.490, 240: 0.542
_CONTRAST = (2.0, 13.0)  # flattened: 19: 0.446, 11: 0.460, 7.4: 0.482, 3.7: 0.544
_TURN = (1.1, 0.4)  # as found: the most turned 5 % (above 0.56) 0.491
_TILT = (1.35, 0.95)  # as found: the most tilted 5 % (above 0.96) 0.495
_DETECTION_SCORE = (-0.5, 0.5)  # as found: below 0.5 0.450, above 2.5 0.412; a doubtful face counts half

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_FACE = np.s_[25:135, 25:125]
"""Rows and columns of a chip that show the face and little else."""


def assess(face: AlignedFace, detection_score: float) -> Quality:
    """Judge an aligned face; its landmarks count in the pixels it was cut from."""
    eyes, turn, tilt = _pose(face.landmarks)
    sharpness, brightness, contrast = _light(face.chips[0])
    factors = {
        SMALL_FACE: _factor(eyes, _EYE_DISTANCE_PIXELS),
        LOW_SHARPNESS: _factor(sharpness, _SHARPNESS),
        TOO_DARK: _factor(brightness, _BRIGHTNESS_LOW),
        TOO_BRIGHT: _factor(brightness, _BRIGHTNESS_HIGH),
        LOW_CONTRAST: _factor(contrast, _CONTRAST),
        FACE_TURNED: min(_factor(turn, _TURN), _factor(tilt, _TILT)),
    }
    score = _factor(detection_score, _DETECTION_SCORE)
    for factor in factors.values():
        score *= factor
    issues = tuple(word for word, factor in factors.items() if factor < 0.5)
    return Quality(round(score, 3), issues)


def _factor(value: float, line: tuple[float, float]) -> float:
    worthless, good = line
    return min(1.0, max(0.0, (value - worthless) / (good - worthless)))


def _pose(landmarks: NDArray[np.int32]) -> tuple[float, float, float]:
    """From the five points, (5, 2): pixels between the eyes; turn, 0 when the base of the nose lies midway
    between the eyes and 1 when it lies below one of them; tilt, how far below their line, in eye distances."""
    points = landmarks.astype(np.float64)
    left, right, nose = points[:2].mean(axis=0), points[2:4].mean(axis=0), points[4]
    axis = left - right
    distance = float(np.hypot(*axis))
    if distance == 0.0:
        return 0.0, np.inf, np.inf
    along, across = (nose - right) @ axis, (nose - right) @ np.array([-axis[1], axis[0]])
    return distance, abs(float(along) / distance**2 - 0.5) * 2, abs(float(across)) / distance**2


def _light(chip: Pixels) -> tuple[float, float, float]:
    """From a chip, (150, 150, 3) uint8 RGB: sharpness, the standard deviation of the Laplacian divided by that
    of the luma; brightness, the mean luma (0..255); contrast, its standard deviation.

    The Laplacian is taken at half the size: at full size what rounding and JPEG add is more than what a heavy
    blur leaves, and a face would seem the sharper, the more it is blurred.
    """
    luma = chip[_FACE].astype(np.float32) @ _LUMA
    rows, columns = luma.shape
    half = luma[: rows // 2 * 2, : columns // 2 * 2].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    laplacian = 4 * half[1:-1, 1:-1] - half[:-2, 1:-1] - half[2:, 1:-1] - half[1:-1, :-2] - half[1:-1, 2:]
    contrast = float(luma.std())
    return float(laplacian.std()) / max(contrast, 1.0), float(luma.mean()), contrast
