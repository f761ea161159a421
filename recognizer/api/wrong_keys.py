"""Wrong keys: logged, and counted by the address they come from, so that one that sends many is told to wait.

The right key from the same address is never refused: behind one address there may be many machines. That is no loss,
because nobody guesses 256 random bits; docs/adr/0011-throttling.md says what the slowing is for.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from recognizer.errors import TooManyWrongKeys, Unauthorized
from recognizer.gallery.keys import KEY

LOGGER = logging.getLogger(__name__)

MOST = 20
WINDOW_SECONDS = 60.0
"""So many in this time are answered 401, and logged one by one."""

ADDRESSES = 10_000
"""Remembered at most; the one that began first is forgotten for the next."""


class WrongKeys:
    """The addresses that sent wrong keys to this worker; safe to use from many threads, and no wait in it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when its window ends, and how many

    def refusal(self, presented: str, address: str | None) -> Unauthorized | TooManyWrongKeys:
        """Count a wrong key, log it unless there are too many, and give the error to raise."""
        place = _place(address)
        number, seconds = self._count(place)
        if number <= MOST:
            key = KEY.fullmatch(presented)
            facts = {"address": place, "key_id": key[1] if key else "malformed"}  # of the key nothing else
            LOGGER.warning("wrong API key", extra=facts)
            return Unauthorized("This API key is not valid: it is mistyped or cut off, or revoked, or has expired.")
        if number == MOST + 1:
            LOGGER.warning("many wrong API keys; no more of them are logged for a while", extra={"address": place})
        return TooManyWrongKeys(
            "Too many API keys that are not valid came from this address; correct the key before trying again.",
            math.ceil(seconds),
        )

    def _count(self, place: str) -> tuple[int, float]:
        """How many there have been in the window, this one too, and the seconds until its end."""
        now = self._clock()
        with self._lock:
            until, number = self._seen.get(place, (0.0, 0))
            if until <= now:
                self._seen.pop(place, None)
                until, number = now + WINDOW_SECONDS, 0
            self._seen[place] = until, number + 1
            if len(self._seen) > ADDRESSES:
                self._seen.popitem(last=False)
        return number + 1, until - now


def _place(address: str | None) -> str:
    """What counts as one address: of IPv6, the network that one subscriber gets."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
