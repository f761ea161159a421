"""Pixels to boxes with dlib's HOG face detector: one object per thread, its working memory given back."""

from __future__ import annotations

import math
import threading
from typing import Any

import dlib
import numpy as np

from recognizer.faces import Pixels
from recognizer.vision.detection import Detection, box_of

WINDOW_PIXELS = 72
"""Side of the smallest box the detector reports: its 80-pixel window without the margin (measured)."""

_BLANK = np.zeros((80, 80, 3), np.uint8)


class HogDetector:
    """Finds faces as `face_recognition.face_locations(pixels, upsample)` does, at a bounded cost.

    To find faces smaller than the detector's window the image is doubled in size `upsample` times, or as often
    as `min_face_pixels` needs. Where that makes more than twice `max_pixels` (0.06 s per megapixel), it is
    enlarged to `max_pixels` instead; up to there the boxes are exactly those of `face_recognition`.
    """

    def __init__(self, upsample: int, max_pixels: int) -> None:
        self._upsample = upsample
        self._max_pixels = max_pixels
        # not thread-safe: a dlib detector shared by two threads corrupts the heap
        self._local = threading.local()

    def detect(self, pixels: Pixels, min_face_pixels: float) -> list[Detection]:
        """Find the faces.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            min_face_pixels: side of the smallest box that must be found, in pixels of `pixels`.
        """
        count = pixels.shape[0] * pixels.shape[1]
        doublings = self._doublings(min_face_pixels)
        factor, searched = 1.0, pixels
        if count * 4**doublings > 2 * self._max_pixels:
            doublings, factor = 0, math.sqrt(self._max_pixels / count)
            searched = dlib.resize_image(pixels, factor)
        detector = self._detector()
        try:
            rectangles, scores, _ = detector.run(searched, doublings, 0.0)
        finally:
            del searched
            # the detector keeps the features of its last image, 50 MB for 8 megapixels: show it a small one
            detector.run(_BLANK, 0, 0.0)
        return [
            Detection(box_of(rectangle, factor), float(score))
            for rectangle, score in zip(rectangles, scores, strict=True)
        ]

    def _doublings(self, min_face_pixels: float) -> int:
        needed = math.ceil(math.log2(WINDOW_PIXELS / max(1.0, min_face_pixels)))
        return min(self._upsample, max(0, needed))

    def _detector(self) -> Any:
        if not hasattr(self._local, "detector"):
            self._local.detector = dlib.get_frontal_face_detector()
        return self._local.detector
