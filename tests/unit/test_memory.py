"""The memory that the largest photos take, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recognizer.config import Settings

PEAK_BYTES = 800 * 2**20
"""What docs/operations.md says that a worker needs for one photo at a time, with the settings as they are."""

ANALYSE = """
import re, sys
from pathlib import Path
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.vision.engine import open_engine
engine = open_engine(Settings(data_dir=Path(sys.argv[1])))
faces = engine.analyse(Path(sys.argv[2]).read_bytes(), Deadline(120)).faces
# getrusage would begin with what the parent had when it forked
(kilobytes,) = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(len(faces), int(kilobytes) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("suffix", "size"),
    [
        (".jpg", (8000, 8000)),  # max_image_pixels
        (".png", (8000, 8000)),
        (".webp", (4000, 4000)),  # counts four times
        (".tif", (5600, 5700)),  # counts twice
    ],
)
def test_the_largest_photos_stay_within_the_stated_memory(
    vision_settings: Callable[..., Settings], photos: Path, tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    tile = np.tile(np.asarray(Image.open(photos / "obama3.jpg").convert("RGB").resize((1600, 1600))), (5, 5, 1))
    path = tmp_path / f"photo{suffix}"
    options = {".png": {"compress_level": 3}, ".webp": {"method": 0}, ".tif": {"compression": "jpeg"}}.get(suffix, {})
    Image.fromarray(np.ascontiguousarray(tile[: size[1], : size[0]])).save(path, **options)
    done = subprocess.run(
        [sys.executable, "-c", ANALYSE, str(vision_settings().data_dir), str(path)],
        capture_output=True, text=True, timeout=120, check=False,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    faces, peak = map(int, done.stdout.split())
    assert faces > 0
    assert peak <= PEAK_BYTES, f"{peak / 2**20:.0f} MiB"
