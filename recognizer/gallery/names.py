"""Names: how they are kept and how they are compared."""

from __future__ import annotations

import re
import unicodedata

from recognizer.errors import InvalidRequest

MAX_NAME_LENGTH = 200

NOT_DECODED = "\ufffd"
"""What stands where bytes were no UTF-8, as some consoles send names."""

PARTS_OF_EMOJI = re.compile("[\u200c\u200d\U000e0020-\U000e007f]")
"""Joiners, which some scripts need too, and the tags of flags: invisible, and part of what is written."""


def tidy(name: str, what: str = "name") -> str:
    """The name as it is kept: NFC, each run of spaces one space.

    Raises:
        InvalidRequest: it is empty, too long or no plain text.
    """
    kept = _plain(name)
    if not 1 <= len(kept) <= MAX_NAME_LENGTH:
        raise InvalidRequest(f"The {what} must have 1 to {MAX_NAME_LENGTH} characters.")
    return kept


def comparable(name: str) -> str:
    """The name as it is compared: as it is kept, and without case.

    Raises:
        InvalidRequest: it is no plain text.
    """
    return unicodedata.normalize("NFC", _plain(name).casefold())


def _plain(name: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", name).split())
    if NOT_DECODED in text:
        raise InvalidRequest("A name is not valid UTF-8; two different names could be taken for one. Send UTF-8.")
    if any(map(_is_invisible, text)):
        raise InvalidRequest("A name holds control or invisible characters; send plain text.")
    return text


def _is_invisible(character: str) -> bool:
    """Whether two names that differ in this character would look alike, or one would turn around what follows."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and not PARTS_OF_EMOJI.match(character)
