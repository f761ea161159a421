"""ETags: an answer that has not changed is not sent again, and nobody changes what they have not seen."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Response, jsonify, request
from werkzeug.http import generate_etag

from recognizer.errors import PreconditionFailed
from recognizer.gallery.versions import Condition, settings_of


def tagged(body: Mapping[str, object], version: str | None = None) -> Response:
    """Answer with an ETag, or 304 when the caller has this version already (If-None-Match).

    Args:
        version: what tells this state from others; default: a digest of the answer.

    Raises:
        PreconditionFailed: the caller wants another one (If-Match).
    """
    response = jsonify(body)
    return conditional(response, version or generate_etag(response.get_data()))


def conditional(response: Response, version: str) -> Response:
    """The response with this version as its ETag, or 304, or PreconditionFailed, as `tagged` has it."""
    response.set_etag(version)
    if (is_wanted := only_if()) is not None and not is_wanted(version):
        raise PreconditionFailed("This has changed since it was read; read it again without If-Match.")
    # Werkzeug would answer 412 to what If-Match allows and If-None-Match has already
    response.make_conditional({name: value for name, value in request.environ.items() if name != "HTTP_IF_MATCH"})
    return response


def only_if() -> Condition | None:
    """What the caller wants to have seen before it is changed (If-Match); None: it does not matter."""
    return request.if_match.contains if "If-Match" in request.headers else None


def only_if_settings() -> Condition | None:
    """The same for what is set for a collection: in it, who is enrolled meanwhile does not matter."""
    if (is_wanted := only_if()) is None:
        return None
    seen = {settings_of(tag) for tag in request.if_match if tag}  # Werkzeug reads `""` as None
    return lambda version: is_wanted(version) or settings_of(version) in seen
