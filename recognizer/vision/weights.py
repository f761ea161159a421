"""Finds dlib's model files and makes ONNX graphs of its networks, once per machine; nobody else reads them.

A graph is cached as `<name>-<SHA-256 of the .dat, first 16 digits>-<form>-v<format>.onnx`. It ends with an entry
of ONNX metadata that holds the SHA-256 of all bytes before it, so a file cut short or damaged is noticed
and built again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from recognizer.errors import ModelError
from recognizer.vision import mmod_graph, onnx_graph
from recognizer.vision.dlib_net import FormatError

LOGGER = logging.getLogger(__name__)

RESNET = "dlib_face_recognition_resnet_model_v1.dat"
DETECTOR = "mmod_human_face_detector.dat"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"

_SHA256 = {
    # of the files in face_recognition_models 0.3.0, which are those of dlib.net: another file, or one bit of damage,
    # would give embeddings that no stored face can be compared with
    RESNET: "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    DETECTOR: "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
    LANDMARKS: "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
}

_FORMAT = 2
"""Goes up whenever another graph is written from the same weights."""

Form = Literal["float", "int8"]
"""How a graph computes: in 32-bit floating point, or in 8-bit integers."""

# field 14 of ONNX's ModelProto, metadata_props, holding {key: "sha256", value: 64 hexadecimal digits}:
# protobuf appends a repeated field by mere concatenation, so the file stays a valid ONNX model
_SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"
_DIGEST_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Model:
    """A network: an ONNX graph, and the SHA-256 (hexadecimal) of the .dat it was made from."""

    graph: bytes = field(repr=False)
    sha256: str


def prepare_models(cache_dir: Path) -> None:
    """Build and cache what the workers will load, and find out early that a model file is damaged.

    Raises:
        ModelError: a model file is missing or damaged.
    """
    load_resnet(cache_dir)
    load_detector(cache_dir, "int8")
    load_detector(cache_dir, "float")
    _read_model_file(LANDMARKS)


def load_resnet(cache_dir: Path) -> Model:
    """The face ResNet from the cache; built, and cached if possible, when it is not there.

    Several processes may do this at once: each writes a file of its own and renames it.

    Raises:
        ModelError: the model file is missing or damaged.
    """
    return _load(cache_dir, RESNET, "float", onnx_graph.build_resnet)


def load_detector(cache_dir: Path, form: Form) -> Model:
    """The CNN face detector, likewise."""
    return _load(cache_dir, DETECTOR, form, lambda data: mmod_graph.build_detector(data, quantized=form == "int8"))


def _load(cache_dir: Path, name: str, form: Form, build: Callable[[bytes], bytes]) -> Model:
    data = _read_model_file(name)
    sha256 = hashlib.sha256(data).hexdigest()
    cached = cache_dir / f"{Path(name).stem}-{sha256[:16]}-{form}-v{_FORMAT}.onnx"
    graph = _read_sealed(cached)
    if graph is None:
        try:
            graph = build(data)
        except FormatError as error:
            raise ModelError(
                f"The model file {name} is damaged: {error}; reinstall face_recognition_models."
            ) from error
        _write_sealed(cached, graph)
    return Model(graph, sha256)


def resnet_sha256() -> str:
    """The SHA-256 (hexadecimal) of the face ResNet's model file."""
    return hashlib.sha256(_read_model_file(RESNET)).hexdigest()


def landmarks_file() -> Path:
    """dlib's 5-point shape predictor; dlib itself reads it.

    Raises:
        ModelError: the file is missing.
    """
    path = _models_dir() / LANDMARKS
    if not path.is_file():
        raise ModelError(f"The model file {LANDMARKS} is missing; reinstall face_recognition_models.")
    return path


def landmarks_sha256() -> str:
    """The SHA-256 (hexadecimal) of the 5-point shape predictor."""
    return hashlib.sha256(_read_model_file(LANDMARKS)).hexdigest()


def _models_dir() -> Path:
    # importing the package would need pkg_resources, which new versions of setuptools no longer have
    spec = find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("The package face_recognition_models is not installed; it holds the model files.")
    return Path(spec.submodule_search_locations[0]) / "models"


def _read_model_file(name: str) -> bytes:
    try:
        data = (_models_dir() / name).read_bytes()
    except OSError as error:
        raise ModelError(
            f"The model file {name} cannot be read ({error.strerror}); reinstall face_recognition_models."
        ) from error
    if hashlib.sha256(data).hexdigest() != _SHA256[name]:
        raise ModelError(f"The model file {name} is damaged or another one; reinstall face_recognition_models 0.3.0.")
    return data


def _read_sealed(path: Path) -> bytes | None:
    """The graph in `path`, or None when there is none or it is not the one that was written."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        LOGGER.warning("The cached model %s cannot be read (%s); it is built again.", path, error.strerror)
        return None
    graph, seal = content[: -len(_SEAL) - _DIGEST_LENGTH], content[-len(_SEAL) - _DIGEST_LENGTH :]
    if seal != _SEAL + hashlib.sha256(graph).hexdigest().encode():
        LOGGER.warning("The cached model %s is damaged; it is built again.", path)
        return None
    return graph


def _write_sealed(path: Path, graph: bytes) -> None:
    """Write all or nothing; a cache that cannot be written costs time at the next start, nothing else."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(graph + _SEAL + hashlib.sha256(graph).hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # weights are no secret, and the workers may be another user
        temporary.replace(path)
    except OSError as error:
        LOGGER.warning("The model cannot be cached in %s (%s); every start builds it.", path.parent, error.strerror)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def main() -> int:
    """`python -m recognizer.vision.weights FOLDER`: prepare the models, or say in a sentence why not."""
    try:
        prepare_models(Path(sys.argv[1]))
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
