"""The engines behind one Protocol: the fast one, and the reference one that goes through `face_recognition`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recognizer.config import Settings, available_cores
from recognizer.deadline import Deadline
from recognizer.faces import Analysis, Pixels
from recognizer.vision.alignment import AlignedFace
from recognizer.vision.analysis import PhotoEngine, model_id
from recognizer.vision.detection import Detection, Detector
from recognizer.vision.encoding import Encoder, sample_chips
from recognizer.vision.exact_cnn import ExactCnnDetector
from recognizer.vision.fast_cnn import FastCnnDetector
from recognizer.vision.hog import HogDetector
from recognizer.vision.onnx_graph import OUTPUT as EMBEDDINGS
from recognizer.vision.score_net import open_score_net
from recognizer.vision.sessions import open_session
from recognizer.vision.weights import load_resnet

EMBEDDING_TOLERANCE = 1e-4
"""By how much an embedding may differ from dlib's, in any component."""


class Engine(Protocol):
    """Finds the faces of a photo. Safe to be used by several threads; opened after fork, closed by its owner."""

    model_id: str
    """Names everything that shapes an embedding; `faces.space_of` says which ids can be compared."""

    parts: Mapping[str, str]
    """What does the work, in words for the operator: engine, detector, provider."""

    def analyse(
        self, data: bytes, deadline: Deadline, *, min_face_pixels: int | None = None, chips: bool = False
    ) -> Analysis:
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
    """dlib's landmarks, dlib's networks in ONNX Runtime; as many photos at once as it has cores."""

    def __init__(self, settings: Settings) -> None:
        resnet = load_resnet(settings.models_dir)
        session = open_session(resnet.graph, settings.providers, EMBEDDINGS, sample_chips(), EMBEDDING_TOLERANCE)
        self._detector, in_words = _open_detector(settings)
        super().__init__(
            settings,
            model_id=model_id(resnet.sha256, settings.detector, settings.embedding_crops),
            parts={"engine": "onnx", "encoder": session.provider, "detector": in_words},
            # dlib's pyramid in one picture takes up to 700 MB
            slots=1 if settings.detector == "cnn_exact" else _slots(available_cores(), settings.workers),
            crops=settings.embedding_crops,
            settle=settings.detector == "cnn",
        )
        self._encoder = Encoder(session)

    def _detect(self, pixels: Pixels, min_face_pixels: float) -> list[Detection]:
        return self._detector.detect(pixels, min_face_pixels)

    def _encode(self, pixels: Pixels, found: Sequence[AlignedFace], deadline: Deadline) -> NDArray[np.float32]:
        return self._encoder.encode([face.chips for face in found], deadline)


def _slots(cores: int, workers: int) -> int:
    """Photos at a time in one worker: twice its share of the cores. Connections that clients keep do not spread
    evenly over the workers, and no core shall be idle while photos wait in another worker."""
    return max(1, min(cores, 2 * cores // workers))


def _open_detector(settings: Settings) -> tuple[Detector, str]:
    """The detector that the settings name, and where it runs in words."""
    if settings.detector == "hog":
        return HogDetector(settings.upsample, settings.working_pixels), "hog, cpu"
    exact = settings.detector == "cnn_exact"
    net = open_score_net(settings.models_dir, settings.providers, quantized=not exact)
    if exact:
        return ExactCnnDetector(net, settings.upsample, settings.working_pixels), f"cnn_exact, {net.in_words}"
    return FastCnnDetector(net, settings.working_pixels), f"cnn, {net.in_words}"
