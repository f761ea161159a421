"""How far a mass enrolment is: a bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import click
from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts photos, with the rate and the time that the rest takes; used by one thread."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._began = self._said = time.monotonic()
        self._bar = tqdm(total=total, unit=" photos", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            rate = self._done / (now - self._began)
            left = tqdm.format_interval(max(0, self._total - self._done) / rate)
            click.echo(f"{self._done:,} of {self._total:,} photos, {rate:.1f} a second, {left} left", err=True)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._bar.disable:
            click.echo(text, err=True)
        else:
            self._bar.write(text, file=sys.stderr)
