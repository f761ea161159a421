"""Linking faces over frames and fusing what they say: with real photos where faces are, invented vectors else."""

from __future__ import annotations

import numpy as np
import pytest

from recognizer import evidence
from recognizer.faces import Box, Face, Quality
from recognizer.scene import ALIKE, ALIKE_IN_PLACE, Sighting, Track, joined, link

HERE, THERE = Box(100, 100, 200, 200), Box(400, 100, 500, 200)


def face(*direction: float, box: Box = HERE, quality: float = 0.9, radius: float = 0.5) -> Face:
    """A face in the plane of the first axes, `radius` from the centre of all faces."""
    unit = np.zeros(128)
    unit[: len(direction)] = direction
    unit /= np.linalg.norm(unit)
    embedding = (evidence.learned().centre + radius * unit).astype(np.float32)
    return Face(box, 1.0, Quality(quality), (), embedding)


def at(likeness: float, **more: object) -> Face:
    """A face that is so much alike to `face(1)`."""
    return face(likeness, np.sqrt(1 - likeness**2), **more)  # type: ignore[arg-type]


def places(tracks: list[Track]) -> list[list[tuple[int, Box]]]:
    return [[(seen.frame, seen.face.box) for seen in track.sightings] for track in tracks]


def test_faces_are_linked_by_likeness_wherever_they_are() -> None:
    tracks = link({0: [face(1), face(0, 1, box=THERE)], 1: [face(0, 1), face(1, box=THERE)]})
    assert places(tracks) == [[(0, HERE), (1, THERE)], [(0, THERE), (1, HERE)]]


def test_two_faces_of_one_frame_are_never_the_same_person() -> None:
    twins = [face(1), face(1, box=THERE)]
    tracks = link({0: twins, 1: twins, 2: [face(1)]})
    assert [len(track.sightings) for track in tracks] == [3, 2]
    assert all(len(track.frames) == len(track.sightings) for track in tracks)


@pytest.mark.parametrize(
    ("box", "frame", "linked"),
    [(HERE, 1, True), (THERE, 1, False), (HERE, 2, False)],
    ids=["in its place", "elsewhere", "in its place, but a frame later"],
)
def test_a_face_in_its_place_need_be_less_alike(box: Box, frame: int, linked: bool) -> None:
    unsure = (ALIKE + ALIKE_IN_PLACE) / 2
    assert len(link({0: [face(1)], frame: [at(unsure, box=box)]})) == (1 if linked else 2)


def test_somebody_else_in_the_same_place_is_somebody_else() -> None:
    assert len(link({0: [face(1)], 1: [at(ALIKE_IN_PLACE - 0.05)]})) == 2


def test_the_better_of_two_claims_wins_for_both_together() -> None:
    """The first face would fit the first person best, but nothing else fits the second face."""
    first, second = face(1), face(0.75, 0.66, box=THERE)
    tracks = link({0: [first, second], 1: [at(0.9), face(0.99, -0.14)]})
    assert [len(track.sightings) for track in tracks] == [2, 2]


def test_the_fusion_is_as_far_from_the_centre_as_its_faces() -> None:
    one, other = face(1, 0.5, radius=0.4), face(1, -0.5, radius=0.6)
    fused = Track((Sighting(0, one), Sighting(1, other))).fused()
    assert evidence.radius(fused.embedding) == pytest.approx(0.5, abs=1e-5)
    assert evidence.unit(fused.embedding) @ evidence.unit(face(1).embedding) == pytest.approx(1, abs=1e-5)


def test_a_poor_face_counts_little() -> None:
    good, poor = face(1, quality=0.9), face(0, 1, quality=0.1)
    track = Track((Sighting(0, poor), Sighting(1, good)))
    assert track.best == Sighting(1, good)
    assert track.fused().quality == good.quality
    assert evidence.unit(track.fused().embedding) @ evidence.unit(good.embedding) > 0.99


def test_tracks_of_one_person_are_joined_unless_they_meet() -> None:
    early, late, beside = (Track((Sighting(frame, face(1)),)) for frame in (2, 5, 2))
    tracks = joined([late, early, beside, early], ["ada", "ada", "ada", None])
    assert [sorted(track.frames) for track in tracks] == [[2, 5], [2], [2]]
    assert [seen.frame for seen in tracks[0].sightings] == [2, 5]
