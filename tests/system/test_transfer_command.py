"""`recognizer export` and `recognizer import` as processes: the same answers elsewhere, and kill -9 in the midst."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import stat
import subprocess
import sys
import time
import zipfile
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


def of_another_model(file: Path) -> Path:
    """A copy of an export, as another model has encoded its faces."""
    other = file.with_name("other model.zip")
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(other, "w") as written:
        manifest = json.loads(archive.read("manifest.json").replace(b"/5pt-", b"/68pt-"))
        for name in archive.namelist():
            content = archive.read(name)
            if name == "faces.jsonl":
                content = content.replace(b"/5pt-", b"/68pt-")
                manifest["members"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            if name != "manifest.json":
                written.writestr(name, content)
        written.writestr("manifest.json", json.dumps(manifest))
    return other


def test_an_export_with_photos_can_be_encoded_anew_elsewhere(
    own_service: Service, photos: Path, tmp_path: Path
) -> None:
    data_dir, file, report = own_service.data_dir, tmp_path / "people.zip", tmp_path / "report.csv"
    assert command(data_dir, "encryption", "create-key").returncode == 0
    collection = f"{own_service.start().url}/v1/collections/default"
    assert enroll(own_service.url, "Biden", (photos / "biden.jpg").read_bytes()).status_code == 201
    none = command(data_dir, "export", str(file), "--photos")
    assert (none.returncode, none.stderr.count("\n")) == (0, 1)
    assert "No photos are kept in the collection default" in none.stderr
    assert httpx.patch(collection, json={"keep_photos": True}).status_code == 200
    photo = (photos / "obama.jpg").read_bytes()
    assert enroll(own_service.url, "Obama", photo).status_code == 201
    written = command(data_dir, "export", str(file), "--photos", "--force")
    assert (written.returncode, written.stderr.count("\n")) == (0, 1)
    assert "holds 1 photo IN CLEAR" in written.stderr
    assert os.name == "nt" or stat.S_IMODE(file.stat().st_mode) == 0o600
    with zipfile.ZipFile(file) as archive:
        assert [archive.read(name) for name in archive.namelist() if name.startswith("photos/")] == [photo]

    assert httpx.delete(collection, timeout=30).status_code == 200
    other = of_another_model(file)
    refused = command(data_dir, "import", str(other))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert f"recognizer import '{other}' --re-embed" in refused.stderr
    done = command(data_dir, "import", str(other), "--re-embed", "--report", str(report))
    assert (done.returncode, done.stderr) == (4, "")
    assert "2 people, 1 face, 0 rejections" in done.stdout
    assert "1 enrolled, 1 refused" in done.stdout
    with report.open() as rows:
        found = {row["person"]: (row["status"], row["reasons"]) for row in csv.DictReader(rows)}
    assert found == {"Obama": ("enrolled", ""), "Biden": ("refused", "photo_not_found")}
    (face,) = recognize(own_service.url, (photos / "obama2.jpg").read_bytes()).json()["faces"]
    assert face["person"]["name"] == "Obama"
