"""How the log is written: JSON lines for machines, or text for people. Never a name, an embedding or a secret."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["json", "text"]

STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 INFO message key=value ...`; what a call passes as `extra` follows the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        extras = (f"{name}={value}" for name, value in vars(record).items() if name not in STANDARD_FIELDS)
        return " ".join([super().formatMessage(record), *extras])


def configure(level: str, log_format: LogFormat) -> None:
    """Send the whole process's log to standard error; safe to call again."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        fields = {"levelname": "level", "name": "logger"}
        handler.setFormatter(
            JsonFormatter("{levelname}{name}{process}{message}", style="{", rename_fields=fields, timestamp="time")
        )
    else:
        handler.setFormatter(TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
