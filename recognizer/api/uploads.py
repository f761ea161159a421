"""What a request brings: its images and its options, however they were sent.

multipart/form-data with file part `image`, the raw image as body, or JSON with base64. Options may stand
in the form, the query string or the JSON. A path or a URL is never an image.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn, TypeVar

from flask import Request
from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from recognizer.errors import ImageMissing, ImageUnsupported, InvalidRequest

Model = TypeVar("Model", bound=BaseModel)

HOW_TO_SEND = (
    "Send the image as multipart file part `image` (curl -F image=@photo.jpg), "
    'as raw body with Content-Type: image/jpeg, or as JSON {"image": "<base64>"}.'
)

OTHER = "other_image"
"""The part, or member of the JSON, with the image that another one is compared with."""

BROKEN_OFF = "The upload broke off or is malformed; send it again."
"""For an OSError, in which servers put their own words for a malformed chunk or a lost client."""

PLAIN_WORDS = {
    "frozen_set_type": "should be words with commas between them",
    "dict_type": "should be a JSON object",
    "string_type": "should be text",
}
"""For messages of pydantic that speak of Python's types."""


class Options(BaseModel):
    """Options are strict: an unknown one is an error, so that a typing error does not go unnoticed."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_stray_truth_values(cls, value: object, field: ValidationInfo) -> object:
        wanted = cls.model_fields[field.field_name or ""].annotation is bool
        if isinstance(value, bool) and not wanted:  # true would pass for the number 1
            raise ValueError("should not be true or false")
        return value


class Words:
    """For an option that is a set of words: they come with commas between them, everywhere."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self._split, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        words = "|".join(handler(schema)["items"]["enum"])
        return {"type": "string", "pattern": f"^(({words})(,({words}))*)?$"}

    @staticmethod
    def _split(value: object) -> object:
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


class UploadRequest(Request):
    """A request whose body arrives whole or not at all, and is never written to a disk."""

    def __init__(self, environ: dict[str, Any], **arguments: Any) -> None:
        if environ.get("CONTENT_LENGTH"):
            # gunicorn says that its stream ends with the body; it also ends when the client goes away. Without this
            # word, Werkzeug counts the bytes and raises ClientDisconnected.
            environ["wsgi.input_terminated"] = False
        super().__init__(environ, **arguments)

    def _get_file_stream(self, *_: Any, **__: Any) -> BytesIO:
        """Where a file part goes; `max_request_bytes` bounds it."""
        return BytesIO()


@dataclass(frozen=True, slots=True)
class Upload:
    """The images of a request, in order, its options as they were written, and what it calls `other_image`."""

    images: tuple[bytes, ...]
    options: dict[str, Any]
    other_image: bytes | None = None


def read(
    request: Request, max_images: int, *, min_images: int = 1, with_other: bool = False, empty_ones: bool = False
) -> Upload:
    """Take images and options out of a request.

    Args:
        with_other: there may be an image of the name `other_image`, too.
        empty_ones: leave images of 0 bytes to the caller.

    Raises:
        ImageMissing: no image (unless `min_images` is 0), or an empty one.
        ImageUnsupported: a body of a type that cannot hold an image.
        InvalidRequest: broken JSON, bad base64, an option given twice, too many images, an upload that broke off.
    """
    try:
        images, options, other_image = _take(request, with_other)
    except OSError as error:
        raise InvalidRequest(BROKEN_OFF) from error
    if len(images) < min_images:
        raise ImageMissing(f"The request has no image. {HOW_TO_SEND}")
    if len(images) > max_images:
        raise InvalidRequest(f"The request has {len(images)} images; send at most {max_images} at a time.")
    for index, image in enumerate(images):
        if not empty_ones:
            refuse_empty(image, f"Image {index}")
    if other_image is not None:
        refuse_empty(other_image, f"`{OTHER}`")
    return Upload(tuple(images), {**single_values(request.args), **options}, other_image)


def refuse_empty(image: bytes, which: str) -> None:
    """Raise ImageMissing where there is nothing in an image."""
    if not image:
        raise ImageMissing(f"{which} is empty (0 bytes); check the file that is sent.")


