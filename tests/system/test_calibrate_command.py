"""`recognizer calibrate`, beside the running service and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
from system_calls import Service, enroll

LIMIT_SECONDS = 60


def calibrate(data_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recognizer", "calibrate", "--data-dir", str(data_dir), *options],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def test_a_home_is_told_what_to_expect_and_what_is_missing(own_service: Service, photos: Path, tmp_path: Path) -> None:
    own_service.start()
    for name, files in (("Obama", ("obama", "obama2", "obama3")), ("Biden", ("biden",))):
        photo = [(photos / f"{file}.jpg").read_bytes() for file in files]
        assert enroll(own_service.url, name, *photo).status_code == 201
    picture = tmp_path / "scores.png"
    beside = calibrate(own_service.data_dir, "--picture", str(picture))
    assert (beside.returncode, beside.stderr) == (0, "")
    assert beside.stdout.startswith("Collection default, revision 2. People: 2, with two photos or more: 1. Photos: 4.")
    assert "measured at 10 %: too few photos for that figure: it needs 30 photos of 10 people" in beside.stdout
    assert "Recommended target: keep 1 %" in beside.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    over_http = httpx.post(f"{own_service.url}/v1/collections/default/calibrate", timeout=LIMIT_SECONDS).json()
    del over_http["request_id"]
    assert own_service.stop() == 0
    alone = calibrate(own_service.data_dir, "--json")
    assert alone.returncode == 0, alone.stderr
    assert json.loads(alone.stdout) == over_http


def test_what_cannot_be_done_is_said_in_a_sentence(service: Service, tmp_path: Path) -> None:
    empty = calibrate(service.data_dir)
    assert empty.returncode == 0
    assert "There is nobody to learn from; enrol people, each with two photos or more." in empty.stdout
    unknown = calibrate(service.data_dir, "--collection", "nope")
    assert (unknown.returncode, unknown.stderr) == (1, "Error: There is no collection `nope`.\n")
    nowhere = calibrate(service.data_dir, "--picture", str(tmp_path / "no" / "where.png"))
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)
    assert nowhere.stderr.endswith("cannot be written: No such file or directory.\n")
