"""Versions: what tells states of a person or a collection apart, so that nobody overwrites what they have not seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from recognizer.errors import PreconditionFailed

Condition = Callable[[str], bool]
"""Whether a change may be made to what has this version."""


def version_of(*parts: object) -> str:
    """A word that is the same as long as `parts`, which print all that is shown of them, are the same."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def settings_of(version: str) -> str:
    """The part of a collection's version that tells what is set for it, whoever is enrolled."""
    return version.partition(".")[0]


def require_version(version: str, only_if: Condition | None) -> None:
    """Go on only with what the caller has seen; `version` is of what is stored, which is locked.

    Raises:
        PreconditionFailed
    """
    if only_if is not None and not only_if(version):
        raise PreconditionFailed("This has changed since it was read; read it again and decide again.")
