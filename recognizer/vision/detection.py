"""What every detector has in common: pixels to boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from recognizer.faces import Box, Pixels


@dataclass(frozen=True, slots=True)
class Detection:
    """A face's box in pixels of the array it was found in, and the detector's score (0: its decision point)."""

    box: Box
    score: float


class Detector(Protocol):
    """Finds faces; safe to be used by several threads at once."""

    def detect(self, pixels: Pixels, min_face_pixels: float) -> list[Detection]:
        """Find the faces.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            min_face_pixels: side of the smallest box that must be found, in pixels of `pixels`.
        """


def box_of(rectangle: Any, factor: float = 1.0) -> Box:
    """A dlib rectangle in an image enlarged by `factor` as a Box of the original."""
    return Box(
        round(rectangle.left() / factor),
        round(rectangle.top() / factor),
        round(rectangle.right() / factor),
        round(rectangle.bottom() / factor),
    )
