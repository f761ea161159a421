"""What a route declares of itself, and what can go wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recognizer import errors
from recognizer.api.takes import Errors, Takes

Scope = Literal["recognize", "enroll", "admin", "public"]
"""What a key must allow for a route; `public` routes need no key."""

Answers = Mapping[int, Any]
"""By status: a TypedDict, a `Media`, or both in a tuple; None: no body."""

WITH_A_KEY: Errors = (
    errors.Unauthorized,
    errors.TooManyWrongKeys,
    errors.Forbidden,
    errors.RateLimited,
    errors.DatabaseUnavailable,
    errors.DeadlineExceeded,
)
"""What can be wrong with a request that needs a key, which is looked up in the database."""

SEALED: Errors = (errors.EncryptionKeyMissing, errors.SealBroken)
"""What can be wrong where embeddings of a collection are read or written that has them encrypted."""

ALWAYS: Errors = (errors.Busy, errors.RecognizerError)
"""What can be wrong with any request."""


@dataclass(frozen=True, slots=True)
class Operation:
    """The declaration of one route."""

    scope: Scope
    takes: Takes
    answers: Answers
    own_errors: Errors
    own_headers: tuple[str, ...] = ()

    @property
    def errors(self) -> Errors:
        """All that the route may raise, the most particular first."""
        by_key = () if self.scope == "public" else WITH_A_KEY
        behind = (errors.GalleryBehind,) if "min_revision" in self.option_names else ()
        return (*self.takes.errors, *self.own_errors, *behind, *by_key, *ALWAYS)

    @property
    def option_names(self) -> frozenset[str]:
        """The options that the route knows."""
        return frozenset(self.takes.options.model_fields if self.takes.options else ())

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers of a request that change what is done."""
        if_match = ("If-Match",) if errors.PreconditionFailed in self.own_errors else ()
        return (*self.own_headers, *if_match, *(("If-None-Match",) if 304 in self.answers else ()))
