"""How the log is written: JSON lines for machines, or text for people. Never a name, an embedding or a secret.

Every process logs to its standard error. With `log_file` the supervisor reads its server's standard error and is
the only one that writes the file, so that it can be rotated whatever the number of processes.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["auto", "json", "text"]

STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would begin a line of its own, or move about in a terminal; what follows a line feed is indented instead."""


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 INFO message key=value ...`; what a call passes as `extra` follows the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        extras = (f"{name}={value}" for name, value in vars(record).items() if name not in STANDARD_FIELDS)
        return CONTROL.sub(_escaped, " ".join([super().formatMessage(record), *extras]))


def _escaped(character: re.Match[str]) -> str:
    return "\n    " if character[0] == "\n" else character[0].encode("unicode_escape").decode()


def formatter(log_format: LogFormat, is_terminal: bool = False) -> logging.Formatter:
    """The formatter of a setting `log_format`; "auto" is text for a person at a terminal, JSON for everything else."""
    if log_format == "text" or (log_format == "auto" and is_terminal):
        return TextFormatter()
    return JsonFormatter(
        "{levelname}{name}{process}{message}",
        style="{",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
    )


def configure(level: str, log_format: LogFormat, handler: logging.Handler | None = None) -> None:
    """Send the whole process's log to `handler`, default standard error; safe to call again."""
    handler = handler or logging.StreamHandler(sys.stderr)
    is_terminal = isinstance(handler, logging.StreamHandler) and handler.stream.isatty()  # a log file never is one
    handler.setFormatter(formatter(log_format, is_terminal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    logging.getLogger("PIL").setLevel("CRITICAL")  # its complaints about odd images quote what a caller sent


class LogFile(RotatingFileHandler):
    """A log file that is rotated by size; takes this process's records and the finished lines of a child.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int, kept: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=kept, encoding="utf-8")

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if record.name == FINISHED else super().format(record)

    def take_lines(self, lines: Iterable[bytes]) -> None:
        """Write a child's lines as they are, until it ends; a full disk loses lines, never blocks the child."""
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            self.handle(logging.LogRecord(FINISHED, logging.INFO, "", 0, "%s", (text,), None))


FINISHED = "finished lines"
"""The logger name of lines that a child has formatted already."""
