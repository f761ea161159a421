"""Where things are around the script, and the limits that hold for all of the soak."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SCRIPT = HERE / "test_continuous_recognition.py"


START_SCRIPT = HERE / ("start_windows_production.py" if os.name == "nt" else "start_production.py")
VENV_PYTHON = HERE.parent / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
SHARED = HERE.parent.parent / "shared"
PEOPLE_FOLDER = SHARED / "faces" / "people"
PHOTO_CACHE = HERE.parent / ".cache" / "test-photos"
PHOTO_LOCK = HERE.parent / "requirements" / "photos.lock"


DEFAULT_URL = "http://127.0.0.1:8000"
REQUEST_SECONDS = 35.0  # the service's own deadline is 30 s: it shall be the one to give up
IDLE_SECONDS = 3.0  # servers close idle connections (gunicorn: 5 s); ours are not used again after this
READY_SECONDS = 90.0
STOP_SECONDS = 60.0
SILENCE_SECONDS = 15.0  # nobody answers for so long: it is down, going on is pointless
ERASE_SECONDS = 20.0


MB = 2**20
