"""The report: a CSV file with a row for each photo, written as the photos are done, and the figures of the end."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from recognizer.enrolling.items import NOT_A_PHOTO, Row
from recognizer.errors import StartupError
from recognizer.spreadsheets import Table

COLUMNS = ("file", "person", "status", "reasons", "detail", "person_id", "face_id", "quality")


class Report:
    """Writes rows to a file that only this user can read: it holds names. Used by one thread.

    What has been written is there whatever happens to this process.
    """

    def __init__(self, path: Path) -> None:
        """Begin the file anew.

        Raises:
            StartupError: it cannot be written.
        """
        self.path = path
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.left_out = 0
        try:
            # a file name need not be valid UTF-8; what is not is written as \udc..
            self._file = open(  # noqa: SIM115 - closed in close()
                path, "w", newline="", encoding="utf-8", errors="backslashreplace", opener=_for_us_alone
            )
        except OSError as error:
            raise StartupError(self._unwritable(error)) from error
        self._table = Table(self._file)
        self._write(COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()

    def add(self, row: Row) -> None:
        """Write a row.

        Raises:
            StartupError: the disk is full, or gone.
        """
        outcome = row.outcome
        quality = "" if outcome.quality is None else f"{outcome.quality:.3f}"
        self._write(
            (
                row.label,
                row.person,
                outcome.status,
                " ".join(outcome.reasons),
                outcome.detail,
                outcome.person_id,
                outcome.face_id,
                quality,
            )
        )
        self.statuses[outcome.status] += 1
        self.left_out += outcome.is_left_out
        if outcome.is_left_out or NOT_A_PHOTO in outcome.reasons:
            self.reasons.update(outcome.reasons)

    def _write(self, cells: tuple[str, ...]) -> None:
        try:
            self._table.write(cells)
            self._file.flush()
        except OSError as error:
            raise StartupError(self._unwritable(error)) from error

    def _unwritable(self, error: OSError) -> str:
        return f"The report {self.path} cannot be written: {error.strerror}. Choose another place with --report FILE."


def _for_us_alone(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
