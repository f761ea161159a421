"""Moments that come from outside: with a time zone, whichever, and kept as UTC, which is all that PostgreSQL takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime


def _as_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:  # beyond either end of the calendar, by hours
        return (datetime.min if value.year == 1 else datetime.max).replace(tzinfo=UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_as_utc)]
"""For a pydantic model."""