def _take(request: Request, with_other: bool) -> tuple[list[bytes], dict[str, Any], bytes | None]:
    kind = (request.mimetype or "").lower()
    if kind == "multipart/form-data":
        return _from_form(request, with_other)
    if kind == "application/json":
        return _from_json(request, with_other)
    if kind.startswith("image/"):
        return [request.get_data(cache=False)], {}, None
    if not kind and not request.content_length:
        raise ImageMissing(f"The request has no body. {HOW_TO_SEND}")
    raise ImageUnsupported(f"Content-Type {kind or 'is missing, which'} is not understood. {HOW_TO_SEND}")


def options_as(model: type[Model], options: dict[str, Any]) -> Model:
    """Check options against their schema.

    Raises:
        InvalidRequest: with one sentence that names the option.
    """
    try:
        return model.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(model.model_fields))
            raise InvalidRequest(f"Unknown option `{name[:50]}`; known here: {known}.") from None
        reason = PLAIN_WORDS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"Option `{name}`: {reason}." if name else f"{reason}.") from None


def _from_form(request: Request, with_other: bool) -> tuple[list[bytes], dict[str, Any], bytes | None]:
    options = single_values(request.form)
    known = ("image", OTHER) if with_other else ("image",)
    for name in known:
        if name in options:
            raise ImageMissing(f"The form part `{name}` is text, not a file; with curl write -F {name}=@photo.jpg.")
    for name in request.files:
        if name not in known:
            raise ImageMissing(f"The file part is called `{name[:50]}`; call it `{'` or `'.join(known)}`.")
    others = _parts(request, OTHER)
    if len(others) > 1:
        raise InvalidRequest(f"The request has {len(others)} parts `{OTHER}`; send one.")
    return _parts(request, "image"), options, others[0] if others else None


def _parts(request: Request, name: str) -> list[bytes]:
    images = []
    for part in request.files.getlist(name):
        with closing(part):
            images.append(part.read())
    return images


def json_object(request: Request) -> dict[str, Any]:
    """The body, which has to be a JSON object.

    Raises:
        InvalidRequest
    """
    try:
        body = request.get_json(cache=False)
    except (BadRequest, RecursionError):
        raise InvalidRequest("The body is not valid JSON.") from None
    except UnsupportedMediaType:
        raise InvalidRequest("The body must be a JSON object, sent with Content-Type: application/json.") from None
    except OSError as error:
        raise InvalidRequest(BROKEN_OFF) from error
    if not isinstance(body, dict):
        _refuse_json("the body must be an object")
    return body


def json_options(request: Request) -> dict[str, Any]:
    """The options of a request without images: a JSON object, the query string beside it.

    Raises:
        InvalidRequest
    """
    return {**single_values(request.args), **json_object(request)}


def form_options(request: Request) -> dict[str, Any]:
    """The options of a request that may have no body: a form, the query string beside it.

    Raises:
        InvalidRequest
    """
    try:
        form = single_values(request.form)
    except OSError as error:
        raise InvalidRequest(BROKEN_OFF) from error
    return {**single_values(request.args), **form}


def _from_json(request: Request, with_other: bool) -> tuple[list[bytes], dict[str, Any], bytes | None]:
    body = json_object(request)
    if "image" in body and "images" in body:
        _refuse_json("give either `image` or `images`")
    images = body.pop("images", None)
    if images is None:
        images = [body.pop("image")] if body.get("image") is not None else []
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        _refuse_json("`image` must be a base64 string, `images` a list of them")
    other = body.pop(OTHER, None) if with_other else None
    if not isinstance(other, str | None):
        _refuse_json(f"`{OTHER}` must be a base64 string")
    decoded = [_from_base64(f"Image {index}", image) for index, image in enumerate(images)]
    return decoded, body, None if other is None else _from_base64(f"`{OTHER}`", other)


def _from_base64(which: str, text: str) -> bytes:
    if text.startswith("data:"):
        _, comma, text = text.partition(",")
        if not comma:
            raise InvalidRequest(f"{which} is a data: URI without a comma; the base64 text follows a comma.")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            f"{which} is not valid base64; a path or a URL is not accepted, send the image itself."
        ) from None


def _refuse_json(reason: str) -> NoReturn:
    raise InvalidRequest(f"The JSON is not understood: {reason}.")


def single_values(values: Any) -> dict[str, Any]:
    """The options of a query string or form, each allowed once."""
    result = {}
    for name, given in values.lists():
        if len(given) > 1:
            raise InvalidRequest(f"Option `{name[:50]}` is given {len(given)} times.")
        result[name] = given[0]
    return result
