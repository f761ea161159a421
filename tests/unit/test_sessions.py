"""Where a network runs: on an accelerator that is proved right, else on the CPU; never with a wrong answer.

The accelerators are stood in for by ONNX Runtime's CPU under another name: the faults cannot be caused otherwise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from recognizer.errors import ModelError
from recognizer.vision import sessions
from recognizer.vision.encoding import sample_chips
from recognizer.vision.onnx_graph import OUTPUT
from recognizer.vision.score_net import open_score_net
from recognizer.vision.sessions import NAMES, Session, open_session
from recognizer.vision.weights import load_resnet

Pretend = Callable[..., None]

RealSession = onnxruntime.InferenceSession


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return load_resnet(tmp_path_factory.mktemp("models")).graph


class Accelerator:
    """A session of ONNX Runtime that pretends to run on an accelerator, and may do so badly."""

    def __init__(self, graph: bytes, name: str, *, add: float = 0.0, fails: bool = False, slow: bool = False) -> None:
        self._session = RealSession(graph, providers=["CPUExecutionProvider"])
        self._name, self._add, self._fails, self._slow = name, add, fails, slow
        self._known: dict[bytes, list[np.ndarray]] = {}

    def get_providers(self) -> list[str]:
        return [self._name, "CPUExecutionProvider"]

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[np.ndarray]:
        if self._fails:
            raise RuntimeError("CUDA failure 999: unknown error\nat some line")
        if self._slow:
            time.sleep(0.2)
        key = b"".join(each.tobytes() for each in inputs.values())
        if key not in self._known:  # quicker than the CPU: it remembers
            self._known[key] = self._session.run(outputs, inputs)
        return [each + np.float32(self._add) for each in self._known[key]]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Make providers appear to be there: `pretend(cuda={"add": 0.1})`."""

    def there(**behaviours: dict[str, Any]) -> None:
        by_name = {NAMES[provider]: behaviour for provider, behaviour in behaviours.items()}

        def open_one(graph: bytes, options: Any, providers: Any) -> Any:
            name = providers[0][0]
            if name not in by_name:
                return RealSession(graph, options, providers=providers)
            if "absent" in by_name[name]:
                raise RuntimeError("libcublas.so.12: cannot open shared object file")
            return Accelerator(graph, name, **by_name[name])

        monkeypatch.setattr(sessions.onnxruntime, "InferenceSession", open_one)
        available = [*by_name, "CPUExecutionProvider"]
        monkeypatch.setattr(sessions.onnxruntime, "get_available_providers", lambda: available)

    return there


def opened(graph: bytes, wanted: Any) -> Session:
    return open_session(graph, wanted, OUTPUT, sample_chips(), 1e-4)


def test_without_an_accelerator_it_is_the_cpu_and_nothing_is_said(
    graph: bytes, pretend: Pretend, caplog: pytest.LogCaptureFixture
) -> None:
    pretend()
    assert opened(graph, "auto").provider == "cpu"
    assert opened(graph, "cpu").provider == "cpu"
    assert not caplog.records


def test_an_accelerator_that_computes_the_same_is_taken_and_cuda_first(graph: bytes, pretend: Pretend) -> None:
    pretend(openvino={}, cuda={"add": 1e-6})
    assert opened(graph, "auto").provider == "cuda"
    assert opened(graph, "openvino").provider == "openvino"
    assert opened(graph, "cpu").provider == "cpu"


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"add": 0.001}, "computes something else than the CPU"),
        ({"add": np.nan}, "computes something else than the CPU"),
        ({"fails": True}, "fails at its first use: CUDA failure 999: unknown error"),
        ({"absent": True}, "cannot use `cuda`: libcublas.so.12"),
    ],
)
def test_one_that_fails_or_computes_otherwise_is_passed_over_with_one_line(
    graph: bytes, pretend: Pretend, caplog: pytest.LogCaptureFixture, behaviour: dict[str, Any], said: str
) -> None:
    pretend(cuda=behaviour)
    session = opened(graph, "auto")
    assert session.provider == "cpu"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.getMessage()
    assert "The CPU is used instead." in record.getMessage()
    with pytest.raises(ModelError, match=said.split(":", maxsplit=1)[0]):
        opened(graph, "cuda")


def test_one_that_is_slower_is_used_only_when_it_is_wanted(
    graph: bytes, pretend: Pretend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pretend(openvino={"slow": True})
    assert opened(graph, "auto").provider == "cpu"
    assert ["slower than the CPU" in record.getMessage() for record in caplog.records] == [True]
    assert opened(graph, "openvino").provider == "openvino"


@pytest.mark.parametrize(
    ("wanted", "slow", "in_words"),
    [
        ("auto", False, "cuda, 32 bits"),
        ("auto", True, "cpu, 8 bits"),
        ("cuda", True, "cuda, 32 bits"),
        ("cpu", False, "cpu, 8 bits"),
    ],
)
def test_the_detector_computes_in_eight_bits_unless_an_accelerator_is_quicker(
    tmp_path: Path, pretend: Pretend, wanted: Any, slow: bool, in_words: str
) -> None:
    pretend(cuda={"slow": slow})
    assert open_score_net(tmp_path, wanted, quantized=True).in_words == in_words


def test_the_next_one_is_tried(graph: bytes, pretend: Pretend) -> None:
    pretend(cuda={"fails": True}, openvino={})
    assert opened(graph, "auto").provider == "openvino"


def test_one_that_is_wanted_and_not_there_is_refused(graph: bytes) -> None:
    missing = next(name for name in NAMES if NAMES[name] not in onnxruntime.get_available_providers())
    with pytest.raises(ModelError, match=missing):
        opened(graph, missing)


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cpu"):
        Session(b"no model")
