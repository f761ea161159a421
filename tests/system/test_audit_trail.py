"""`recognizer audit` and `recognizer retention` beside the running service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
from system_calls import Service, enroll

LIMIT_SECONDS = 60


def recognizer(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recognizer", *arguments, "--data-dir", str(data_dir)],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def test_the_trail_of_a_running_service_is_whole_and_has_what_was_done(own_service: Service, photos: Path) -> None:
    own_service.start()
    made = enroll(own_service.url, "Obama", (photos / "obama.jpg").read_bytes())
    person = made.json()["person"]["id"]
    assert httpx.delete(f"{own_service.url}/v1/people/{person}", timeout=30).status_code == 200
    verified = recognizer(own_service.data_dir, "audit", "verify")
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout.startswith("The audit trail is whole: 2 entries, from ")
    assert (own_service.data_dir / "audit-head").read_text() == verified.stdout.split("Head: ")[1]
    listed = recognizer(own_service.data_dir, "audit", "list", "--person", person)
    assert [line.split()[3:5] for line in listed.stdout.splitlines()] == [["local", "erased"], ["local", "enrolled"]]
    change = {"retention_days": 30}
    httpx.patch(f"{own_service.url}/v1/collections/default", json=change, timeout=30).raise_for_status()
    tried = recognizer(own_service.data_dir, "retention", "--dry-run")
    assert (tried.returncode, tried.stdout) == (0, "default: 0 people would be erased.\n")
