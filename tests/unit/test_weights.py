"""The model files: read, converted, cached; damage is noticed, and no error goes without the file's name."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from recognizer.errors import ModelError
from recognizer.vision import weights
from recognizer.vision.dlib_net import FormatError, read_net
from recognizer.vision.onnx_graph import build
from recognizer.vision.weights import LANDMARKS, RESNET, load_resnet, prepare_models


@pytest.fixture(scope="module")
def original() -> bytes:
    return (weights._models_dir() / RESNET).read_bytes()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is taken for the one of the model files."""
    monkeypatch.setattr(weights, "_models_dir", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def no_building(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_again(data: bytes) -> bytes:
        pytest.fail("the model was built although it is cached")

    monkeypatch.setattr(weights, "_build", build_again)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_the_file_is_read_layer_by_layer(original: bytes) -> None:
    layers = read_net(original)
    assert len(layers) == 109
    names = [layer.name for layer in layers]
    assert names.count("con_4") == names.count("affine_") == 29
    assert names.count("add_prev_") == 14
    assert layers[1].settings == (32, 7, 7, 2, 2, 0, 0)
    assert layers[1].parameters.size == 32 * 3 * 7 * 7 + 32
    assert layers[-1].parameters.size == 256 * 128
    assert sum(layer.parameters.size for layer in layers) * 4 > 0.99 * len(original)


def test_the_cached_graph_is_a_valid_onnx_model(tmp_path: Path) -> None:
    resnet = load_resnet(tmp_path)
    path = only_file(tmp_path)
    assert path.name == f"dlib_face_recognition_resnet_model_v1-{resnet.sha256[:16]}-v1.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [entry.key for entry in model.metadata_props] == ["sha256"]
    assert model.metadata_props[0].value == hashlib.sha256(resnet.graph).hexdigest()


def test_a_second_start_builds_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    first = load_resnet(tmp_path / "deep" / "folder")
    request.getfixturevalue("no_building")
    assert load_resnet(tmp_path / "deep" / "folder") == first


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "longer", "folder"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = load_resnet(tmp_path)
    path = only_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flipped": content, "cut": content[:-1000], "empty": b"", "longer": path.read_bytes() + b"\0"}
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(damaged[damage])
    assert load_resnet(tmp_path) == expected
    assert "built again" in caplog.text
    if damage != "folder":
        caplog.clear()
        assert load_resnet(tmp_path) == expected
        assert not caplog.records
    assert [each.name for each in tmp_path.iterdir()] == [path.name]  # nothing half-written is left


def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    assert load_resnet(tmp_path / "file" / "models").graph
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_full_disk_is_one_warning_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert load_resnet(tmp_path).graph
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No space left" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_missing_model_file_is_named(elsewhere: Path) -> None:
    with pytest.raises(ModelError, match=RESNET):
        prepare_models(elsewhere / "cache")
    (elsewhere / RESNET).write_bytes(b"")
    with pytest.raises(ModelError, match=RESNET):
        prepare_models(elsewhere / "cache")


def test_a_missing_landmarks_file_is_named(elsewhere: Path, original: bytes) -> None:
    (elsewhere / RESNET).write_bytes(original)
    with pytest.raises(ModelError, match="shape_predictor_5_face_landmarks"):
        prepare_models(elsewhere / "cache")


def test_one_flipped_bit_is_noticed(elsewhere: Path, original: bytes) -> None:
    landmarks = (Path(weights.find_spec("face_recognition_models").origin).parent / "models" / LANDMARKS).read_bytes()
    for name, data in ((RESNET, original), (LANDMARKS, landmarks)):
        (elsewhere / RESNET).write_bytes(original)
        (elsewhere / LANDMARKS).write_bytes(landmarks)
        prepare_models(elsewhere / "cache")
        at = len(data) // 2
        (elsewhere / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ModelError, match=name):
            prepare_models(elsewhere / "cache")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="face_recognition_models"):
        prepare_models(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, 400, 20_000, 10_000_000, -200, -1])
def test_a_truncated_model_file_is_named_and_not_cached(elsewhere: Path, original: bytes, kept: int) -> None:
    (elsewhere / RESNET).write_bytes(original[:kept])
    with pytest.raises(ModelError, match=RESNET):
        load_resnet(elsewhere / "cache")
    assert not (elsewhere / "cache").exists()


def test_another_network_of_dlib_is_refused() -> None:
    other = (weights._models_dir() / "mmod_human_face_detector.dat").read_bytes()
    with pytest.raises(FormatError, match="metric"):
        read_net(other)


def test_a_weight_that_is_no_number_is_refused(original: bytes) -> None:
    layers = read_net(original)
    layers[-1].parameters[7] = np.nan
    with pytest.raises(FormatError, match="finite"):
        build(layers)


def test_missing_layers_are_refused(original: bytes) -> None:
    layers = read_net(original)
    with pytest.raises(FormatError, match="108 layers"):
        build(layers[:20] + layers[21:])


def test_several_processes_may_prepare_at_once(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from recognizer.vision.weights import *; prepare_models(Path({str(tmp_path)!r}))"
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", code]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    path = only_file(tmp_path)
    assert weights._read_sealed(path) is not None


def test_a_worker_imports_neither_onnx_nor_face_recognition(tmp_path: Path) -> None:
    prepare_models(tmp_path / "models")
    code = f"""
import sys
from recognizer.config import Settings
from recognizer.vision.engine import open_engine
open_engine(Settings(data_dir={str(tmp_path)!r})).close()
loaded = {{"onnx", "face_recognition", "face_recognition_models", "pkg_resources"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
