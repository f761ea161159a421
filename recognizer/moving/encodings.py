"""Encodings of face_recognition: names with 128 numbers each, as NPZ, NPY, CSV or JSON. docs/moving.md has the shapes.

They are held in memory, 512 bytes each. Nothing of what is read is ever executed: pickle is refused, in arrays too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from recognizer.errors import FileRefused, InvalidRequest
from recognizer.faces import Box, Quality
from recognizer.gallery.names import MAX_NAME_LENGTH, comparable, tidy
from recognizer.gallery.transfer import CollectionRecord, FaceRecord, Incoming, PersonRecord, Vectors
from recognizer.moving.ids import rising_ids
from recognizer.moving.progress import Progress
from recognizer.moving.vectors import check_faces

NUMBERS = 128

NOT_SEEN_BOX, NOT_SEEN_QUALITY = Box(0, 0, 1, 1), Quality(0.0)
"""What stands where nobody knows where in a photo the face was, and how good."""

MAX_ROWS = 5_000_000
MAX_TEXT_BYTES = 512 * 2**20
MAX_HEADER_BYTES = 4096
MAX_RATIO = 50
"""Encodings are packed to nine tenths of their size; what is packed to so much less is there to fill the memory."""
MAX_NAME_BYTES = 4 * MAX_NAME_LENGTH

Named = tuple[list[str], Vectors, str]
"""Names, encodings (n, 128), and what a row is called in this kind of file."""


class Encodings:
    """A file of encodings as a source of people: rows of one name are faces of one person."""

    def __init__(self, path: Path, named: Named, model_id: str) -> None:
        names, self._vectors, self._row = named
        self.path = path
        self._model_id = model_id
        self._now = datetime.now(UTC)
        check_faces(f"{path}", 1, self._vectors)
        self._names, self._rows = self._grouped(names)
        self.remarks = self._remarks(len(names))
        self.collection = CollectionRecord(
            name="default",
            settings={},
            revision=0,
            people=len(self._rows),
            faces=sum(map(len, self._rows.values())),
            rejections=0,
            models={model_id: len(names)} if names else {},
            spaces=(),
            constants="",
        )

    def verify(self, progress: Progress) -> None:
        """There are no checksums."""

    def read(self) -> Iterator[Incoming]:
        """Everybody, by the first row of each."""
        people_ids, face_ids = rising_ids(self.collection.people), rising_ids(self.collection.faces)
        for key, rows in self._rows.items():
            person_id = next(people_ids)
            faces = tuple(
                FaceRecord(
                    id=next(face_ids),
                    person_id=person_id,
                    model_id=self._model_id,
                    created_at=self._now,
                    box=NOT_SEEN_BOX,
                    quality=NOT_SEEN_QUALITY,
                    photo_sha256=_sha256(self._vectors[row]),
                )
                for row in rows
            )
            person = PersonRecord(id=person_id, name=self._names[key], created_at=self._now)
            yield Incoming(f"{self.path}, {self._row} {rows[0] + 1}", person, faces, self._vectors[rows])

    def _remarks(self, rows: int) -> tuple[str, ...]:
        several = sum(len(of_person) > 1 for of_person in self._rows.values())
        repeated = rows - sum(map(len, self._rows.values()))
        said = f"The file has {rows:,} encodings of {len(self._rows):,} names; {several:,} names have more than one."
        return (said, f"Left out: {repeated:,} that repeat another of the same name.") if repeated else (said,)

    def _grouped(self, names: list[str]) -> tuple[dict[str, str], dict[str, list[int]]]:
        """By the name as it is compared: how it is written first, and the rows; a row that repeats another is left."""
        written: dict[str, str] = {}
        rows: dict[str, list[int]] = {}
        seen: Counter[tuple[str, str]] = Counter()
        for row, name in enumerate(names):
            try:
                key, kept = comparable(name), tidy(name)
            except InvalidRequest as error:
                raise FileRefused(f"{self.path}, {self._row} {row + 1}: {error}") from error
            written.setdefault(key, kept)
            digest = (key, _sha256(self._vectors[row]))
            seen[digest] += 1
            if seen[digest] == 1:
                rows.setdefault(key, []).append(row)
        return written, rows


def _sha256(vector: NDArray[np.float32]) -> str:
    """What stands for the photo's: the same numbers are not brought in twice."""
    return hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()


