"""Chips to embeddings: dlib's ResNet in ONNX Runtime, equal to dlib's own within 1e-4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recognizer.deadline import Deadline
from recognizer.faces import Pixels
from recognizer.vision.alignment import CHIP_PIXELS
from recognizer.vision.onnx_graph import EMBEDDING_SIZE, INPUT, OUTPUT
from recognizer.vision.sessions import Session

BATCH_CHIPS = 8
"""Chips per run: a larger batch is no faster on one core (3 ms per chip from 1 to 32) and takes more memory."""


class Encoder:
    """The face ResNet; safe to be used by several threads at once."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def encode(self, faces: Sequence[Sequence[Pixels]], deadline: Deadline | None = None) -> NDArray[np.float32]:
        """Encode faces, equally many chips of each, (150, 150, 3) uint8 RGB, to (n, 128) float32.

        The embedding of a face is the mean over its chips: what one crop says and another does not is chance.

        Raises:
            DeadlineExceeded: `deadline` passed between two batches.
        """
        chips = [chip for face in faces for chip in face]
        embeddings = np.empty((len(chips), EMBEDDING_SIZE), np.float32)
        for start in range(0, len(chips), BATCH_CHIPS):
            if deadline is not None:
                deadline.check()
            batch = np.stack(chips[start : start + BATCH_CHIPS])
            embeddings[start : start + len(batch)] = self._session.run(OUTPUT, {INPUT: batch})
        if not faces:
            return embeddings
        means: NDArray[np.float32] = embeddings.reshape(len(faces), -1, EMBEDDING_SIZE).mean(axis=1)
        return means


def sample_chips() -> dict[str, NDArray[np.uint8]]:
    """Input to try a session with: two chips, always the same."""
    return {INPUT: np.random.default_rng(0).integers(0, 255, (2, CHIP_PIXELS, CHIP_PIXELS, 3), np.uint8)}
