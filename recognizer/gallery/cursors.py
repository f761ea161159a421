"""Cursors of listings: the place where a page has ended, bound to the query that the page was of."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from recognizer.errors import InvalidRequest

NOT_OURS = "The `cursor` is not one that this service has given out; begin again without it."


def written(digest: str, place: Sequence[str | int]) -> str:
    """The cursor of a place in what a query of this digest finds."""
    return base64.urlsafe_b64encode(json.dumps([digest, *place], ensure_ascii=False).encode()).decode()


def place(cursor: str, digest: str) -> list[Any]:
    """The place that a cursor says; what is in it is the caller's to check.

    Raises:
        InvalidRequest: it is none of ours, or one of another query.
    """
    try:
        read: list[Any] = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        bound_to, *found = read
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(NOT_OURS) from error
    if bound_to != digest:
        raise InvalidRequest("The `cursor` is of another query; send it with the options of the page it came with.")
    return found
