"""Nothing of what the service does is reported to anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from pathlib import Path
from recognizer import config
from recognizer.deadline import Deadline
from recognizer.vision.engine import open_engine

engine = open_engine(config.load({"data_dir": Path(%r)}))
assert engine.analyse(Path(%r).read_bytes(), Deadline(60)).faces
engine.close()
"""


def test_the_model_runtime_leaves_no_telemetry_behind(tmp_path: Path, photos: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "LOCALAPPDATA": str(home)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    program = PROGRAM % (str(tmp_path / "data"), str(photos / "obama.jpg"))
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)
    assert list(home.rglob("*")) == []
