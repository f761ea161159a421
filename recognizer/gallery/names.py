"""Names: how they are kept and how they are compared."""

from __future__ import annotations

import unicodedata

from recognizer.errors import InvalidRequest

MAX_NAME_LENGTH = 200


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
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InvalidRequest("A name holds control characters; send plain text.")
    return text
