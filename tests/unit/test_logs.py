"""The log: one line per record in both formats, stack traces, rotation, a child's lines as they are."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from recognizer import logs
from recognizer.logs import LogFile, LogFormat

LOGGER = logging.getLogger("recognizer.somewhere")


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Give the process back the log that it had."""
    root, pillow = logging.getLogger(), logging.getLogger("PIL")
    before = root.handlers[:], root.level, pillow.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    pillow.setLevel(before[2])
    logging.captureWarnings(False)


class Log(io.StringIO):
    """What was written, line by line."""

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


def configured(log_format: LogFormat = "json", level: str = "info") -> Log:
    log = Log()
    logs.configure(level, log_format, logging.StreamHandler(log))
    return log


def fail() -> None:
    try:
        raise ValueError("the inner reason")
    except ValueError:
        LOGGER.exception("It failed")


def test_a_json_line_has_its_standard_members_and_what_the_call_adds() -> None:
    log = configured()
    LOGGER.info("request", extra={"status": 200, "timings_ms": {"decode": 1.5}, "faces": None})
    (line,) = log.lines()
    members = json.loads(line)
    assert datetime.now().astimezone() - datetime.fromisoformat(members.pop("time")) < timedelta(minutes=1)
    assert members == {
        "level": "INFO",
        "logger": "recognizer.somewhere",
        "process": os.getpid(),
        "message": "request",
        "status": 200,
        "timings_ms": {"decode": 1.5},
        "faces": None,
    }


@pytest.mark.parametrize("text", ["two\nlines", 'a "quote" \\ and \x00', "Jos\u00e9 \U0001f600", "\ud800 half a pair"])
def test_a_json_record_is_one_line_whatever_is_in_it(text: str) -> None:
    log = configured()
    LOGGER.info(text, extra={"more": text})
    (line,) = log.lines()
    members = json.loads(line)
    assert (members["message"], members["more"]) == (text, text)


def test_a_text_line_is_for_people() -> None:
    log = configured("text")
    LOGGER.warning("request %s", "seven", extra={"status": 503, "code": "busy"})
    (line,) = log.lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING request seven status=503 code=busy", line)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_auto_is_text_on_a_terminal_and_json_everywhere_else(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = Log()
    monkeypatch.setattr(log, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", log)
    logs.configure("info", "auto")
    LOGGER.info("to whom it may concern")
    (line,) = log.lines()
    assert line.startswith("{") is not is_terminal
    file = LogFile(tmp_path / "recognizer.log", 2**20, 1)
    logs.configure("info", "auto", file)
    LOGGER.info("to a file")
    file.close()
    json.loads((tmp_path / "recognizer.log").read_text())


def test_an_exception_is_logged_with_its_stack_trace_as_one_json_line() -> None:
    log = configured()
    fail()
    (line,) = log.lines()
    members = json.loads(line)
    assert (members["level"], members["message"]) == ("ERROR", "It failed")
    assert members["exc_info"].startswith("Traceback")
    assert "in fail" in members["exc_info"]
    assert members["exc_info"].endswith("ValueError: the inner reason")


def test_an_exception_is_logged_with_its_stack_trace_as_text() -> None:
    log = configured("text")
    fail()
    lines = log.lines()
    assert lines[0].endswith("ERROR It failed")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: the inner reason"


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_decides_what_is_written(level: str, written: list[str]) -> None:
    log = configured(level=level)
    for name in ("debug", "info", "warning", "error"):
        getattr(LOGGER, name)(name)
    assert [json.loads(line)["message"] for line in log.lines()] == written


def test_configuring_again_replaces_what_was_there() -> None:
    first = configured()
    second = configured("text")
    LOGGER.info("once")
    assert first.lines() == []
    assert len(second.lines()) == 1


def test_a_warning_of_python_is_a_line_of_the_log() -> None:
    import warnings

    log = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure("info", "json", logging.StreamHandler(log))  # inside: catch_warnings puts back its own hook
        warnings.warn("something is old", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    (line,) = log.lines()
    assert "something is old" in json.loads(line)["message"]


@pytest.mark.parametrize("name", ["PIL", "PIL.TiffImagePlugin", "PIL.PngImagePlugin"])
def test_nothing_that_pillow_says_of_an_image_is_logged(name: str) -> None:
    log = configured(level="debug")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger(name).log(level, "tag: %s", "what a caller wrote into the image")
    assert log.lines() == []


def test_the_log_file_is_rotated_and_the_oldest_lines_go(tmp_path: Path) -> None:
    path = tmp_path / "recognizer.log"
    file = LogFile(path, max_bytes=2000, kept=2)
    logs.configure("info", "json", file)
    for number in range(200):
        LOGGER.info("line", extra={"number": number})
    file.close()
    names = ["recognizer.log.2", "recognizer.log.1", "recognizer.log"]
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert all((tmp_path / name).stat().st_size <= 2000 for name in names)
    lines = [line for name in names for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
    numbers = [json.loads(line)["number"] for line in lines]
    assert len(numbers) > 10
    assert numbers == list(range(200 - len(numbers), 200))  # none lost, none twice, none out of order


def test_a_childs_lines_are_kept_as_they_are_among_our_own(tmp_path: Path) -> None:
    path = tmp_path / "recognizer.log"
    file = LogFile(path, max_bytes=2**20, kept=1)
    logs.configure("error", "json", file)
    child = [b'{"level": "INFO", "message": "100 %s"}\n', "Jos\u00e9\n".encode(), b"\xff not UTF-8\r\n", b"cut off"]
    file.take_lines(child)
    LOGGER.error("ours")
    file.close()
    *taken, ours = path.read_text(encoding="utf-8").splitlines()
    assert taken == ['{"level": "INFO", "message": "100 %s"}', "Jos\u00e9", "\ufffd not UTF-8", "cut off"]
    assert json.loads(ours)["message"] == "ours"


def test_a_childs_lines_are_rotated_too(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "recognizer.log", max_bytes=2000, kept=3)
    logs.configure("info", "json", file)
    file.take_lines(b"%099d\n" % number for number in range(100))
    file.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 4
    assert 1900 <= max(sizes) <= 2000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_loses_lines_and_never_stops_the_reader(capsys: pytest.CaptureFixture[str]) -> None:
    file = LogFile(Path("/dev/full"), max_bytes=2**20, kept=1)
    logs.configure("info", "json", file)
    left = iter([b"one\n", b"two\n", b"three\n"])
    file.take_lines(left)
    LOGGER.info("ours")
    assert next(left, None) is None
    assert "No space left" in capsys.readouterr().err
    with suppress(OSError):  # what could not be written
        file.close()


def test_a_log_file_that_cannot_be_written_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        LogFile(tmp_path / "nowhere" / "recognizer.log", 2**20, 1)
