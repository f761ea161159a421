"""Tables as CSV that people open with a spreadsheet: what others have named runs nothing there."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import Protocol

_BEGIN = r"=+\-@\uff1d\uff0b\uff0d\uff20"
"""What a formula may begin with; the last four are the wide forms."""
_IN_FRONT = re.compile(rf"[{_BEGIN}\t\r\n]")
_BEHIND = re.compile(rf"([;,\t\r\n])(?=[{_BEGIN}])")
"""Behind what the spreadsheet of another language takes for the end of a cell."""


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
    if not isinstance(cell, str):
        return cell
    inside = _BEHIND.sub(r"\1'", cell)
    return f"'{inside}" if _IN_FRONT.match(cell) else inside
