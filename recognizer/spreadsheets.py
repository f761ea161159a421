"""Tables as CSV that people open with a spreadsheet: what others have named runs nothing there."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Protocol

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What the first character of a formula may be; the last four are their wide forms."""


class _Text(Protocol):
    def write(self, text: str, /) -> object: ...


class Table:
    """Writes rows of a CSV file. Text that a spreadsheet would compute gets a `'` before it, as OWASP advises."""

    def __init__(self, file: _Text) -> None:
        self._rows = csv.writer(file)

    def write(self, cells: Iterable[object]) -> None:
        """Write a row. Raises OSError."""
        self._rows.writerow([_harmless(cell) for cell in cells])


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
