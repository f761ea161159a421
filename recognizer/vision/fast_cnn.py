"""dlib's CNN face detector at a fraction of its cost, with the recall of the original.

The pyramid goes down in large steps. A face between two steps scores less there, so what scores a little less than a
face should is looked at again at the scales in between, in a small picture of its own, and has to score there as dlib
demands. The finest level, which costs most, is searched only where the next one shows structure: the network answers
to a face of half its window's size with scores far from those of a background. The constants were measured on the
photos of FDDB with labelled faces; docs/adr/0006-detection.md has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import dlib
import numpy as np
from numpy.typing import NDArray

from recognizer.faces import Box, Pixels
from recognizer.vision.detection import Detection
from recognizer.vision.images import resized
from recognizer.vision.mmod_graph import WINDOW_PIXELS
from recognizer.vision.score_net import (
    BACKGROUND,
    BORDER_PIXELS,
    STRIDE,
    Candidate,
    ScoreNet,
    Scores,
    centre,
    strongest,
)

STEP: Final = 0.6
"""From one level's width to the next one's."""

REACH: Final = 4 / 3
"""The finest level's window is this much larger than the smallest face that is wanted; most of those it finds still."""

CANDIDATE_SCORE: Final = -0.7
"""From here on a window is looked at again at other scales."""

FACE_SCORE: Final = 0.0
"""dlib's own decision point."""

_SMALLEST_LEVEL_PIXELS: Final = 48
"""Of the shorter side: a face that fills the image is larger than the image's own middle."""

_BACKGROUND_SCORE: Final = -1.75  # the median over the photos
_STRUCTURE: Final = 1.0  # a score this far from it shows structure; 1.27 would be enough for all small faces of FDDB
_LOOK_AROUND: Final = 1  # windows
_CONTEXT_PIXELS: Final = 32  # around a part with structure
_WORTHWHILE: Final = 0.7  # of a level; where more is to be searched, all of it is
_STRIP_PIXELS: Final = 1_000_000  # of one run, about 40 MB
_OVERLAP_PIXELS: Final = 192  # of two strips; a score depends on 95 pixels to each side
_REDUCED: Final = 0.95  # of the most pixels: an image with as many was larger once
_MOST_CANDIDATES: Final = 1000  # a second and a half of looking again
_CROWD: Final = 3.0  # how many times the pixels are searched where there are small faces: one level more

_CROP_PIXELS: Final = 160  # what is looked at again
_CROPS_AT_ONCE: Final = 16
_MIDDLE: Final = 8  # the score in the middle of it, of 17 x 17
_BETWEEN: Final = STEP ** (1 / 3)  # two scales, evenly spaced, between two levels


class View(NamedTuple):
    """A rectangle of the image at a scale, in pixels there; it may reach beyond the image's edges."""

    scale: float
    left: int
    top: int
    width: int
    height: int


class Searched(NamedTuple):
    """A view and its scores."""

    view: View
    scores: Scores

    def candidates(self) -> Iterator[Candidate]:
        """The local peaks above the candidates' score, in pixels of the image."""
        peaks = (self.scores >= CANDIDATE_SCORE) & (self.scores >= _highest_around(self.scores, 1))
        scale, left, top, _, _ = self.view
        for y, x in np.argwhere(peaks).tolist():
            yield Candidate(
                (left + centre(x) + 0.5) / scale - 0.5,
                (top + centre(y) + 0.5) / scale - 0.5,
                WINDOW_PIXELS / scale,
                float(self.scores[y, x]),
            )


