"""The requests of the native API, and what its errors say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from recognizer.client.answers import Remark
from recognizer.client.errors import RecognizerClientError
from recognizer.client.transport import File, Reply

Answer = TypeVar("Answer")


def path(*parts: str) -> str:
    """The path to something below /v1, whatever characters its name has."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def image_files(images: Sequence[bytes], name: str = "image") -> list[File]:
    """Parts of a form, one for each image."""
    return [(name, (f"{index}", image)) for index, image in enumerate(images)]


def options(**given: Any) -> dict[str, str]:
    """Options as a form or a query string has them; what is None or False is left to the service."""
    return {name: _as_text(value) for name, value in given.items() if value is not None and value is not False}


def _as_text(value: Any) -> str:
    if value is True:
        return "true"
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, str):
        return value
    return ",".join(value) if isinstance(value, Iterable) else str(value)


def error_of(reply: Reply) -> RecognizerClientError:
    """What an answer that is an error says."""
    try:
        said = json.loads(reply.body)
        code, detail = str(said["code"]), str(said["detail"])
        refused = TypeAdapter(tuple[Remark, ...]).validate_python(said.get("refused") or ())
    except (ValueError, KeyError, TypeError, ValidationError):
        code, refused = "answer_not_understood", ()
        detail = f"The answer is {reply.status} without a reason of the recognizer's; is that its URL, or a proxy's?"
    request_id = reply.headers.get("X-Request-ID", "")
    return RecognizerClientError(code, detail, status=reply.status, request_id=request_id, refused=refused)


def parsed(kind: type[Answer], body: bytes) -> Answer:
    """The answer of this kind that a JSON text is.

    Raises:
        RecognizerClientError: it is none; what answered is not the service, or of another version.
    """
    try:
        answer: Answer = _adapter(kind).validate_json(body)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        detail = (
            f"The answer is not understood{f' at `{where}`' if where else ''}; is this a recognizer of this version?"
        )
        raise RecognizerClientError("answer_not_understood", detail) from None
    return answer


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """What reads a kind of answer, made when the first one comes."""
    return _ADAPTERS.setdefault(kind, _ADAPTERS.get(kind) or TypeAdapter(kind))
