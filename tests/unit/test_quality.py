"""What is said about a face as evidence: each flaw by its own word, and a lower score."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from recognizer.deadline import Deadline
from recognizer.faces import Box, Face, Quality
from recognizer.vision import quality
from recognizer.vision.alignment import AlignedFace
from recognizer.vision.engine import Engine
from recognizer.vision.quality import assess

EYES_AND_NOSE = np.array([(100, 50), (80, 50), (40, 50), (60, 50), (70, 85)], np.int32)


@pytest.fixture
def seen(engine: Engine, photos: Path) -> Callable[[Callable[[Image.Image], Image.Image]], Face]:
    """The largest face of a photo after something was done to it."""

    def analyse(change: Callable[[Image.Image], Image.Image]) -> Face:
        file = io.BytesIO()
        with Image.open(photos / "obama2.jpg") as image:
            change(image).save(file, "PNG")
        return engine.analyse(file.getvalue(), Deadline(60)).faces[0]

    return analyse


def test_a_good_photo_has_no_issues(seen: Callable[[Callable[[Image.Image], Image.Image]], Face]) -> None:
    face = seen(lambda image: image)
    assert face.quality.score > 0.9
    assert face.quality.issues == ()


@pytest.mark.parametrize(
    ("word", "flaw"),
    [
        (quality.LOW_SHARPNESS, lambda image: image.filter(ImageFilter.GaussianBlur(14))),
        (quality.TOO_DARK, lambda image: image.point(lambda value: value * 0.1)),
        (quality.TOO_BRIGHT, lambda image: image.point(lambda value: min(255, 150 + value * 0.7))),
        (quality.LOW_CONTRAST, lambda image: image.point(lambda value: 128 + (value - 128) * 0.12)),
    ],
)
def test_each_flaw_has_its_word(
    seen: Callable[[Callable[[Image.Image], Image.Image]], Face],
    word: str,
    flaw: Callable[[Image.Image], Image.Image],
) -> None:
    judged = seen(flaw).quality
    assert word in judged.issues
    assert judged.score < 0.5


def judge(landmarks: np.ndarray, score: float = 2.0) -> Quality:
    chip = np.random.default_rng(3).integers(60, 200, (150, 150, 3), np.uint8)
    return assess(AlignedFace(Box(0, 0, 150, 150), np.asarray(landmarks, np.int32), (chip,)), score)


def test_a_small_face_has_its_word() -> None:
    small = judge(EYES_AND_NOSE // 4)
    assert small.issues == (quality.SMALL_FACE,)
    assert 0 < small.score < 0.5


def test_a_turned_face_has_its_word() -> None:
    assert judge(EYES_AND_NOSE) == Quality(1.0, ())
    for nose in ((45, 85), (95, 85), (70, 125)):
        turned = EYES_AND_NOSE.copy()
        turned[4] = nose
        assert judge(turned).issues == (quality.FACE_TURNED,)
        assert judge(turned).score < 0.5


def test_the_pose_does_not_depend_on_how_the_head_leans() -> None:
    angle = np.deg2rad(35)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    leaning = (EYES_AND_NOSE - 70) @ turn.T * 10 + 2000
    assert judge(leaning) == judge(EYES_AND_NOSE)


def test_a_doubtful_detection_counts_less() -> None:
    assert judge(EYES_AND_NOSE, 0.0).score == 0.5
    assert judge(EYES_AND_NOSE, -1.0).score == 0.0


def test_impossible_landmarks_are_worthless_and_no_error() -> None:
    judged = judge(np.zeros((5, 2)))
    assert judged.score == 0.0
    assert quality.SMALL_FACE in judged.issues
