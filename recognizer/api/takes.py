"""What a route takes: the one declaration from which a request is read and the document tells how to send it.

A view gets `options`, checked by the class that is named here, and `images` where there are any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from flask import Request

from recognizer import errors
from recognizer.api import uploads
from recognizer.api.uploads import Options
from recognizer.config import Settings

Errors = tuple[type[errors.RecognizerError], ...]


class Takes(Protocol):
    """How the options, and the images, of a request arrive."""

    @property
    def options(self) -> type[Options] | None:
        """The schema of the options; None: there are none."""

    @property
    def errors(self) -> Errors:
        """What can be wrong with such a request."""

    def read(self, request: Request, settings: Settings) -> dict[str, Any]:
        """The view's arguments; raises one of `errors`."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A request that says all by its path."""

    options: None = None
    errors: Errors = ()

    def read(self, request: Request, settings: Settings) -> dict[str, Any]:
        """There is nothing to read."""
        return {}


@dataclass(frozen=True, slots=True)
class Query:
    """Options in the query string."""

    options: type[Options]
    errors: Errors = (errors.InvalidRequest,)

    def read(self, request: Request, settings: Settings) -> dict[str, Any]:
        """`options`."""
        return {"options": uploads.options_as(self.options, uploads.single_values(request.args))}


@dataclass(frozen=True, slots=True)
class Body:
    """Options in a JSON object, the query string beside it; `optional`: without a body, or as a form, as well."""

    options: type[Options]
    optional: bool = False
    errors: Errors = (errors.InvalidRequest, errors.ImageTooLarge)

    def read(self, request: Request, settings: Settings) -> dict[str, Any]:
        """`options`."""
        if self.optional and not request.is_json:
            given = uploads.form_options(request)
        else:
            given = uploads.json_options(request)
        return {"options": uploads.options_as(self.options, given)}


@dataclass(frozen=True, slots=True)
class Images:
    """Images in one of the ways of `uploads.read`, options beside them; `at_most` None: as many as an enrolment may.

    `with_other`: there may be an `other_image`, too. `empty_ones`: images of 0 bytes are left to the view.
    """

    options: type[Options]
    at_least: int = 1
    at_most: int | None = 1
    with_other: bool = False
    empty_ones: bool = False
    errors: Errors = (
        errors.InvalidRequest,
        errors.ImageMissing,
        errors.ImageTooLarge,
        errors.ImageUnsupported,
        errors.ImageCorrupt,
    )

    def read(self, request: Request, settings: Settings) -> dict[str, Any]:
        """`images`, the bytes of each, `options`, and `other_image` where there may be one."""
        upload = uploads.read(
            request,
            self.most(settings),
            min_images=self.at_least,
            with_other=self.with_other,
            empty_ones=self.empty_ones,
        )
        other = {"other_image": upload.other_image} if self.with_other else {}
        return {"images": upload.images, "options": uploads.options_as(self.options, upload.options), **other}

    def most(self, settings: Settings) -> int:
        """How many images one request may have."""
        return settings.max_images_per_enrolment if self.at_most is None else self.at_most
