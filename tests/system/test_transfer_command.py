"""`recognizer export` and `recognizer import` as processes: the same answers elsewhere, and kill -9 in the midst."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from system_calls import Service, enroll, recognize

LIMIT_SECONDS = 120


def command(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recognizer", *arguments, "--data-dir", str(data_dir)],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def answers(service: Service, probes: list[bytes]) -> list[dict[str, Any]]:
    found = []
    for probe in probes:
        answer = recognize(service.url, probe, top_k="3", include="embedding").json()
        for moment in ("request_id", "timings_ms"):
            answer.pop(moment, None)
        found.append(answer)
    return found


def test_the_same_probes_get_the_same_answers_elsewhere(own_service: Service, photos: Path, tmp_path: Path) -> None:
    own_service.start()
    for name, files in (("Obama", ("obama", "obama2")), ("Biden", ("biden",))):
        photo = [(photos / f"{file}.jpg").read_bytes() for file in files]
        assert enroll(own_service.url, name, *photo).status_code == 201
    probes = [(photos / f"{name}.jpg").read_bytes() for name in ("obama3", "biden", "obama_partial_face2")]
    time.sleep(3)  # the cohorts' figures are brought up to date
    before = answers(own_service, probes)
    file = tmp_path / "people.zip"
    written = command(own_service.data_dir, "export", str(file))
    assert (written.returncode, written.stderr) == (0, "")
    assert "2 people, 3 faces and 0 rejections" in written.stdout
    again = command(own_service.data_dir, "export", str(file))
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert httpx.delete(f"{own_service.url}/v1/collections/default", timeout=30).status_code == 200
    assert command(own_service.data_dir, "import", str(file)).returncode == 0
    after = answers(own_service, probes)
    for one, other in zip(before, after, strict=True):
        del one["gallery_revision"], other["gallery_revision"]  # it only grows, and this database has seen an erasure
        assert one == other


def test_an_import_that_was_killed_goes_on(own_service: Service, tmp_path: Path) -> None:
    own_service.start()
    random = np.random.default_rng(1)
    people, each = 1500, 2
    file = tmp_path / "e.npz"
    names = np.array([f"p {n}" for n in range(people)] * each)
    np.savez(file, names=names, encodings=random.normal(0, 0.12, (people * each, 128)))
    arguments = ["import", str(file), "--data-dir", str(own_service.data_dir)]
    process = subprocess.Popen([sys.executable, "-m", "recognizer", *arguments], stdout=subprocess.DEVNULL)
    until = time.monotonic() + LIMIT_SECONDS
    while (held := overview(own_service))["people"] == 0:
        assert process.poll() is None
        assert time.monotonic() < until
    process.kill()
    process.wait(10)
    held = overview(own_service)
    assert held["people"] < people, "it was done before it was killed"
    assert held["faces"] == held["people"] * each, "half a person"
    done = command(own_service.data_dir, "import", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    held = overview(own_service)
    assert (held["people"], held["faces"]) == (people, people * each)
    assert "There already: " in done.stdout
    assert "Brought into the collection default: 0 people" in command(own_service.data_dir, "import", str(file)).stdout


def overview(service: Service) -> dict[str, Any]:
    listed = httpx.get(f"{service.url}/v1/collections", timeout=30).json()["collections"]
    return next(each for each in listed if each["name"] == "default")


def test_what_cannot_be_imported_is_said_in_a_sentence(service: Service, tmp_path: Path) -> None:
    pickle = tmp_path / "e.pickle"
    pickle.write_bytes(b"\x80\x04.")
    refused = command(service.data_dir, "import", str(pickle))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "numpy.savez('encodings.npz'" in refused.stderr
    assert command(service.data_dir, "export", str(tmp_path / "x.zip"), "--collection", "nope").returncode == 1
    assert list(tmp_path.iterdir()) == [pickle]
