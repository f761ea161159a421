"""`recognizer enroll`, beside a running service and through it."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import Command
from PIL import Image
from system_calls import Service

from recognizer.client import Recognizer

Small = Callable[[str], bytes]
Arguments = tuple[str, ...]


@pytest.fixture
def people(tmp_path: Path, small: Small, two_faces: bytes) -> Path:
    """Two people, and much that cannot be enrolled."""
    root = tmp_path / "people"
    photos = {
        "Obama/1.jpg": small("obama"),
        "Obama/old/2.jpg": small("obama2"),
        "Biden/1.jpg": small("biden"),
        "Biden/both.jpg": two_faces,
        "Biden/broken.jpg": small("biden")[:2000],
        "Biden/archive.zip": b"PK\3\4",
        "loose.jpg": small("obama3"),
    }
    for name, data in photos.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


EXPECTED = {
    "Biden/1.jpg": ("enrolled", ""),
    "Biden/archive.zip": ("skipped", "not_a_photo"),
    "Biden/both.jpg": ("refused", "multiple_faces"),
    "Biden/broken.jpg": ("refused", "image_corrupt"),
    "Obama/1.jpg": ("enrolled", ""),
    "Obama/old/2.jpg": ("enrolled", ""),
    "loose.jpg": ("skipped", "no_person"),
}


def rows(folder: Path) -> dict[str, tuple[str, str]]:
    """The report: by file, its status and reasons."""
    with (folder / "report.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: (row["status"], row["reasons"]) for row in csv.DictReader(file)}


def enrolled(client: Recognizer, collection: str) -> dict[str, int]:
    return {person.name: person.faces for person in client.people(collection)}


@pytest.fixture(params=["local", "remote"])
def into(request: pytest.FixtureRequest, running: Service, collection: str) -> Arguments:
    """The options that name the running service: its data directory, or its URL."""
    where = ("--data-dir", str(running.data_dir)) if request.param == "local" else ("--url", running.url)
    return (*where, "--collection", collection)


def test_a_folder_is_enrolled_once(
    people: Path, into: Arguments, command: Command, client: Recognizer, collection: str, tmp_path: Path
) -> None:
    looked = command("enroll", str(people), "--dry-run", *into)
    assert (looked.returncode, enrolled(client, collection)) == (4, {})
    would = {name: ("would_enrol" if status == "enrolled" else status, why) for name, (status, why) in EXPECTED.items()}
    assert rows(tmp_path) == would
    first = command("enroll", str(people), *into)
    assert (first.returncode, rows(tmp_path)) == (4, EXPECTED)
    assert first.stdout.startswith("3 enrolled, 2 refused, 2 skipped.")
    assert "1 multiple_faces: several faces in a photo; --largest-face" in first.stdout
    assert enrolled(client, collection) == {"Biden": 1, "Obama": 2}
    second = command("enroll", str(people), "--largest-face", *into)
    again = {"Biden/both.jpg": ("enrolled", "")} | {
        name: ("already_enrolled", "") for name, (status, _) in EXPECTED.items() if status == "enrolled"
    }
    assert second.returncode == 4
    assert rows(tmp_path) == EXPECTED | again
    assert enrolled(client, collection) == {"Biden": 2, "Obama": 2}


def test_all_is_well_is_exit_code_0(
    small: Small, into: Arguments, command: Command, client: Recognizer, collection: str, tmp_path: Path
) -> None:
    for name in ("Obama", "OBAMA"):
        (tmp_path / "people" / name).mkdir(parents=True)
        (tmp_path / "people" / name / "1.jpg").write_bytes(small("obama"))
        (tmp_path / "people" / name / ".DS_Store").write_bytes(b"x")
    ran = command("enroll", str(tmp_path / "people"), *into)
    assert ran.returncode == 0, ran.stderr
    assert "`Obama` and `OBAMA` are the same name without regard to case: one person." in ran.stderr
    assert list(enrolled(client, collection).values()) == [2]


def test_a_photo_that_was_taken_back_is_enrolled_again(
    people: Path, command: Command, client: Recognizer, collection: str, running: Service
) -> None:
    into = ("--url", running.url, "--collection", collection)  # it would answer again what it answered then
    command("enroll", str(people), *into)
    (person,) = client.people(collection, query="Biden")
    (face,) = client.person(person.id).faces
    assert httpx.delete(f"{running.url}/v1/people/{person.id}/faces/{face.id}").status_code == 200
    command("enroll", str(people), *into)
    assert enrolled(client, collection)["Biden"] == 1


@pytest.mark.parametrize("how", ["local", "remote"])
def test_what_cannot_be_done_is_said_in_a_sentence(
    how: str, people: Path, running: Service, command: Command, tmp_path: Path
) -> None:
    into = ("--data-dir", str(running.data_dir)) if how == "local" else ("--url", running.url)
    unknown = command("enroll", str(people), *into, "--collection", "nope")
    assert (unknown.returncode, unknown.stderr) == (
        1,
        "Error: There is no collection `nope`. Add --create-collection to have it made.\n",
    )
    absent = command("enroll", str(tmp_path / "absent"), *into)
    assert (absent.returncode, absent.stderr.count("\n")) == (1, 1)
    assert absent.stderr.endswith("absent cannot be read: No such file or directory.\n")
    made = command("enroll", str(people), *into, "--collection", f"made {how}", "--create-collection")
    assert made.returncode == 4


def test_a_wrong_key_ends_it_at_once(people: Path, running: Service, command: Command) -> None:
    ran = command("enroll", str(people), "--url", running.url, RECOGNIZER_API_KEY="rk_wrong")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "rk_wrong" not in ran.stderr


def test_hostile_files_are_rows(
    shared: Path, running: Service, collection: str, command: Command, tmp_path: Path
) -> None:
    root = tmp_path / "people"
    root.mkdir()
    (root / "Hostile").symlink_to(shared / "hostile")  # leads out: nothing of it is read
    (root / "Bomb").mkdir()
    Image.new("1", (20_000, 20_000)).save(root / "Bomb" / "bomb.png")
    (root / "Bomb" / "empty.jpg").touch()
    (root / ("N" * 201)).mkdir()
    (root / ("N" * 201) / "1.jpg").write_bytes(b"x")
    ran = command("enroll", str(root), "--data-dir", str(running.data_dir), "--collection", collection)
    assert ran.returncode == 4, ran.stderr
    assert rows(tmp_path) == {
        "Bomb/bomb.png": ("refused", "image_too_large"),
        "Bomb/empty.jpg": ("refused", "image_unsupported"),
        "Hostile": ("skipped", "link_outside"),
        f"{'N' * 201}/1.jpg": ("refused", "invalid_name"),
    }


def test_killed_or_interrupted_it_goes_on_where_it_was(
    small: Small, running: Service, client: Recognizer, collection: str, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "people" / "Obama"
    folder.mkdir(parents=True)
    for number in range(72):
        (folder / f"{number:02}.jpg").write_bytes(small("obama"))
    arguments = ("enroll", str(folder.parent), "--data-dir", str(running.data_dir), "--collection", collection)
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        before = enrolled(client, collection).get("Obama", 0)
        process = begun(tmp_path, *arguments, "--workers", "1")
        try:
            until = time.monotonic() + 60
            while enrolled(client, collection).get("Obama", 0) == before:
                assert time.monotonic() < until
                time.sleep(0.01)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == code
        kept = enrolled(client, collection)["Obama"]
        assert before < kept < 72
    assert said.endswith("Interrupted; run the same command again to go on.\n")
    counts = Counter(status for status, _ in rows(tmp_path).values())
    assert counts["enrolled"] + counts["already_enrolled"] == kept  # what was in flight is in the report
    last = command(*arguments)
    assert last.returncode == 0, last.stderr
    assert Counter(status for status, _ in rows(tmp_path).values()) == {"already_enrolled": kept, "enrolled": 72 - kept}
    assert enrolled(client, collection) == {"Obama": 72}


def begun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "recognizer", *arguments, "--report", str(folder / "report.csv")],
        env=os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
