"""Sessions of ONNX Runtime on the CPU or on an accelerator; the only user of onnxruntime.

An accelerator is believed only after it has given, for a sample, what the CPU gives; and one that nobody has asked for
is used only if it is quicker.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from recognizer.errors import ModelError

LOGGER = logging.getLogger(__name__)

Provider = Literal["cuda", "openvino", "coreml", "directml", "cpu"]

NAMES: Final[Mapping[Provider, str]] = {
    # in the order in which they are tried when the choice is ours
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}

_OPTIONS: Final[Mapping[Provider, Mapping[str, str]]] = {
    # 10 bits of mantissa would move an embedding by more than the 1e-4 it may differ
    "cuda": {"use_tf32": "0"},
    "openvino": {"precision": "ACCURACY", "num_of_threads": "1"},
}
_ERRORS_ONLY: Final = 3
_TRIALS: Final = 3


class Session:
    """One model, loaded; safe to be used by several threads at once, each on one core."""

    def __init__(self, graph: bytes, provider: Provider = "cpu") -> None:
        """Load the model.

        Raises:
            ModelError: ONNX Runtime cannot run it there.
        """
        self.provider = provider
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # the arena would keep the memory of the largest batch for ever
        options.enable_cpu_mem_arena = False
        # DirectML allows neither that nor two runs at a time (its page in ONNX Runtime's documentation)
        options.enable_mem_pattern = provider != "directml"
        self._turn = threading.Lock() if provider == "directml" else nullcontext()
        providers = [(NAMES[provider], dict(_OPTIONS.get(provider, {})))]
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # the library's classes have no other common ancestor
            raise ModelError(f"ONNX Runtime cannot use `{provider}`: {_first_line(error)}") from error
        if self._session.get_providers()[0] != NAMES[provider]:  # it falls back by itself, and prints so at best
            raise ModelError(f"ONNX Runtime cannot use `{provider}` on this machine.")

    def run(self, output: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Run the model once."""
        with self._turn:
            result: NDArray[np.float32] = self._session.run([output], inputs)[0]
        return result

    def seconds(self, output: str, sample: Mapping[str, NDArray[Any]]) -> float:
        """How long a run takes when all is warm: the best of a few."""
        self.run(output, sample)
        best = math.inf
        for _ in range(_TRIALS):
            began = time.perf_counter()
            self.run(output, sample)
            best = min(best, time.perf_counter() - began)
        return best


def open_session(
    graph: bytes, wanted: Provider | Literal["auto"], output: str, sample: Mapping[str, NDArray[Any]], tolerance: float
) -> Session:
    """Load a model where `wanted` says; with "auto" on the best accelerator that works, else on the CPU.

    Args:
        sample: inputs for which an accelerator's `output` may differ from the CPU's by `tolerance` at most.

    Raises:
        ModelError: it cannot run on what was explicitly wanted.
    """
    cpu = Session(graph)
    for provider in _candidates(wanted):
        try:
            session = _proved(Session(graph, provider), output, sample, cpu.run(output, sample), tolerance)
        except ModelError as error:
            if wanted != "auto":
                raise
            LOGGER.warning("%s The CPU is used instead.", error)
            continue
        if wanted != "auto" or session.seconds(output, sample) < cpu.seconds(output, sample):
            return session
        LOGGER.info("`%s` works and is slower than the CPU here; the CPU is used", provider)
    return cpu


def _candidates(wanted: Provider | Literal["auto"]) -> Iterator[Provider]:
    available = onnxruntime.get_available_providers()
    for provider, name in NAMES.items():
        if provider != "cpu" and (wanted == provider or (wanted == "auto" and name in available)):
            yield provider


def _proved(
    session: Session,
    output: str,
    sample: Mapping[str, NDArray[Any]],
    expected: NDArray[np.float32],
    tolerance: float,
) -> Session:
    try:
        difference = float(np.abs(session.run(output, sample) - expected).max())
    except Exception as error:  # as above
        raise ModelError(f"`{session.provider}` fails at its first use: {_first_line(error)}") from error
    if not difference <= tolerance:  # NaN is no difference that could be tolerated
        raise ModelError(f"`{session.provider}` computes something else than the CPU (by {difference:.2g}).")
    return session


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
