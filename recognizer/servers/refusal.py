"""What a server answers to a request that never reaches the app, in the service's one error shape."""

from __future__ import annotations

import json
import uuid

from recognizer.api.problems import shape

_WORDS = {
    413: ("image_too_large", "The request has more bytes than this service accepts; send a smaller image."),
    500: ("internal_error", "The service failed at this request; its log has the details."),
}
_MALFORMED = ("invalid_request", "The request line, a header or the body is malformed or too long.")


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
    return headers, content
