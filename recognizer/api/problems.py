"""The one error shape of the native API: RFC 9457 problem details with `code` and `request_id`."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, jsonify
from werkzeug.exceptions import HTTPException

from recognizer import errors
from recognizer.api import answers
from recognizer.api.answers import Problem
from recognizer.faces import Remark

LOGGER = logging.getLogger(__name__)

STATUS: dict[type[errors.RecognizerError], int] = {
    errors.InvalidRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.ImageTooLarge: 413,
    errors.ImageUnsupported: 415,
    errors.Unusable: 422,
    errors.AllRefused: 422,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.SealBroken: 500,
    errors.RecognizerError: 500,
}
"""Status by error class; an error takes the row of its nearest ancestor."""

HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "image_too_large", 415: "image_unsupported"}
"""Code words for what Flask itself refuses; every other 4xx of it is `invalid_request`."""


def status_of(error: type[errors.RecognizerError]) -> int:
    """The HTTP status of a class of domain errors."""
    return next(STATUS[cls] for cls in error.__mro__ if cls in STATUS)


def codes_of(error: type[errors.RecognizerError]) -> set[str]:
    """The code words of the answer to an error of this class."""
    refusals = {each.code for each in errors.Unusable.__subclasses__()}
    return {error.code} | (refusals if issubclass(error, errors.AllRefused) else set())


def register(app: Flask) -> None:
    """Answer every error of the app, routing errors included, in the one shape."""
    app.register_error_handler(errors.RecognizerError, _domain_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected_error)


def shape(status: int, code: str, detail: str, request_id: str) -> Problem:
    """The members that every error has; its title is the code in words."""
    return {
        "type": "about:blank",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }


def problem(status: int, code: str, detail: str, **members: Any) -> Response:
    """Build the error response."""
    g.error_code = code
    body = {**shape(status, code, detail, g.get("request_id", "")), **members}
    response = jsonify(body)
    response.status_code = status
    response.content_type = "application/problem+json"
    return response


def remark(of: Remark) -> answers.Remark:
    """What is said of one photo of an enrolment, in an error as in an answer."""
    said: answers.Remark = {"index": of.index, "code": of.code, "detail": of.detail}
    if of.person:
        said["person"] = {"id": of.person.id, "name": of.person.name}
    if of.issues:
        said["issues"] = list(of.issues)
    return said


def _domain_error(error: errors.RecognizerError) -> Response:
    status = status_of(type(error))
    if isinstance(error, errors.SealBroken):
        LOGGER.error("Stored data is damaged, request_id=%s: %s", g.get("request_id"), error)
    elif status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unexpected_error(error)
    members: dict[str, Any] = {}
    code = error.code
    if isinstance(error, errors.AllRefused):
        members["refused"] = [remark(each) for each in error.refused]
        codes = {r.code for r in error.refused}
        code = codes.pop() if len(codes) == 1 else code  # one reason for all images is the reason
    response = problem(status, code, str(error), **members)
    if isinstance(error, errors.Unavailable | errors.RateLimited):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    code = HTTP_CODES.get(status, "invalid_request")
    details = {
        404: "There is nothing at this path; /docs lists what there is.",
        405: f"This path answers {', '.join(sorted(getattr(error, 'valid_methods', None) or []))}.",
        413: "The request has more bytes than this service accepts; send a smaller image.",
    }
    response = problem(status, code, details.get(status) or error.description or "The request is malformed.")
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _unexpected_error(error: Exception) -> Response:
    LOGGER.error("Unexpected error, request_id=%s", g.get("request_id"), exc_info=error)
    return problem(
        500,
        "internal_error",
        "The service failed at this request; its log has the details under this request_id.",
    )
