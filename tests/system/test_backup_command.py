"""`recognizer backup` and `recognizer restore` as an operator uses them: beside the running service, and without it."""

from __future__ import annotations

import json
import resource
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
from system_calls import Service, enroll, recognize
from traces import execute

LIMIT_SECONDS = 120


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "recognizer", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def answers(url: str, *photos: bytes) -> list[Any]:
    """What the service says of photos, but for what is of the request alone."""
    found = [recognize(url, photo).json() for photo in photos]
    for answer in found:
        del answer["request_id"]
    return found


def trail(data_dir: Path) -> list[Any]:
    return execute(data_dir, "SELECT number, action, encode(hash, 'hex') FROM audit ORDER BY number")


def test_everything_is_back_after_a_backup_while_serving(own_service: Service, photos: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "all.backup", own_service.data_dir
    assert command("encryption", "create-key", "--data-dir", folder).returncode == 0
    service = own_service.start()
    obama, obama2, biden = ((photos / f"{name}.jpg").read_bytes() for name in ("obama", "obama2", "biden"))
    person = enroll(service.url, "Obama", obama, obama2).json()["person"]["id"]
    enroll(service.url, "Biden", biden)
    image = {"image": ("biden.jpg", biden)}
    assert httpx.post(f"{service.url}/v1/people/{person}/rejections", files=image, timeout=60).status_code == 201
    while execute(service.data_dir, "SELECT FROM cohorts JOIN spaces ON id = space_id WHERE seen < changes"):
        time.sleep(0.1)  # until the figures that decisions rest on have settled
    doors = {"name": "doors", "encrypt_embeddings": True}
    assert httpx.post(f"{service.url}/v1/collections", json=doors).status_code == 201
    enroll(service.url, "Biden", biden, collection="doors")
    before, entries = answers(service.url, obama2, biden), trail(service.data_dir)
    done = command("backup", "--data-dir", service.data_dir, file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 people, 4 faces, 0 photos. Written and read back." in done.stdout
    assert "What is encrypted in it needs the key " in done.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = command("backup", "--data-dir", service.data_dir, file)
    assert (again.returncode, again.stderr) == (
        1,
        f"Error: {file} is there already; choose another name, or --force to replace it.\n",
    )
    refused = command("restore", "--data-dir", service.data_dir, file, "--replace")
    assert refused.returncode == 1
    assert "is in use by process" in refused.stderr
    enroll(service.url, "Somebody else", obama, force="true")
    assert service.stop() == 0

    refused = command("restore", "--data-dir", service.data_dir, file)
    assert refused.returncode == 1
    assert "people 4" in refused.stderr
    assert "with --replace the backup takes the place of all of it" in refused.stderr
    for target, options in ((service.data_dir, ["--replace"]), (service.data_dir.parent / "fresh", [])):
        restored = command("restore", "--data-dir", target, file, *options)
        assert restored.returncode == 0, restored.stderr
        assert "3 people, 4 faces" in restored.stdout
    assert "WARNING: what is encrypted with the key" in restored.stdout
    shutil.copy(folder / "encryption-keys", target)
    other = Service(target, "--workers", "1")
    try:
        other.start()
        assert answers(other.url, obama2, biden) == before
        at_the_doors = recognize(other.url, biden, collection="doors").json()["faces"][0]
        assert (at_the_doors["decision"], at_the_doors["person"]["name"]) == ("match", "Biden")
        kept = trail(target)
        assert kept[: len(entries)] == entries
        assert kept[len(entries)][1] == "restored"
        with pytest.raises(psycopg2.Error, match="only ever added to"):
            execute(target, "DELETE FROM audit")
        assert enroll(other.url, "Third", biden, force="true").status_code == 201
    finally:
        other.close()


@pytest.fixture(scope="module")
def backup(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound backup."""
    file = tmp_path_factory.mktemp("backup") / "sound.backup"
    assert command("backup", "--data-dir", service.data_dir, file).returncode == 0
    return file


def with_manifest(backup: Path, target: Path, **changes: object) -> Path:
    """The same backup with another manifest."""
    with zipfile.ZipFile(backup) as old, zipfile.ZipFile(target, "w") as new:
        new.writestr("database.dump", old.read("database.dump"))
        new.writestr("manifest.json", json.dumps({**json.loads(old.read("manifest.json")), **changes}))
    return target


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("cut", "is no backup of the recognizer, or is damaged or cut off"),
        ("flipped", "is damaged"),
        ("swapped", "is damaged: the dump in it is not as it was written"),
        ("rubbish", "is no backup of the recognizer"),
        ("newer format", "was made by a newer version of this program"),
        ("newer schema", "was made by a newer version of this program (it has 9999_future)"),
        ("missing", "There is no file"),
    ],
)
def test_a_backup_that_cannot_be_trusted_is_refused_before_anything_is_touched(
    backup: Path, tmp_path: Path, damage: str, sentence: str
) -> None:
    file, content = tmp_path / "bad.backup", backup.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "swapped":
        with_manifest(backup, file, dump_sha256="0" * 64)
    elif damage == "rubbish":
        file.write_bytes(b"rubbish" * 1000)
    elif damage == "newer format":
        with_manifest(backup, file, format=2, something="new")
    elif damage == "newer schema":
        with zipfile.ZipFile(backup) as archive:
            known = json.loads(archive.read("manifest.json"))["migrations"]
        with_manifest(backup, file, migrations={**known, "9999_future": "00" * 32})
    target = tmp_path / "target"
    refused = command("restore", "--data-dir", target, file)
    assert refused.returncode == 1
    assert sentence in refused.stderr
    assert not target.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_leaves_nothing_behind(service: Service, tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = command("backup", "--data-dir", service.data_dir, tmp_path / "f.backup", preexec_fn=small_files)
    assert done.returncode == 1
    assert "There is no room for" in done.stderr
    assert "bytes are needed. Nothing was left behind." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_a_backup(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "f.backup"
    file.write_text("old")
    assert command("backup", "--data-dir", service.data_dir, file, "--force").returncode == 0
    assert zipfile.is_zipfile(file)
    assert list(tmp_path.iterdir()) == [file]
    nowhere = command("backup", "--data-dir", service.data_dir, tmp_path / "no" / "f.backup")
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)
    assert "cannot be written: No such file or directory" in nowhere.stderr
