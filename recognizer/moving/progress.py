"""How far a long piece of work is: told to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Advance = Callable[[int], object]
"""Told how much more has been done."""

Progress = Callable[[str, str, int], AbstractContextManager[Advance]]
"""`with progress(what, unit, total) as advance:` around the work."""


def silent(what: str, unit: str, total: int) -> AbstractContextManager[Advance]:
    """Show nothing."""
    del what, unit, total
    return nullcontext(lambda _: None)
