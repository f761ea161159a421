"""One photo from bytes to faces, stage by stage, bounded in concurrency and time; what both engines share."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.faces import Analysis, Box, Face, Pixels
from recognizer.vision.alignment import CHIP_PADDING, CHIP_PIXELS, AlignedFace, Aligner
from recognizer.vision.detection import Detection
from recognizer.vision.gate import Gate
from recognizer.vision.images import DecodedImage, ImageLimits, as_png, decoded
from recognizer.vision.quality import assess
from recognizer.vision.weights import landmarks_file, landmarks_sha256

LOGGER = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0


def model_id(resnet_sha256: str, detector: str, crops: int) -> str:
    """The name of everything that shapes an embedding.

    Up to the last slash it names the space that the embedding lies in. After it stands what moves an embedding
    within that space by much less than two photos of a person differ: the number of crops and, but for HOG, the
    detector whose box the landmarks were found in.
    """
    landmarks = landmarks_sha256()
    variant = f"{crops}crop" if detector == "hog" else f"{crops}crop-{detector}"
    return f"dlib-resnet-v1-{resnet_sha256[:8]}/5pt-{landmarks[:8]}/chip{CHIP_PIXELS}-{CHIP_PADDING}/{variant}"


class PhotoEngine(ABC):
    """Analyses photos; a subclass says how faces are detected and encoded."""

    def __init__(
        self, settings: Settings, *, model_id: str, parts: Mapping[str, str], slots: int, crops: int, settle: bool
    ) -> None:
        """Load what both engines need.

        Args:
            parts: what does the work, in words.
            slots: photos at a time.
            crops: chips of each face.
            settle: whether landmarks are found a second time, independent of the detector; see `Aligner.align`.
        """
        self.model_id = model_id
        self.parts = parts
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.working_pixels)
        self._min_face_pixels = settings.min_face_pixels
        self._aligner = Aligner(landmarks_file(), crops)
        self._settle = settle
        self._gate = Gate(slots, settings.queue_timeout_seconds)

    def analyse(
        self, data: bytes, deadline: Deadline, *, min_face_pixels: int | None = None, chips: bool = False
    ) -> Analysis:
        """Find and encode the faces of one image.

        Args:
            data: an image file.
            deadline: kept between the stages, not within one.
            min_face_pixels: narrower faces are left out, in pixels of the image as sent; default: the setting.
            chips: whether each face comes with its `chip`.

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
                watch.lap("detect")
                aligned = self._align(image, found, smallest, deadline)
                watch.lap("align")
                embeddings = self._encode(image.pixels, [face for face, _ in aligned], deadline)
                watch.lap("encode")
            faces = (
                _face(face, score, each, image.scale, chips)
                for (face, score), each in zip(aligned, embeddings, strict=True)
            )
            return Analysis(image.width, image.height, image.format, tuple(faces), watch.timings_ms)

    def _align(
        self, image: DecodedImage, found: Sequence[Detection], smallest: int, deadline: Deadline
    ) -> list[tuple[AlignedFace, float]]:
        """The faces that are wide enough, largest first, each with its detection score."""
        aligned = []
        for each in found:
            deadline.check()
            face = self._aligner.align(image.pixels, each.box, settle=self._settle)
            if _as_sent(face.box, image.scale).width >= smallest:
                aligned.append((face, each.score))
        return sorted(aligned, key=lambda pair: pair[0].box.area, reverse=True)

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
    def _encode(self, pixels: Pixels, found: Sequence[AlignedFace], deadline: Deadline) -> NDArray[np.float32]:
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


def _face(aligned: AlignedFace, score: float, embedding: NDArray[np.float32], scale: float, with_chip: bool) -> Face:
    return Face(
        box=_as_sent(aligned.box, scale),
        detection_score=score,
        quality=assess(aligned, score),
        landmarks=tuple((round(x / scale), round(y / scale)) for x, y in aligned.landmarks.tolist()),
        embedding=embedding,
        chip=as_png(aligned.chips[0]) if with_chip else None,
    )
