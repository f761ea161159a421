"""A file that is written under another name first: whole or not at all, and what was killed is cleared away."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recognizer.partial_file import replacing

ROOT = Path(__file__).resolve().parents[2]
AT_WORK = """
import sys, time
from pathlib import Path
from recognizer.partial_file import replacing
with replacing(Path(sys.argv[1])) as path:
    path.write_text("half")
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that writes `tmp_path / "file"`, and the path it writes to."""
    arguments = [sys.executable, "-c", AT_WORK, str(tmp_path / "file")]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_the_target_is_replaced_as_a_whole_and_is_ours_alone(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with replacing(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "new"
    assert os.name == "nt" or stat.S_IMODE(target.stat().st_mode) == 0o600


def test_what_fails_leaves_nothing_and_the_target_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as path:
        path.write_text("new")
        raise RuntimeError
    assert (list(tmp_path.iterdir()), target.read_text()) == ([target], "old")


def test_what_a_killed_process_has_left_goes_and_what_another_one_writes_stays(
    tmp_path: Path, at_work: tuple[subprocess.Popen[str], Path]
) -> None:
    process, theirs = at_work
    target = tmp_path / "file"
    with replacing(target):
        pass
    assert theirs.read_text() == "half"
    process.kill()
    process.wait(10)
    assert theirs.exists()
    with replacing(tmp_path / "other"):
        pass
    assert theirs.exists(), "it is none of another file's"
    with replacing(target) as path:
        assert [path.name] == [each.name for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_nothing_else_is_taken_for_a_leftover(tmp_path: Path) -> None:
    kept = [".file-20260131", ".file-20260131.partial.txt", ".file-2026.partial", ".file2-20260131.partial"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".file-aaaaaaaa.partial").mkdir()
    if os.name == "posix":
        (tmp_path / ".file-bbbbbbbb.partial").symlink_to(tmp_path / kept[0])
        kept.append(".file-bbbbbbbb.partial")
    with replacing(tmp_path / "file"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*kept, ".file-aaaaaaaa.partial", "file"}
    assert (tmp_path / kept[0]).read_text() == "mine"
