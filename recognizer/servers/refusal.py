"""What a server answers to a request that never reaches the app, in the service's one error shape."""

from __future__ import annotations

import json
import uuid
from http import HTTPStatus

from recognizer.api.problems import shape

_WORDS = {
    408: ("request_timeout", "The request did not arrive in full in time; send it again, or a smaller one."),
    413: ("image_too_large", "The request has more bytes than this service accepts; send a smaller image."),
    500: ("internal_error", "The service failed at this request; its log has the details."),
    503: ("busy", "More requests wait than can be worked on in time; try again in a moment."),
    504: ("deadline_exceeded", "The request took longer than the service allows; send a smaller image or try later."),
}
_MALFORMED = ("invalid_request", "The request line, a header or the body is malformed, too long or broke off.")

RETRY_SECONDS = 1


def refusal(status: int) -> tuple[list[tuple[str, str]], bytes]:
    """The headers and the body of an error response."""
    code, detail = _WORDS.get(status, _MALFORMED)
    request_id = uuid.uuid4().hex
    content = json.dumps(shape(status, code, detail, request_id)).encode()
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(content))),
        ("X-Request-ID", request_id),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", str(RETRY_SECONDS)))
    return headers, content


def message(status: int, reason: str | None = None) -> tuple[str, bytes]:
    """The code word and the whole response, which ends its connection."""
    headers, body = refusal(status)
    code, _ = _WORDS.get(status, _MALFORMED)
    first = f"HTTP/1.1 {status} {reason or HTTPStatus(status).phrase}"
    lines = [first, "Connection: close", *(f"{name}: {value}" for name, value in headers)]
    return code, "\r\n".join([*lines, "", ""]).encode("latin-1") + body
