"""Photos for the benchmarks: brought to a size, with one face or with many; and the boxes they are labelled with."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from _report import progress
from PIL import Image, ImageOps

from recognizer.faces import Box

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are damaged or no photos at all; they are left out."""

MANY_FACES = 24
LOOKED_AT = 60
"""So many photos at most are looked at for one with the wanted faces, the largest first."""

TILE_PIXELS = 400
TILE_COLUMNS = 6
AROUND_FACE = 1.5
"""Side of the square that is cut around a face for a mosaic, in widths of its box, on each side of the middle."""

Find = Callable[[bytes], Sequence[Box]]
"""The faces in a photo."""


class Photo(NamedTuple):
    """A JPEG for a benchmark, where it comes from, and how many faces are found in it."""

    source: str
    data: bytes
    faces: int


def native_pixels(paths: Sequence[Path]) -> dict[Path, int]:
    """How many pixels each photo has; what is none is left out."""
    native = {}
    for path in paths:
        with suppress(*UNREADABLE), Image.open(path) as image:
            native[path] = image.width * image.height
    return native


def resized(path: Path, pixels: int) -> bytes:
    """A JPEG of so many pixels, upright in itself: face_recognition does not turn photos."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return saved(scaled(upright, pixels))


def scaled(image: Image.Image, pixels: int, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """The image in its own shape with so many pixels."""
    scale = math.sqrt(pixels / (image.width * image.height))
    return image.resize((round(image.width * scale), round(image.height * scale)), how)


def saved(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """The bytes of a file; a JPEG has quality 90."""
    file = io.BytesIO()
    image.save(file, form, **({"quality": 90} if form == "JPEG" else {}), **options)
    return file.getvalue()


def with_one_face(paths: Sequence[Path], pixels: int, find: Find) -> Photo:
    """The largest photo that shows one face at this size.

    Raises:
        ValueError: there is none.
    """
    native = native_pixels(paths)
    for path, photo in _largest_first(native, pixels):
        if len(find(photo)) == 1:
            return Photo(_source(path, native[path], pixels), photo, 1)
    raise ValueError(f"no photo with one face among the {min(len(native), LOOKED_AT)} largest; try another --root.")


def with_many_faces(paths: Sequence[Path], pixels: int, find: Find) -> Photo:
    """The largest group photo with about `MANY_FACES` faces at this size, else a mosaic of photos with one face each.

    Raises:
        ValueError: there is neither.
    """
    native = native_pixels(paths)
    for path, photo in _largest_first(native, pixels):
        if MANY_FACES / 2 <= (faces := len(find(photo))) <= MANY_FACES * 2:
            return Photo(_source(path, native[path], pixels), photo, faces)
    photo = saved(scaled(_mosaic(native, find), pixels))
    return Photo("a mosaic", photo, len(find(photo)))


def _largest_first(native: dict[Path, int], pixels: int) -> Iterator[tuple[Path, bytes]]:
    largest = sorted(native, key=lambda path: -native[path])[:LOOKED_AT]
    for path in largest:
        progress(f"choosing a photo for {pixels:,} pixels: {path.name}")
        with suppress(*UNREADABLE):
            yield path, resized(path, pixels)


def _source(path: Path, native: int, pixels: int) -> str:
    return f"{path.name}, enlarged" if native < pixels else path.name


def _mosaic(native: dict[Path, int], find: Find) -> Image.Image:
    tiles = list(itertools.islice(_tiles(native, find), MANY_FACES))
    if not tiles:
        raise ValueError("no photo with one face to make a mosaic of; try another --root.")
    rows = math.ceil(MANY_FACES / TILE_COLUMNS)
    mosaic = Image.new("RGB", (TILE_COLUMNS * TILE_PIXELS, rows * TILE_PIXELS))
    for number, tile in zip(range(MANY_FACES), itertools.cycle(tiles), strict=False):
        row, column = divmod(number, TILE_COLUMNS)
        mosaic.paste(tile, (column * TILE_PIXELS, row * TILE_PIXELS))
    return mosaic


def _tiles(native: dict[Path, int], find: Find) -> Iterator[Image.Image]:
    """Squares around the faces of photos with one face."""
    for _, photo in _largest_first(native, 853 * 480):
        boxes = find(photo)
        if len(boxes) == 1:
            (box,) = boxes
            x, y, reach = (box.left + box.right) / 2, (box.top + box.bottom) / 2, AROUND_FACE * box.width
            square = (round(x - reach), round(y - reach), round(x + reach), round(y + reach))
            with Image.open(io.BytesIO(photo)) as image:
                yield image.crop(square).resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.LANCZOS)


def read_labels(root: Path) -> dict[str, list[Box]]:
    """The labelled faces by file name, out of `boxes.csv` in the folder; nothing where there is no such file."""
    labels: dict[str, list[Box]] = defaultdict(list)
    if (root / "boxes.csv").is_file():
        with (root / "boxes.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                labels[row["file"]].append(Box(*(int(row[edge]) for edge in ("left", "top", "right", "bottom"))))
    return labels