class FastCnnDetector:
    """Finds faces from `min_face_pixels` on.

    The finest level has up to `_CROWD` times `max_pixels`. In an image that was itself reduced to `max_pixels` a level
    of more than that is searched only when there are candidates in the one before: who photographs small faces with so
    many pixels photographs several.
    """

    def __init__(self, net: ScoreNet, max_pixels: int) -> None:
        self._net = net
        self._max_pixels = max_pixels

    def detect(self, pixels: Pixels, min_face_pixels: float) -> list[Detection]:
        """Find the faces; see `Detector.detect`."""
        pictures = _Pictures(pixels)
        found = sorted(self._candidates(pictures, min_face_pixels), key=lambda each: -each.score)
        candidates = strongest(found[:_MOST_CANDIDATES])
        faces = list(self._looked_at_again(pictures, candidates))
        return [Detection(_box(face), face.score) for face in strongest(faces) if face.score >= FACE_SCORE]

    def _candidates(self, pictures: _Pictures, min_face_pixels: float) -> Iterator[Candidate]:
        """Search all levels: the coarser ones whole, of the finer ones what is worth it."""
        wanted = WINDOW_PIXELS / (REACH * max(1.0, min_face_pixels))
        limit = min(wanted, math.sqrt(_CROWD * self._max_pixels / pictures.area_pixels))
        scale = limit
        if pictures.area_pixels > _REDUCED * self._max_pixels:
            scale = min(wanted, math.sqrt(self._max_pixels / pictures.area_pixels))
        parts = [pictures.whole(scale)]
        for number, view in enumerate(pictures.coarser(scale)):
            level = self._search(pictures, [view])
            if number == 0:
                parts = _structured(level, parts[0])
            for searched in level:
                yield from searched.candidates()
        while parts:
            level = self._search(pictures, parts)
            found = [candidate for searched in level for candidate in searched.candidates()]
            yield from found
            if scale == limit or not found:
                return
            scale = min(limit, scale / STEP)
            parts = _structured(level, pictures.whole(scale))

    def _search(self, pictures: _Pictures, views: Sequence[View]) -> list[Searched]:
        """Score the views, strip by strip."""
        strips = (strip for view in views for strip in _strips(view))
        return [Searched(strip, self._net.scores(pictures.seen(strip)[np.newaxis])[0]) for strip in strips]

    def _looked_at_again(self, pictures: _Pictures, candidates: list[Candidate]) -> Iterator[Candidate]:
        """Score the candidates at the scales between two levels, and settle on the best place and size."""
        for at in range(0, len(candidates), _CROPS_AT_ONCE):
            some = candidates[at : at + _CROPS_AT_ONCE]
            views = [_around(each, factor) for each in some for factor in (1 / _BETWEEN, _BETWEEN)]
            scores = self._net.scores(np.stack([pictures.seen(view) for view in views]))
            for number, candidate in enumerate(some):
                yield _settled(candidate, scores[2 * number], scores[2 * number + 1])


class _Pictures:
    """The image and smaller copies of it."""

    def __init__(self, pixels: Pixels) -> None:
        self._height, self._width = pixels.shape[:2]
        self.area_pixels = self._height * self._width
        self.shorter_side = min(self._height, self._width)
        self._copies = [(1.0, pixels)]  # ever smaller

    def coarser(self, scale: float) -> Iterator[View]:
        """All of the image at ever smaller scales; what is seen of each stays as a copy."""
        while self.shorter_side * scale * STEP >= _SMALLEST_LEVEL_PIXELS:
            scale *= STEP
            if scale < self._copies[-1][0]:
                self._copies.append((scale, resized(self._copies[-1][1], *self._size(scale))))
            yield self.whole(scale)

    def whole(self, scale: float) -> View:
        """All of the image, with the margin that the network wants."""
        height, width = self._size(scale)
        return View(scale, -BORDER_PIXELS, -BORDER_PIXELS, width + 2 * BORDER_PIXELS, height + 2 * BORDER_PIXELS)

    def seen(self, view: View) -> Pixels:
        """What a view shows, each side rounded up to an even number; the mean colour beyond the image's edges."""
        scale, left, top, width, height = view
        rows, columns = self._size(scale)
        x0, y0, x1, y1 = max(0, left), max(0, top), min(columns, left + width), min(rows, top + height)
        framed = np.empty((height + height % 2, width + width % 2, 3), np.uint8)
        if x0 >= x1 or y0 >= y1:
            framed[:] = BACKGROUND
            return framed
        picture = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        framed[picture] = self._cut(scale, x0, y0, x1, y1)
        for frame in (np.s_[: y0 - top], np.s_[y1 - top :], np.s_[:, : x0 - left], np.s_[:, x1 - left :]):
            framed[frame] = BACKGROUND
        return framed

    def _cut(self, scale: float, x0: int, y0: int, x1: int, y1: int) -> Pixels:
        """A part of the image at a scale, from the smallest copy that has the detail."""
        has, source = next(copy for copy in reversed(self._copies) if copy[0] >= scale or copy[0] == 1.0)
        if has == scale:
            return source[y0:y1, x0:x1]
        zoom = scale / has
        edge = min(x1 / zoom, source.shape[1]), min(y1 / zoom, source.shape[0])
        return resized(source, y1 - y0, x1 - x0, (x0 / zoom, y0 / zoom, *edge))

    def _size(self, scale: float) -> tuple[int, int]:
        return max(1, int(self._height * scale)), max(1, int(self._width * scale))


def _around(candidate: Candidate, factor: float) -> View:
    """The surroundings of a candidate, such that a window `factor` times its size is scored in the middle."""
    scale = WINDOW_PIXELS / (candidate.side * factor)
    left = round((candidate.x + 0.5) * scale - 0.5 - centre(_MIDDLE))
    top = round((candidate.y + 0.5) * scale - 0.5 - centre(_MIDDLE))
    return View(scale, left, top, _CROP_PIXELS, _CROP_PIXELS)


