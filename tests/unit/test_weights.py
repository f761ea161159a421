"""The model files: read, converted, cached; damage is noticed, and no error goes without the file's name."""

from __future__ import annotations

import dataclasses
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
from recognizer.vision import mmod_graph, onnx_graph, weights
from recognizer.vision.dlib_net import METRIC_LOSS, MMOD_LOSS, FormatError, Layer, read_net
from recognizer.vision.mmod_graph import build_detector
from recognizer.vision.onnx_graph import build
from recognizer.vision.weights import DETECTOR, LANDMARKS, RESNET, load_detector, load_resnet, prepare_models


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

    monkeypatch.setattr(onnx_graph, "build_resnet", build_again)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_the_file_is_read_layer_by_layer(original: bytes) -> None:
    layers = read_net(original, METRIC_LOSS).layers
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
    assert path.name == f"dlib_face_recognition_resnet_model_v1-{resnet.sha256[:16]}-float-v2.onnx"
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


@pytest.fixture
def copied(elsewhere: Path) -> Path:
    """The folder of the model files, a copy."""
    found = weights.find_spec("face_recognition_models")
    assert found
    assert found.origin
    for name in (RESNET, DETECTOR, LANDMARKS):
        (elsewhere / name).write_bytes((Path(found.origin).parent / "models" / name).read_bytes())
    return elsewhere


@pytest.mark.parametrize("name", [RESNET, DETECTOR, LANDMARKS])
def test_a_file_that_is_missing_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ModelError, match=name):
        prepare_models(copied / "cache")


@pytest.mark.parametrize("name", [RESNET, DETECTOR, LANDMARKS])
def test_one_flipped_bit_is_noticed(copied: Path, name: str) -> None:
    prepare_models(copied / "cache")
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(ModelError, match=name):
        prepare_models(copied / "cache")


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
    other = (weights._models_dir() / DETECTOR).read_bytes()
    with pytest.raises(FormatError, match="metric"):
        read_net(other, METRIC_LOSS)


def test_the_detectors_file_is_read_layer_by_layer() -> None:
    net = read_net((weights._models_dir() / DETECTOR).read_bytes(), MMOD_LOSS)
    assert [layer.name for layer in net.layers[1:]] == ["con_4", "affine_", "relu_"] * 6 + ["con_4"]
    assert [layer.settings[0] for layer in net.layers if layer.name == "con_4"] == [16, 32, 32, 45, 45, 45, 1]
    assert net.loss[:2] == (80, 80)


@pytest.mark.parametrize("form", ["float", "int8"])
def test_the_detectors_graph_is_cached_and_valid(tmp_path: Path, form: weights.Form) -> None:
    model = load_detector(tmp_path, form)
    onnx.checker.check_model(onnx.load(only_file(tmp_path)))
    assert load_detector(tmp_path, form) == model


def test_a_truncated_or_foreign_detector_is_refused(original: bytes) -> None:
    data = (weights._models_dir() / DETECTOR).read_bytes()
    for damaged in (data[:-5], data[: len(data) // 2], b"", original):
        with pytest.raises(FormatError):
            build_detector(damaged, quantized=True)


def test_a_detector_with_other_layers_or_another_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (weights._models_dir() / DETECTOR).read_bytes()
    net = read_net(data, MMOD_LOSS)
    other_stride = Layer("con_4", (16, 5, 5, 1, 1, 0, 0), net.layers[1].parameters)
    changed = {
        "layers": dataclasses.replace(net, layers=net.layers[:-1]),
        "window": dataclasses.replace(net, loss=(40.0, *net.loss[1:])),
        "convolution": dataclasses.replace(net, layers=[net.layers[0], other_stride, *net.layers[2:]]),
    }
    for word, other in changed.items():
        monkeypatch.setattr(mmod_graph, "read_net", lambda *_, other=other: other)
        with pytest.raises(FormatError, match=word):
            build_detector(data, quantized=True)


def test_a_weight_that_is_no_number_is_refused(original: bytes) -> None:
    layers = read_net(original, METRIC_LOSS).layers
    layers[-1].parameters[7] = np.nan
    with pytest.raises(FormatError, match="finite"):
        build(layers)


def test_missing_layers_are_refused(original: bytes) -> None:
    layers = read_net(original, METRIC_LOSS).layers
    with pytest.raises(FormatError, match="108 layers"):
        build(layers[:20] + layers[21:])


def test_several_processes_may_prepare_at_once(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from recognizer.vision.weights import *; prepare_models(Path({str(tmp_path)!r}))"
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", code]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    paths = sorted(tmp_path.iterdir())
    assert [path.name.split("-")[0] for path in paths] == [Path(RESNET).stem, *[Path(DETECTOR).stem] * 2]
    assert all(weights._read_sealed(path) is not None for path in paths)


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
