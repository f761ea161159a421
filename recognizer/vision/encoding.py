"""Chips to embeddings: dlib's ResNet in ONNX Runtime, equal to dlib's own within 1e-4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from recognizer.deadline import Deadline
from recognizer.faces import Pixels
from recognizer.vision.onnx_graph import EMBEDDING_SIZE, INPUT, OUTPUT

BATCH_FACES = 8
"""Faces per run: a larger batch is no faster on one core (3 ms per face from 1 to 32) and takes more memory."""

_ERRORS_ONLY = 3


class Encoder:
    """A session of ONNX Runtime; safe to be used by several threads at once, each on one core."""

    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # the arena would keep the memory of the largest batch for ever
        options.enable_cpu_mem_arena = False
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def encode(self, chips: Sequence[Pixels], deadline: Deadline | None = None) -> NDArray[np.float32]:
        """Encode the chips, each (150, 150, 3) uint8 RGB, to (n, 128) float32.

        Raises:
            DeadlineExceeded: `deadline` passed between two batches.
        """
        embeddings = np.empty((len(chips), EMBEDDING_SIZE), np.float32)
        for start in range(0, len(chips), BATCH_FACES):
            if deadline is not None:
                deadline.check()
            batch = np.stack(chips[start : start + BATCH_FACES])
            embeddings[start : start + len(batch)] = self._session.run([OUTPUT], {INPUT: batch})[0]
        return embeddings