def _settled(candidate: Candidate, larger: Scores, smaller: Scores) -> Candidate:
    """The candidate at its best of three sizes; between them where a parabola through the scores says so."""
    around = np.s_[_MIDDLE - 2 : _MIDDLE + 3, _MIDDLE - 2 : _MIDDLE + 3]
    scores = [float(smaller[around].max()), candidate.score, float(larger[around].max())]
    best = int(np.argmax(scores))
    if best == 1:
        return candidate._replace(side=candidate.side * _BETWEEN ** -_vertex(*scores))
    found, side = ((larger, candidate.side / _BETWEEN), (smaller, candidate.side * _BETWEEN))[best == 0]
    y, x = divmod(int(np.argmax(found[around])), 5)
    cell = side * STRIDE / WINDOW_PIXELS
    return Candidate(candidate.x + (x - 2) * cell, candidate.y + (y - 2) * cell, side, scores[best])


def _vertex(before: float, at: float, after: float) -> float:
    """Where between -0.5 and 0.5 the parabola through three neighbours, the middle one highest, has its top."""
    bend = before - 2 * at + after
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, (before - after) / (2 * bend)))


def _structured(coarser: Sequence[Searched], finer: View) -> list[View]:
    """The parts of a level that may show a face too small for the next coarser one; all of it if they are many."""
    boxes = _merged([box for searched in coarser for box in _unusual(searched, finer)])
    if sum(box.area for box in boxes) > _WORTHWHILE * finer.height * finer.width:
        return [finer]
    return [View(finer.scale, box.left, box.top, box.width, box.height) for box in boxes]


def _unusual(coarser: Searched, finer: View) -> list[Box]:
    """Where the scores are not those of a background, as boxes in the finer level."""
    unusual = _highest_around(np.abs(coarser.scores - _BACKGROUND_SCORE), _LOOK_AROUND) >= _STRUCTURE
    edges = _blobs(unusual) * STRIDE + centre(0)  # from the first to the last window's middle
    edges += np.array([coarser.view.left, coarser.view.top] * 2) + np.array([-1, -1, 1, 1]) * STRIDE / 2
    edges = edges * (finer.scale / coarser.view.scale) + np.array([-1, -1, 1, 1]) * _CONTEXT_PIXELS
    right, bottom = finer.left + finer.width, finer.top + finer.height
    edges = edges.clip((finer.left, finer.top) * 2, (right, bottom) * 2).astype(int)
    return [Box(*each) for each in edges.tolist()]


def _strips(view: View) -> Iterator[View]:
    """Pieces that bound the memory of a run; they overlap by more than what a score depends on."""
    rows = max(2 * _OVERLAP_PIXELS, _STRIP_PIXELS // view.width)
    for top in range(0, max(1, view.height - _OVERLAP_PIXELS), rows - _OVERLAP_PIXELS):
        yield view._replace(top=view.top + top, height=min(rows, view.height - top))


def _blobs(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The bounding boxes of connected elements, (n, 4): first column and row, last column and row."""
    labels, count = dlib.label_connected_blobs(mask.astype(np.uint8))  # 0 is the background
    rows, columns = np.nonzero(labels)
    found = labels[rows, columns].astype(np.intp) - 1
    boxes = np.tile([np.inf, np.inf, -np.inf, -np.inf], (count - 1, 1))
    for edge, positions in enumerate((columns, rows)):
        np.minimum.at(boxes[:, edge], found, positions)
        np.maximum.at(boxes[:, edge + 2], found, positions)
    return boxes


def _merged(boxes: list[Box]) -> list[Box]:
    """Join boxes as long as that makes fewer pixels to search."""
    merged: list[Box] = []
    for box in boxes:
        while partner := next((other for other in merged if _joined(box, other).area <= box.area + other.area), None):
            merged.remove(partner)
            box = _joined(box, partner)
        merged.append(box)
    return merged


def _joined(a: Box, b: Box) -> Box:
    return Box(min(a.left, b.left), min(a.top, b.top), max(a.right, b.right), max(a.bottom, b.bottom))


def _highest_around(values: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """The highest value within `reach` of each element, in both directions."""
    if not values.size:  # of a picture too small to be scored
        return values
    padded = np.pad(values, reach, constant_values=-np.inf)
    rows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0).max(axis=-1)
    highest: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(rows, 2 * reach + 1, axis=1).max(axis=-1)
    return highest


def _box(face: Candidate) -> Box:
    reach = face.side / 2
    return Box(*(round(edge) for edge in (face.x - reach, face.y - reach, face.x + reach, face.y + reach)))
