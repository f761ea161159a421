"""dlib's CNN face detector, box for box: its pyramid, laid out in one picture, its scores and its boxes.

face_recognition calls it model="cnn". Formulas: dlib/image_transforms/image_pyramid.h (layout, rectangles) and
dlib/dnn/loss.h (loss_mmod_, to_label).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import dlib
import numpy as np
from numpy.typing import NDArray

from recognizer.faces import Box, Pixels
from recognizer.vision.detection import Detection
from recognizer.vision.mmod_graph import WINDOW_PIXELS
from recognizer.vision.score_net import BORDER_PIXELS, Candidate, ScoreNet, centre, normalised, strongest

_SHRINK = 5 / 6
_GAP_PIXELS = 10
_SHIFT_PIXELS = 0.3
"""By how much a point moves, beyond the change of scale, when it goes up one level (pyramid_down, point_up)."""
_DOUBLED_X, _DOUBLED_Y = 1.25, 0.75
"""By how much a point moves, beyond the change of scale, when an image is doubled (pyramid_down<2>, point_down)."""
_SMALLEST_ROWS = 5


class Tile(NamedTuple):
    """Where one level of the pyramid lies in the picture of all levels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width - 1

    @property
    def bottom(self) -> int:
        return self.top + self.height - 1


class ExactCnnDetector:
    """Finds what `face_recognition.face_locations(pixels, upsample, model="cnn")` finds.

    Its window is 80 pixels wide: with `upsample` 1 the smallest faces are 40 pixels. An image that would have more
    than `max_pixels` is not doubled.
    """

    def __init__(self, net: ScoreNet, upsample: int, max_pixels: int) -> None:
        self._net = net
        self._upsample = upsample
        self._max_pixels = max_pixels

    def detect(self, pixels: Pixels, min_face_pixels: float) -> list[Detection]:
        """Find the faces of (H, W, 3) uint8 RGB; `min_face_pixels` changes only how often it is doubled in size.

        The picture is doubled no more often than `max_pixels` allow.
        """
        doublings = min(self._upsample, max(0, math.ceil(math.log2(WINDOW_PIXELS / max(1.0, min_face_pixels)))))
        while doublings and pixels.shape[0] * pixels.shape[1] * 4**doublings > self._max_pixels:
            doublings -= 1
        enlarged = pixels
        for _ in range(doublings):
            rows, columns = enlarged.shape[:2]
            enlarged = dlib.resize_image(enlarged, 2 * rows + 1, 2 * columns + 2)  # what the shifts make of 2 x 2
        if min(enlarged.shape[:2]) < _SMALLEST_ROWS:
            return []
        picture, tiles = _tiled_pyramid(enlarged)
        scores = self._net.scores(picture[np.newaxis])[0]
        candidates = [
            _in_image(tiles, centre(x), centre(y), float(scores[y, x])) for y, x in np.argwhere(scores > 0.0).tolist()
        ]
        return [_detection(candidate, doublings) for candidate in strongest(candidates)]


def _tiled_pyramid(pixels: Pixels) -> tuple[NDArray[np.float32], list[Tile]]:
    """All levels of the pyramid in one picture of the mean colour, each level made from the one before."""
    tiles, height, width = layout(*pixels.shape[:2])
    picture = np.zeros((height + height % 2, width + width % 2, 3), np.float32)
    level = normalised(pixels)
    for number, tile in enumerate(tiles):
        if number:
            level = _resized(level, tile.height, tile.width)
        picture[tile.top : tile.bottom + 1, tile.left : tile.right + 1] = level
    return picture, tiles


def layout(height: int, width: int) -> tuple[list[Tile], int, int]:
    """Where dlib puts the levels, and the height and width of the whole: down in one column, then up beside it."""
    sizes = _sizes(height, width)
    rows = _rows_of_first_column(sizes)
    tiles: list[Tile] = []
    y = BORDER_PIXELS
    for h, w in sizes:
        if y >= rows + BORDER_PIXELS:
            break
        tiles.append(Tile(BORDER_PIXELS, y, w, h))
        y += h + _GAP_PIXELS
    y -= _GAP_PIXELS
    for h, w in sizes[len(tiles) :]:
        tile = Tile(BORDER_PIXELS + width - w, y - h, w, h)
        if tile.top <= tiles[0].bottom:
            break
        tiles.append(tile)
        y -= h + _GAP_PIXELS
    return tiles, rows + 2 * BORDER_PIXELS, width + 2 * BORDER_PIXELS


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    while width > 0 and (height >= _SMALLEST_ROWS or not sizes):
        sizes.append((height, width))
        height, width = math.floor(_SHRINK * height), math.floor(_SHRINK * width)
    return sizes


def _rows_of_first_column(sizes: list[tuple[int, int]]) -> int:
    """Go down until the next level fits beside the last one and half of all lies in the column."""
    first_height, first_width = sizes[0]
    total = sum(height + _GAP_PIXELS for height, _ in sizes) - 2 * _GAP_PIXELS
    rows = previous = 0
    for height, width in sizes:
        if width <= first_width - previous - _GAP_PIXELS and (rows - first_height) * 2 >= total - first_height:
            break
        rows += height + _GAP_PIXELS
        previous = width
    return rows - _GAP_PIXELS


def _resized(level: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear, corner on corner (tensor_tools, resize_bilinear)."""
    rows, next_rows, down = _steps(level.shape[0], height)
    columns, next_columns, right = _steps(level.shape[1], width)
    lines = _between(level[rows], level[next_rows], down[:, None, None])
    pixels = lines.view("V12")  # a pixel is moved as one
    left, beside = (np.take(pixels, each, axis=1).view(np.float32) for each in (columns, next_columns))
    return _between(left, beside, right[:, None])


def _between(
    first: NDArray[np.float32], second: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """first + (second - first) * share, in the memory of both."""
    second -= first
    second *= share
    first += second
    return first


def _steps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    at = np.arange(new) * ((old - 1) / max(new - 1, 1))
    whole = at.astype(np.intp)
    return whole, np.minimum(whole + 1, old - 1), (at - whole).astype(np.float32)


def _in_image(tiles: list[Tile], x: float, y: float, score: float) -> Candidate:
    """A window in the picture of all levels as one of the image."""

    def distance(tile: Tile) -> float:
        return max(tile.left - x, 0, x - tile.right) ** 2 + max(tile.top - y, 0, y - tile.bottom) ** 2

    level = min(range(len(tiles)), key=lambda number: distance(tiles[number]))
    scale = _SHRINK**-level
    shift = _SHIFT_PIXELS * (scale - 1) / (1 / _SHRINK - 1)
    tile = tiles[level]
    return Candidate((x - tile.left) * scale + shift, (y - tile.top) * scale + shift, WINDOW_PIXELS * scale, score)


def _detection(candidate: Candidate, doublings: int) -> Detection:
    reach = (candidate.side - candidate.side / WINDOW_PIXELS) / 2  # from the first to the last pixel
    x, y = np.array([-reach, reach]) + candidate.x, np.array([-reach, reach]) + candidate.y
    x, y = np.floor(x + 0.5), np.floor(y + 0.5)
    for _ in range(doublings):
        x, y = x / 2 - _DOUBLED_X, y / 2 - _DOUBLED_Y
    left, right, top, bottom = (math.floor(edge + 0.5) for edge in (*x.tolist(), *y.tolist()))
    return Detection(Box(left, top, right, bottom), candidate.score)
