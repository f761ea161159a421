"""What an operator copies or looks up: the systemd unit, and documents that leave nothing out."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recognizer import errors, supervisor
from recognizer.config import Settings
from recognizer.metrics import VOCABULARY

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "config" / "recognizer.service"
PROGRAM = "/opt/recognizer/.venv/bin/python"


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    return unit["Service"]


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    copy = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    assert PROGRAM in text
    copy.write_text(text.replace(PROGRAM, sys.executable), encoding="utf-8")  # verify wants to find it
    done = subprocess.run([program, "verify", "--man=no", copy], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_order_of_stopping_is_the_supervisors(service: configparser.SectionProxy) -> None:
    assert service["KillMode"] == "mixed", "SIGTERM to the supervisor alone"
    assert int(service["TimeoutStopSec"]) >= Settings().stop_timeout_seconds + 45, "the server's end, then PostgreSQL's"


def test_the_unit_gives_up_only_where_trying_again_cannot_help(service: configparser.SectionProxy) -> None:
    assert service["Restart"] == "on-failure"
    assert int(service["RestartPreventExitStatus"]) == supervisor.EXIT_ALREADY_RUNNING


def test_the_unit_runs_an_ordinary_user_on_a_data_directory_of_its_own(service: configparser.SectionProxy) -> None:
    assert service["User"] not in ("", "root", "0")
    assert f"/var/lib/{service['StateDirectory']}" == service["Environment"].partition("RECOGNIZER_DATA_DIR=")[2]
    assert service["ExecStart"] == f"{PROGRAM} -m recognizer serve"


def test_the_operations_document_explains_every_metric() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(recognizer_\w+)` \| (\w+) \|", text, flags=re.M))
    assert listed == {name: declared.kind for name, declared in VOCABULARY.items()}


def codes(error: type[errors.RecognizerError]) -> set[str]:
    return {error.code}.union(*(codes(child) for child in error.__subclasses__()))


def test_the_troubleshooting_document_explains_every_code_that_a_caller_may_get() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    never_answered = codes(errors.StartupError) | codes(errors.CommandFailed)
    for code in codes(errors.RecognizerError) - never_answered:
        assert f"`{code}`" in text, code


@pytest.mark.parametrize("name", ["operations.md", "privacy.md", "security.md", "troubleshooting.md"])
def test_the_documents_name_only_settings_and_files_that_exist(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    for setting in re.findall(r"\bRECOGNIZER_([A-Z_]+)\b", text):
        assert setting == "CONFIG" or setting.lower() in Settings.model_fields, setting
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / "docs" / link).exists(), link
    for path in re.findall(r"\b((?:config|scripts|docs)/[\w./-]+\w)", text):
        assert (ROOT / path).exists(), path
