"""One photo from bytes to faces, stage by stage, bounded in concurrency and time; what both engines share."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.faces import Analysis, Box, Face, Pixels
from recognizer.vision.alignment import CHIP_PADDING, CHIP_PIXELS, AlignedFace, Aligner
from recognizer.vision.detection import Detection
from recognizer.vision.gate import Gate
from recognizer.vision.images import ImageLimits, decoded
from recognizer.vision.quality import assess
from recognizer.vision.weights import landmarks_file, landmarks_sha256

LOGGER = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0


def model_id(resnet_sha256: str) -> str:
    """The name of everything that shapes an embedding; equal names, comparable embeddings."""
    landmarks = landmarks_sha256()
    return f"dlib-resnet-v1-{resnet_sha256[:8]}/5pt-{landmarks[:8]}/chip{CHIP_PIXELS}-{CHIP_PADDING}/1crop"


class PhotoEngine(ABC):
    """Analyses photos; a subclass says how faces are detected and encoded."""

    def __init__(self, settings: Settings, *, model_id: str, slots: int) -> None:
        self.model_id = model_id
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.working_pixels)
        self._min_face_pixels = settings.min_face_pixels
        self._aligner = Aligner(landmarks_file())
        self._gate = Gate(slots, settings.queue_timeout_seconds)

    def analyse(self, data: bytes, deadline: Deadline, *, min_face_pixels: int | None = None) -> Analysis:
        """Find and encode the faces of one image.

        Args:
            data: an image file.
            deadline: kept between the stages, not within one.
            min_face_pixels: narrower faces are left out, in pixels of the image as sent; default: the setting.

        Raises:
            ImageTooLarge, ImageUnsupported, ImageCorrupt: the image cannot be used.
            Busy: all slots stayed taken, or the engine is closed.
            DeadlineExceeded: the deadline passed.
        """
        smallest = self._min_face_pixels if min_face_pixels is None else min_face_pixels
        with self._gate.slot(deadline):
            watch = _Stopwatch()
            with decoded(data, self._limits) as image:
                watch.lap("decode")
                deadline.check()
                found = self._detect(image.pixels, smallest * image.scale)
                found = [each for each in found if _as_sent(each.box, image.scale).width >= smallest]
                found.sort(key=lambda each: each.box.area, reverse=True)
                watch.lap("detect")
                aligned = []
                for each in found:
                    deadline.check()
                    aligned.append(self._aligner.align(image.pixels, each.box))
                watch.lap("align")
                embeddings = self._encode(image.pixels, found, aligned, deadline)
                watch.lap("encode")
            faces = map(_face, found, aligned, embeddings, [image.scale] * len(found))
            return Analysis(image.width, image.height, image.format, tuple(faces), watch.timings_ms)

    def load(self) -> tuple[int, int]:
        """How many images are being worked on, and how many wait for a free core."""
        return self._gate.load()

    def close(self) -> None:
        """Refuse new work and wait, up to 10 seconds, for what is running; may be called again."""
        if not self._gate.close(_CLOSE_SECONDS):
            LOGGER.warning("Vision work was still running %d seconds after the engine was closed.", _CLOSE_SECONDS)

    @abstractmethod
    def _detect(self, pixels: Pixels, min_face_pixels: float) -> list[Detection]:
        """Boxes in pixels of the array, `min_face_pixels` as well."""

    @abstractmethod
    def _encode(
        self, pixels: Pixels, found: Sequence[Detection], aligned: Sequence[AlignedFace], deadline: Deadline
    ) -> NDArray[np.float32]:
        """(n, 128) float32, in the order of `found`."""


class _Stopwatch:
    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.timings_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.timings_ms[stage] = round((now - self._last) * 1000, 3)
        self._last = now


def _as_sent(box: Box, scale: float) -> Box:
    return Box(*(round(edge / scale) for edge in (box.left, box.top, box.right, box.bottom)))


def _face(found: Detection, aligned: AlignedFace, embedding: NDArray[np.float32], scale: float) -> Face:
    return Face(
        box=_as_sent(found.box, scale),
        detection_score=found.score,
        quality=assess(aligned, found.score),
        landmarks=tuple((round(x / scale), round(y / scale)) for x, y in aligned.landmarks.tolist()),
        embedding=embedding,
    )