# -- the shapes --


def from_npy(path: Path, names: Path | None) -> Named:
    """An array of shape (n, 128), and the names in a text file beside it."""
    if names is None:
        raise FileRefused(f"{path} has no names; give a text file with one name a line, for each row: --names FILE.")
    with path.open("rb") as file:
        vectors = _array(str(path), file, path.stat().st_size, _is_matrix)
    try:
        lines = names.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileRefused(f"{names} cannot be read as text in UTF-8.") from error
    if len(lines) != len(vectors):
        raise FileRefused(f"{names} has {len(lines):,} lines, {path} has {len(vectors):,} rows; each row needs a name.")
    return lines, _float32(vectors), "row"


def from_npz(path: Path) -> Named:
    """Two arrays: `names` (n,) of text and `encodings` (n, 128)."""
    try:
        with zipfile.ZipFile(path) as archive:
            vectors = _member(path, archive, "encodings", _is_matrix)
            names = _member(path, archive, "names", partial(_is_text, len(vectors)))
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise FileRefused(f"{path} cannot be read: it is cut off or damaged; save it again.") from error
    return [str(name) for name in names], _float32(vectors), "row"


def from_csv(path: Path) -> Named:
    """Lines of a name and 128 numbers; a first line whose numbers are none is a header."""
    names: list[str] = []
    numbers = bytearray()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.reader(file, strict=True):
                if not row or (not names and _is_header(row)):
                    continue
                names.append(row[0])
                numbers += _numbers(f"{path}, name {len(names)}", row[1:]).tobytes()
                if len(names) > MAX_ROWS:
                    raise FileRefused(f"{path} has more than {MAX_ROWS:,} rows; cut it into several files.")
    except (csv.Error, UnicodeDecodeError) as error:
        raise FileRefused(f"{path} cannot be read as CSV in UTF-8 after name {len(names)}; save it again.") from error
    return names, np.frombuffer(numbers, np.float32).reshape(-1, NUMBERS), "name"


def from_json(path: Path) -> Named:
    """`[{"name": ..., "encoding": [...]}, ...]` or `{"name": [[...], ...], ...}`."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise FileRefused(f"{path} has more than {MAX_TEXT_BYTES >> 20} MiB; save it as .npz, as docs/moving.md shows.")
    try:
        loaded = json.loads(path.read_bytes(), object_pairs_hook=_Pairs, parse_constant=float)
    except (ValueError, RecursionError) as error:
        raise FileRefused(f"{path} is not valid JSON; save it again.") from error
    pairs = list(_named_lists(path, loaded))
    rows = [_numbers(f"{path}, face {n} ({place})", values) for n, (place, _, values) in enumerate(pairs, 1)]
    return [name for _, name, _ in pairs], np.array(rows, np.float32).reshape(-1, NUMBERS), "face"


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with all of its members, those of one name too."""


def _named_lists(path: Path, loaded: object) -> Iterator[tuple[str, str, object]]:
    """(place, name, numbers)"""
    if isinstance(loaded, _Pairs):
        for number, (name, lists) in enumerate(loaded, 1):
            if not isinstance(lists, list) or isinstance(lists, _Pairs):
                _no_shape(path)
            yield from ((f"member {number}", name, values) for values in lists)
    elif isinstance(loaded, list):
        for number, each in enumerate(loaded, 1):
            members = dict(each) if isinstance(each, _Pairs) else {}
            if not isinstance(members.get("name"), str) or "encoding" not in members:
                _no_shape(path)
            yield f"object {number}", members["name"], members["encoding"]
    else:
        _no_shape(path)


def _no_shape(path: Path) -> NoReturn:
    raise FileRefused(
        f'{path}: JSON has to be [{{"name": ..., "encoding": [128 numbers]}}, ...] or '
        '{"a name": [[128 numbers], ...], ...}.'
    )


