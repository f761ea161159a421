"""The engines behind one Protocol: the fast one, and the reference one that goes through `face_recognition`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recognizer.config import Settings, available_cores
from recognizer.deadline import Deadline
from recognizer.faces import Analysis, Pixels
from recognizer.vision.alignment import AlignedFace
from recognizer.vision.analysis import PhotoEngine, model_id
from recognizer.vision.detection import Detection, Detector
from recognizer.vision.encoding import Encoder
from recognizer.vision.weights import load_resnet


class Engine(Protocol):
    """Finds the faces of a photo. Safe to be used by several threads; opened after fork, closed by its owner."""

    model_id: str
    """Names everything that shapes an embedding; vectors of different ids are never compared."""

    def analyse(self, data: bytes, deadline: Deadline, *, min_face_pixels: int | None = None) -> Analysis:
        """Find and encode the faces of one image; see `PhotoEngine.analyse`."""

    def load(self) -> tuple[int, int]:
        """How many images are being worked on, and how many wait for a free core."""

    def close(self) -> None:
        """Refuse new work and wait a while for what is running; may be called again."""


def open_engine(settings: Settings) -> Engine:
    """Load the models of the engine that `settings.engine` names.

    Raises:
        ModelError: a model file is missing or damaged, or `face_recognition` is not installed.
    """
    if settings.engine == "face_recognition":
        from recognizer.vision.reference import ReferenceEngine

        return ReferenceEngine(settings)
    return OnnxEngine(settings)


class OnnxEngine(PhotoEngine):
    """dlib's detector and landmarks, dlib's ResNet in ONNX Runtime; as many photos at once as it has cores."""

    def __init__(self, settings: Settings) -> None:
        resnet = load_resnet(settings.models_dir)
        slots = max(1, available_cores() // settings.workers)
        super().__init__(settings, model_id=model_id(resnet.sha256), slots=slots)
        self._detector = Detector(settings.upsample, settings.working_pixels)
        self._encoder = Encoder(resnet.graph)

    def _detect(self, pixels: Pixels, min_face_pixels: float) -> list[Detection]:
        return self._detector.detect(pixels, min_face_pixels)

    def _encode(
        self, pixels: Pixels, found: Sequence[Detection], aligned: Sequence[AlignedFace], deadline: Deadline
    ) -> NDArray[np.float32]:
        return self._encoder.encode([face.chip for face in aligned], deadline)
