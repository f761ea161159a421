"""Ids for many that come at once."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator


def rising_ids(count: int) -> Iterator[uuid.UUID]:
    """Random ids, each from its own part of all that there are: nobody can guess one, and they come in their order.

    So the indexes of the database grow at one place after the other, and not everywhere at once.
    """
    for number in range(count):
        yield uuid.UUID(int=((number << 128) + secrets.randbits(128)) // count, version=4)
