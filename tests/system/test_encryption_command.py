"""`recognizer encryption`: keys are made and changed while the service goes on, and what is wrong is said."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from system_calls import Service, enroll

LIMIT_SECONDS = 60


def run(data_dir: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recognizer", *command, "--data-dir", str(data_dir)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def encryption(data_dir: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(data_dir, "encryption", command, **environment)


def key_ids(data_dir: Path) -> list[str]:
    """The keys of the file, as its comments name them."""
    lines = (data_dir / "encryption-keys").read_text().splitlines()
    return [line.split("# ")[1].split(",")[0] for line in lines if "  # " in line]


def reload(service: Service, key_id: str) -> None:
    assert service.process
    service.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < until:
        answer = httpx.get(f"{service.url}/health/ready", timeout=5).json()
        if answer["checks"]["encryption"]["keys"][:1] == [key_id] and "Reloaded" in service.said():
            return
        time.sleep(0.2)
    raise AssertionError(service.said())


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGHUP")
def test_a_key_is_made_and_changed_while_the_service_goes_on(own_service: Service, photos: Path) -> None:
    data_dir, photo = own_service.data_dir, (photos / "obama.jpg").read_bytes()
    own_service.start()
    made = encryption(data_dir, "create-key")
    assert made.returncode == 0, made.stderr
    assert "kill -HUP" in made.stdout
    (first,) = key_ids(data_dir)
    collection = f"{own_service.url}/v1/collections/default"
    assert httpx.patch(collection, json={"keep_photos": True}).json()["code"] == "encryption_key_missing"
    reload(own_service, first)
    assert httpx.patch(collection, json={"keep_photos": True}).status_code == 200
    enrolled = enroll(own_service.url, "Obama", photo).json()
    image = f"{own_service.url}/v1/people/{enrolled['person']['id']}/faces/{enrolled['enrolled'][0]['face_id']}/image"

    assert encryption(data_dir, "add-key").returncode == 0
    second, *others = key_ids(data_dir)
    assert others == [first]
    early = encryption(data_dir, "re-encrypt")
    assert (early.returncode, early.stdout) == (1, "")
    assert f"does not have the key {second} yet; first kill -HUP" in early.stderr
    assert f"{first}  decrypts only  1 photos" in encryption(data_dir, "status").stdout
    assert httpx.get(image).content == photo
    own_service.output.truncate(0)
    reload(own_service, second)
    done = encryption(data_dir, "re-encrypt")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{first}  nothing needs it any more" in done.stdout
    assert httpx.get(image).content == photo
    assert f"{second}  encrypts       1 photos" in encryption(data_dir, "status").stdout
    check = run(data_dir, "check").stdout
    assert f"ok      encryption 2 keys, {second} encrypts" in check

    keys = (data_dir / "encryption-keys").read_text()
    (data_dir / "encryption-keys").write_text(keys.replace(keys.splitlines()[2], ""))  # the wrong one is taken out
    for command in (("encryption", "status"), ("check",)):
        missing = run(data_dir, *command)
        assert missing.returncode == 1
        assert f"1 photos (key {second}). Put the keys back" in missing.stdout + missing.stderr


def test_a_key_file_is_never_overwritten_and_ours_alone(tmp_path: Path) -> None:
    none = encryption(tmp_path / "d", "add-key")
    assert (none.returncode, none.stderr.count("\n")) == (1, 1)
    assert "create-key" in none.stderr
    assert encryption(tmp_path / "d", "create-key").returncode == 0
    path = tmp_path / "d" / "encryption-keys"
    before = path.read_bytes()
    assert os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == 0o600
    again = encryption(tmp_path / "d", "create-key")
    assert (again.returncode, path.read_bytes()) == (1, before)
    assert "add-key" in again.stderr
    elsewhere = tmp_path / "keys"
    named = encryption(tmp_path / "d", "create-key", RECOGNIZER_ENCRYPTION_KEY_FILE=str(elsewhere))
    assert named.returncode == 0, named.stderr
    assert elsewhere.read_bytes() != before


@pytest.mark.parametrize("command", ["create-key", "add-key"])
def test_keys_of_the_environment_are_not_changed_in_a_file(tmp_path: Path, command: str) -> None:
    text = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    answer = encryption(tmp_path, command, RECOGNIZER_ENCRYPTION_KEYS=text)
    assert answer.returncode == 1
    assert "RECOGNIZER_ENCRYPTION_KEYS" in answer.stderr
    assert text not in answer.stderr
    assert list(tmp_path.iterdir()) == []
