"""Which kind of file is to be imported: seen by its content, and only where that says nothing by its name."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recognizer.errors import FileRefused
from recognizer.moving import archive, encodings
from recognizer.moving.encodings import Encodings
from recognizer.moving.exported import Exported
from recognizer.moving.importing import Source

PICKLE_NAMES = (".pkl", ".pickle", ".p", ".dat")
PICKLE = re.compile(rb"\x80[\x00-\x05]|\(lp|\(dp|c[a-z_]+\n|[\]\}](?:q|\x94)")
"""How pickles of protocols 2 to 5, and most of 0 and 1, begin."""

KINDS = "an export of `recognizer export`, or encodings as .npz, .npy, .csv or .json"


@contextmanager
def opened(path: Path, names: Path | None, model_id: str) -> Iterator[Source]:
    """A file of people, open for reading.

    Args:
        names: the names that belong to an .npy file.
        model_id: what embeddings of face_recognition are called here.

    Raises:
        FileRefused: it is none that can be imported, or is damaged.
    """
    if path.is_dir():
        raise FileRefused(f"{path} is a folder; a folder of photos is enrolled: recognizer enroll {path}")
    try:
        with path.open("rb") as file:
            begins = file.read(64)
    except OSError as error:
        raise FileRefused(f"{path} cannot be read: {error.strerror}.") from error
    if names is not None and not begins.startswith(b"\x93NUMPY"):
        raise FileRefused("--names goes with an .npy file; the other kinds have the names in them.")
    if begins.startswith(b"PK") and not _is_npz(path):
        with archive.opened(path) as export:
            yield Exported(path, export)
    else:
        yield Encodings(path, _read(path, begins, names), model_id)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as found:
            return all(name.endswith(".npy") for name in found.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return path.suffix.lower() == ".npz"


def _read(path: Path, begins: bytes, names: Path | None) -> encodings.Named:
    suffix = path.suffix.lower()
    if begins.startswith(b"PK"):
        return encodings.from_npz(path)
    if begins.startswith(b"\x93NUMPY"):
        return encodings.from_npy(path, names)
    if suffix in PICKLE_NAMES or PICKLE.match(begins):
        raise FileRefused(f"{path} is a pickle, or may be one; {encodings.PICKLE_ADVICE}")
    if suffix == ".json":
        return encodings.from_json(path)
    if suffix == ".csv":
        return encodings.from_csv(path)
    raise FileRefused(f"{path} is none of what can be imported: {KINDS}.")