def _is_header(row: list[str]) -> bool:
    try:
        [float(value) for value in row[1:]]
    except ValueError:
        return True
    return False


def _numbers(place: str, values: object) -> NDArray[np.float32]:
    """128 numbers, as they stand in a text."""
    if not isinstance(values, list) or len(values) != NUMBERS:
        count = f"{len(values)} numbers" if isinstance(values, list) else "no list"
        raise FileRefused(f"{place}: an encoding has {NUMBERS} numbers, here are {count}.")
    try:
        if any(isinstance(value, bool) for value in values):
            raise TypeError
        with np.errstate(over="ignore"):  # an infinity is found later, with its row
            return np.array([float(value) for value in values], np.float64).astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise FileRefused(f"{place}: an encoding has {NUMBERS} numbers, and one here is none.") from error


# -- arrays, whose headers are read before they are --


def _is_matrix(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """What is wrong with it as encodings."""
    if len(shape) != 2 or shape[1] != NUMBERS:
        return f"its shape is {shape}, encodings have (n, {NUMBERS})"
    return (
        None if dtype.kind == "f" and dtype.itemsize in (4, 8) else f"its numbers are {dtype}, not float32 or float64"
    )


def _is_text(count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """What is wrong with it as the names of so many encodings."""
    if shape != (count,):
        return f"its shape is {shape}, the names of {count} encodings have ({count},)"
    if dtype.kind != "U" or dtype.itemsize > MAX_NAME_BYTES:
        return f"it has {dtype}, names are text of up to {MAX_NAME_LENGTH} characters; save them with dtype=str"
    return None


def _member(path: Path, archive: zipfile.ZipFile, name: str, fault: Callable[..., str | None]) -> NDArray[Any]:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        there = ", ".join(sorted(each.removesuffix(".npy")[:50] for each in archive.namelist()[:10])) or "nothing"
        raise FileRefused(f"{path} holds {there}; it has to hold the arrays `names` and `encodings`.") from None
    if name == "encodings" and info.file_size > MAX_RATIO * max(1, info.compress_size):
        raise FileRefused(f"{path}, {name}: it is packed far more tightly than encodings can be; save it again.")
    with archive.open(info) as stream:
        return _array(f"{path}, {name}", stream, info.file_size, fault)


def _array(place: str, stream: Any, size: int, fault: Callable[..., str | None]) -> NDArray[Any]:
    """An array whose header says what `size` holds; no more is read than that."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream, MAX_HEADER_BYTES)
    except ValueError as error:
        raise FileRefused(f"{place}: it is no array of NumPy; save it again.") from error
    if dtype.hasobject:
        raise FileRefused(f"{place}: it holds Python objects, which only pickle can read; {PICKLE_ADVICE}")
    if wrong := fault(shape, dtype):
        raise FileRefused(f"{place}: {wrong}.")
    count = int(np.prod(shape, dtype=np.int64))
    if shape[0] > MAX_ROWS or stream.tell() + count * dtype.itemsize != size:
        raise FileRefused(f"{place}: it is cut off, or has more than {MAX_ROWS:,} rows; save it again.")
    data = io.BytesIO()
    while chunk := stream.read(2**20):
        data.write(chunk)
    flat = np.frombuffer(data.getbuffer(), dtype)
    if len(flat) != count:
        raise FileRefused(f"{place}: it is cut off; save it again.")
    return flat.reshape(shape, order="F" if fortran else "C")


def _float32(vectors: NDArray[Any]) -> Vectors:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(vectors, np.float32)


PICKLE_ADVICE = (
    "reading a pickle may run any program that somebody put into it, so it is not done. Convert it where it was made: "
    "python -c \"import pickle, numpy; d = pickle.load(open('encodings.pickle', 'rb')); "
    "numpy.savez('encodings.npz', names=numpy.array(d['names'], str), encodings=numpy.array(d['encodings']))\" "
    "and import encodings.npz; docs/moving.md has more."
)
