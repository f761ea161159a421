"""The engine to compare with: `face_recognition` itself finds and encodes the faces, one photo at a time.

Importing that library loads every dlib model, the non-commercial 68-point one among them, so nothing but
this engine does it. It is slow (100 ms per face under the GIL) and its dlib objects are not thread-safe.
"""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import ModelError
from recognizer.faces import Box, Pixels
from recognizer.vision.alignment import AlignedFace
from recognizer.vision.analysis import PhotoEngine, model_id
from recognizer.vision.detection import Detection, box_of
from recognizer.vision.weights import resnet_sha256

_library = threading.Lock()
"""The dlib objects belong to the imported module, hence to all engines of the process."""


class ReferenceEngine(PhotoEngine):
    """`face_locations` and `face_encodings` with the 5-point model; the image is never reduced for detection.

    Faces are found by HOG, or by the CNN detector when the setting is `cnn_exact`; of each face there is one crop.
    """

    def __init__(self, settings: Settings) -> None:
        detector = "cnn_exact" if settings.detector == "cnn_exact" else "hog"
        super().__init__(
            settings,
            model_id=model_id(resnet_sha256(), detector, crops=1),
            parts={"engine": "face_recognition", "encoder": "dlib", "detector": detector},
            slots=1,
            crops=1,
            settle=False,
        )
        self._face_recognition = _import_face_recognition()
        self._upsample = settings.upsample
        self._find = self._find_by_cnn if detector == "cnn_exact" else self._find_by_hog

    def _detect(self, pixels: Pixels, min_face_pixels: float) -> list[Detection]:
        # what face_locations calls, with the scores and without cutting the boxes off at the edge
        with _library:
            found = self._find(pixels)
        return [Detection(box_of(rectangle), float(score)) for rectangle, score in found]

    def _find_by_hog(self, pixels: Pixels) -> Iterable[tuple[Any, float]]:
        rectangles, scores, _ = self._face_recognition.api.face_detector.run(pixels, self._upsample, 0.0)
        return zip(rectangles, scores, strict=True)

    def _find_by_cnn(self, pixels: Pixels) -> Iterable[tuple[Any, float]]:
        found = self._face_recognition.api.cnn_face_detector(pixels, self._upsample)
        return [(each.rect, each.confidence) for each in found]

    def _encode(self, pixels: Pixels, found: Sequence[AlignedFace], deadline: Deadline) -> NDArray[np.float32]:
        embeddings = np.empty((len(found), 128), np.float32)
        for index, face in enumerate(found):
            deadline.check()
            with _library:
                (embeddings[index],) = self._face_recognition.face_encodings(pixels, [_css(face.box)], model="small")
        return embeddings


def _css(box: Box) -> tuple[int, int, int, int]:
    """Top, right, bottom, left, the order of `face_recognition`."""
    return box.top, box.right, box.bottom, box.left


def _import_face_recognition() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its pkg_resources is deprecated
        try:
            return importlib.import_module("face_recognition")
        except (ImportError, SystemExit) as error:  # it calls quit() when its models cannot be imported
            raise ModelError(
                "The engine `face_recognition` is not installed; "
                "install recognizer[reference], or set the engine to `onnx`."
            ) from error
