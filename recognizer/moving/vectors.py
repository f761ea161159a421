"""Whether numbers can be embeddings at all."""

from __future__ import annotations

import numpy as np

from recognizer.errors import FileRefused
from recognizer.gallery.rejections import MAX_COMPONENT
from recognizer.gallery.transfer import Vectors

MIN_LENGTH, MAX_LENGTH = 0.1, 10.0
"""dlib's embeddings have a length of about 1.4; one that was divided by it has 1."""


def check_faces(place: str, first_row: int, vectors: Vectors) -> None:
    """Refuse what is no embedding of a face; `vectors` begin with row `first_row` (from 1) at `place`.

    Raises:
        FileRefused
    """
    _check(place, first_row, vectors)
    lengths = np.linalg.norm(vectors, axis=1)
    if (odd := np.flatnonzero((lengths < MIN_LENGTH) | (lengths > MAX_LENGTH))).size:
        row = int(odd[0])
        raise FileRefused(
            f"{place}, row {first_row + row}: the vector's length is {lengths[row]:.3g}, which no embedding of a face "
            "has (about 1.4 is usual); give embeddings as the network gives them."
        )


def check_rejections(place: str, first_row: int, vectors: Vectors) -> None:
    """The same for faces that were rejected, which anybody may send as numbers.

    Raises:
        FileRefused
    """
    _check(place, first_row, vectors)
    if (odd := np.flatnonzero((np.abs(vectors) > MAX_COMPONENT).any(axis=1))).size:
        raise FileRefused(
            f"{place}, row {first_row + int(odd[0])}: a number is beyond {MAX_COMPONENT:,.0f}; remove it."
        )


def _check(place: str, first_row: int, vectors: Vectors) -> None:
    if (odd := np.flatnonzero(~np.isfinite(vectors).all(axis=1))).size:
        row = first_row + int(odd[0])
        raise FileRefused(f"{place}, row {row}: it holds a NaN or an infinity, so it is no embedding; remove it.")
