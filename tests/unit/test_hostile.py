"""Files made to break decoders: each gives an analysis or one clear error, and the process stays well."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import ImageCorrupt, ImageTooLarge, Unusable
from recognizer.vision.engine import Engine

SECONDS = 10
"""Far more than any of them takes (a tenth of a second), far less than a hang."""


def test_every_hostile_file_is_answered(engine: Engine, shared: Path, photo: Callable[[str], bytes]) -> None:
    process = psutil.Process()
    engine.analyse(photo("obama.jpg"), Deadline(60))
    memory, files = process.memory_info().rss, process.num_fds()
    answers: dict[str, int] = {}
    for path in sorted((shared / "hostile").iterdir()):
        data = path.read_bytes()
        started = time.monotonic()
        try:
            engine.analyse(data, Deadline(60))
            answer = "analysed"
        except Unusable as error:
            answer = error.code
            assert str(error).endswith(".")
            assert "/" not in str(error)
        answers[answer] = answers.get(answer, 0) + 1
        assert time.monotonic() - started < SECONDS, path.name
        assert process.memory_info().rss - memory < 300 * 2**20, path.name
    assert process.num_fds() <= files
    assert set(answers) == {"analysed", "image_corrupt", "image_unsupported", "image_too_large"}
    assert answers["analysed"] >= 150
    assert len(engine.analyse(photo("obama.jpg"), Deadline(60)).faces) == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("lovell__65536-uint32-limit.png", ImageTooLarge),
        ("pillow__decompression_bomb.gif", ImageTooLarge),
        ("lovell__giant-image.jpg", ImageTooLarge),
        ("lovell__truncated.jpg", ImageCorrupt),
        ("lovell__corrupt-header.jpg", ImageCorrupt),
    ],
)
def test_the_well_known_ones_have_the_right_word(
    engine: Engine, shared: Path, name: str, error: type[Unusable]
) -> None:
    with pytest.raises(error):
        engine.analyse((shared / "hostile" / name).read_bytes(), Deadline(60))
