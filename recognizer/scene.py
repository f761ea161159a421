"""One scene in several frames: which faces show the same person, and what they say together. No SQL, no HTTP.

Faces are linked frame by frame to the people seen so far, by likeness; a face that lies where the person was in the
frame before need be less alike. Two faces of one frame are never the same person. What a person's faces have in common
is then asked about as one face. docs/adr/0013-events.md has the measurements.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.errors import FramesRefused, NoFace, Unusable
from recognizer.faces import Analysis, Box, Embedding, Face, Remark
from recognizer.gallery.store import Gallery
from recognizer.service import USUAL, Recognition, Service, Terms
from recognizer.vision.engine import Engine

ALIKE: Final = 0.55
"""Likeness (`evidence.unit`) from which a face is taken for the same person's: of pairs of LFW photos, which are years
apart, 90 % of the same person and 0.2 % of different people are that alike."""

ALIKE_IN_PLACE: Final = 0.35
"""The same where the person was in the frame before: 98 % and 3 %."""

IN_PLACE: Final = 0.3
"""Overlap (intersection over union) with the person's box in the frame before that makes it the same place."""

LEAST_WEIGHT: Final = 0.05
"""What a face of no quality counts in the fusion, one of the best counting 1."""


class Sighting(NamedTuple):
    """A face in frame number `frame`."""

    frame: int
    face: Face


@dataclass(frozen=True, slots=True)
class Track:
    """The faces that are taken for one person's, at most one of each frame, in the order of the frames."""

    sightings: tuple[Sighting, ...]

    @property
    def frames(self) -> frozenset[int]:
        return frozenset(sighting.frame for sighting in self.sightings)

    @property
    def best(self) -> Sighting:
        """The face that is the best evidence by itself."""
        return max(self.sightings, key=lambda sighting: sighting.face.quality.score)

    def with_face(self, sighting: Sighting) -> Track:
        """The track with one more face, of a later frame."""
        return Track((*self.sightings, sighting))

    def with_track(self, other: Track) -> Track:
        """Both as one person's."""
        return Track(tuple(sorted(self.sightings + other.sightings, key=lambda sighting: sighting.frame)))

    def box_in(self, frame: int) -> Box | None:
        """Where the person was last, if that was in this frame."""
        last = self.sightings[-1]
        return last.face.box if last.frame == frame else None

    def fused(self) -> Face:
        """All faces as one: the best one, with what all have in common as its embedding.

        The direction from the centre of all faces is the mean, weighted by quality, and so is the distance from it:
        a plain mean of embeddings lies nearer to the centre, and so nearer to everybody.
        """
        embeddings = np.array([sighting.face.embedding for sighting in self.sightings])
        weights = self._weights()
        radius = weights @ [evidence.radius(embedding) for embedding in embeddings] / weights.sum()
        fused: Embedding = (evidence.learned().centre + radius * self.direction()).astype(np.float32)
        return replace(self.best.face, embedding=fused)

    def direction(self) -> NDArray[np.float64]:
        """What all faces have in common, (128,) of length 1, in the space of `evidence.unit`."""
        units = evidence.unit(np.array([sighting.face.embedding for sighting in self.sightings]))
        common: NDArray[np.float64] = self._weights() @ units
        return common / max(1e-12, float(np.linalg.norm(common)))

    def _weights(self) -> NDArray[np.float64]:
        return np.array([max(LEAST_WEIGHT, sighting.face.quality.score) for sighting in self.sightings])


def link(frames: Mapping[int, Sequence[Face]]) -> list[Track]:
    """The people of a scene, in the order in which they come into it.

    Args:
        frames: the faces of each frame, by its number; a frame that is missing could not be read.
    """
    tracks: list[Track] = []
    for frame in sorted(frames):
        faces = frames[frame]
        owners = _assigned(faces, tracks, frame)
        for face, owner in zip(faces, owners, strict=True):
            seen = Sighting(frame, face)
            if owner is None:
                tracks.append(Track((seen,)))
            else:
                tracks[owner] = tracks[owner].with_face(seen)
    return tracks


def _assigned(faces: Sequence[Face], tracks: Sequence[Track], frame: int) -> list[int | None]:
    """Whose each face is: a track's number, or None for somebody new. Together they are as alike as can be."""
    if not faces or not tracks:
        return [None] * len(faces)
    from scipy.optimize import linear_sum_assignment  # 30 MB of memory, which only those pay who ask for an event

    units = evidence.unit(np.array([face.embedding for face in faces]))
    alike = units @ np.array([track.direction() for track in tracks]).T
    needed = np.array([[_needed(face, track, frame) for track in tracks] for face in faces])
    gains = np.where(alike >= needed, alike, 0.0)
    owners: list[int | None] = [None] * len(faces)
    for face, track in zip(*linear_sum_assignment(gains, maximize=True), strict=True):
        if gains[face, track]:
            owners[face] = int(track)
    return owners


def _needed(face: Face, track: Track, frame: int) -> float:
    before = track.box_in(frame - 1)
    return ALIKE_IN_PLACE if before and before.overlap(face.box) >= IN_PLACE else ALIKE


def joined(tracks: Sequence[Track], people: Sequence[str | None]) -> list[Track]:
    """The same with tracks that turned out to be one person made one, unless they are in a frame together.

    Args:
        people: whom each track was recognised as; None: nobody.
    """
    result: list[Track] = []
    of_person: dict[str, list[int]] = defaultdict(list)
    for track, person in zip(tracks, people, strict=True):
        mine = of_person[person] if person is not None else []
        place = next((place for place in mine if not result[place].frames & track.frames), None)
        if place is None:
            mine.append(len(result))
            result.append(track)
        else:
            result[place] = result[place].with_track(track)
    return result


@dataclass(frozen=True, slots=True)
class Scene:
    """The answer to several frames of one scene.

    `people` has a face for each person, in the order in which they came into the scene: all that were seen of them as
    one, and the verdict on it; `tracks` says where they were seen, in the same order. `frames` are those that could be
    read, by number; `refused` are the others, and those without a face.
    """

    people: Recognition
    tracks: tuple[Track, ...]
    frames: Mapping[int, Analysis]
    refused: tuple[Remark, ...]


class Scenes:
    """Recognising over several frames, with one engine, one gallery and the service's decisions."""

    def __init__(self, engine: Engine, gallery: Gallery, service: Service) -> None:
        self._engine = engine
        self._gallery = gallery
        self._service = service

    def recognize(self, photos: Sequence[bytes], collection: str, deadline: Deadline, terms: Terms = USUAL) -> Scene:
        """Find the people of one scene and decide who they are; errors as for `Service.recognize`.

        Args:
            photos: the frames (encoded images), in order; they are worked through one by one.

        Raises:
            FramesRefused: no frame could be read.
        """
        began = time.perf_counter()
        known = self._gallery.collection(collection, deadline, min_revision=terms.min_revision)
        frames, refused = self._look_at(photos, deadline, terms.min_face_pixels)
        deadline.check()
        identify = partial(self._service.identify, collection=known, deadline=deadline)
        tracks, people = _decided(link({number: frame.faces for number, frame in frames.items()}), identify, terms)
        spent: Counter[str] = Counter()
        for frame in frames.values():
            spent.update(frame.timings_ms)  # it counts fractions, too
        timings = {**spent, **people.timings_ms, "total": (time.perf_counter() - began) * 1000}
        return Scene(replace(people, timings_ms=timings), tuple(tracks), frames, refused)

    def _look_at(
        self, photos: Sequence[bytes], deadline: Deadline, min_face_pixels: int | None
    ) -> tuple[dict[int, Analysis], tuple[Remark, ...]]:
        frames: dict[int, Analysis] = {}
        refused = []
        for number, photo in enumerate(photos):
            try:
                frames[number] = self._engine.analyse(photo, deadline, min_face_pixels=min_face_pixels)
            except Unusable as error:
                refused.append(Remark(number, error.code, str(error)))
                continue
            if not frames[number].faces:
                refused.append(Remark(number, NoFace.code, f"Frame {number} shows no face that can be found."))
        if not frames:
            raise FramesRefused(refused)
        return frames, tuple(refused)


def _decided(
    tracks: list[Track], identify: Callable[..., Recognition], terms: Terms
) -> tuple[list[Track], Recognition]:
    """Who the people of the tracks are; tracks of the same person are one, and nobody is in a frame twice."""
    people = identify(_together(tracks), terms=terms)
    who = _matched(people)
    named = [person for person in who if person is not None]
    if len(set(named)) == len(named):
        return tracks, people
    tracks = joined(tracks, who)
    return tracks, identify(_together(tracks), terms=replace(terms, unique=True))


def _together(tracks: Sequence[Track]) -> Analysis:
    """Everybody as the faces of one photo, to be decided about like them."""
    return Analysis(0, 0, "", tuple(track.fused() for track in tracks), {})


def _matched(found: Recognition) -> list[str | None]:
    """Whom each face was recognised as."""
    verdicts = [seen.verdict for seen in found.seen]
    return [each.best.neighbour.person_id if each.best and each.decision == "match" else None for each in verdicts]
