"""The OpenAPI document, made from what the routes declare: apispec joins it, pydantic gives the schemas."""

from __future__ import annotations

import importlib.resources
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from apispec import APISpec
from apispec_webframeworks.flask import FlaskPlugin
from flask import Flask
from werkzeug.routing import Rule

import recognizer
from recognizer.api import problems
from recognizer.api.answers import Media, Problem
from recognizer.api.operations import Operation
from recognizer.api.schemas import Schemas, in_text
from recognizer.api.takes import Body, Images, Query
from recognizer.config import Settings

INTRODUCTION = """\
Who is in a photo: enrol people, recognise them, keep their gallery in order.

**Images** come as multipart file part `image`, as raw body with `Content-Type: image/*`, or as base64 in JSON; options
stand in the form, the query string or the JSON. A path or a URL is never an image.

**Keys** are sent as `X-API-Key` or as `Authorization: Bearer`; each operation names the scope that it needs. On the
machine itself no key is needed as long as none was made.

**Errors** have one shape, `Problem`; programs decide by its `code`. A path that does not exist is answered 404
`not_found`, a method that a path does not know 405 `method_not_allowed`. Every answer has a header `X-Request-ID`.
"""

PROBLEM = "application/problem+json"
HEADERS = {
    "Idempotency-Key": "1 to 200 printable characters: the same key twice enrols once.",
    "If-Match": "Change it only if this is still its ETag.",
    "If-None-Match": "The ETag that the caller has; 304 if it is still that.",
}
SECURITY_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
ANSWER_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {"description": "The caller's, if it sent a sane one.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "ETag": {"description": "Of this state; see If-Match, If-None-Match.", "schema": {"type": "string"}},
}

UNVERSIONED = "_unversioned"

SHARED_CODES = 3
"""A problem response of so few code words is written once and referred to by them."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the app with what it declares."""

    rule: Rule
    view: Callable[..., Any]
    operation: Operation

    @property
    def name(self) -> str:
        """Unique: the view's name, and a word more for a path without its version."""
        blueprint, _, name = str(self.rule.endpoint).rpartition(".")
        return f"{name}{UNVERSIONED}" if blueprint == "images" else name

    @property
    def tag(self) -> str:
        """What it is about: its blueprint."""
        return str(self.rule.endpoint).rpartition(".")[0].removeprefix("v1_")

    @property
    def methods(self) -> list[str]:
        """In small letters, without those that every route answers."""
        return sorted(method.lower() for method in (self.rule.methods or set()) - {"HEAD", "OPTIONS"})


def routes(app: Flask) -> list[Route]:
    """All routes of the app."""
    found = []
    for rule in app.url_map.iter_rules():
        view: Any = app.view_functions[rule.endpoint]
        found.append(Route(rule, view, view.operation))  # as `auth.route` has left it there
    return found


def document(app: Flask, settings: Settings) -> dict[str, Any]:
    """The document of all routes that are registered by now."""
    spec = APISpec(
        title="Recognizer",
        version=recognizer.__version__,
        openapi_version="3.1.0",
        info={"description": INTRODUCTION},
        plugins=[FlaskPlugin()],
    )
    for name, scheme in SECURITY_SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    for name, header in ANSWER_HEADERS.items():
        spec.components.header(name, header)
    found = routes(app)
    schemas = Schemas((route.operation for route in found), settings)
    examples = json.loads(importlib.resources.files(__package__).joinpath("examples.json").read_text(encoding="utf-8"))
    schemas.components["Problem"]["examples"] = [examples["problem"]]
    for name, schema in schemas.components.items():
        spec.components.schema(name, schema)
    for route in found:
        described = _operation(route, schemas, examples["operations"].get(route.name.removesuffix(UNVERSIONED), {}))
        for status, response in described["responses"].items():
            described["responses"][status] = _shared(spec, status, response)
        spec.path(view=route.view, app=app, operations={method: described for method in route.methods})
    return spec.to_dict()


def _shared(spec: APISpec, status: str, response: dict[str, Any]) -> dict[str, Any] | str:
    """The name of the response, when it is nothing but a problem with few code words."""
    if response.get("content", {}).keys() != {PROBLEM}:
        return response
    codes = response["content"][PROBLEM]["schema"]["properties"]["code"]["enum"]
    if len(codes) > SHARED_CODES:
        return response
    name = "-".join([status, *codes])
    if name not in spec.components.responses:
        spec.components.response(name, response)
    return name


def _operation(route: Route, schemas: Schemas, example: dict[str, Any]) -> dict[str, Any]:
    summary, _, rest = inspect.cleandoc(route.view.__doc__ or "").partition("\n")
    operation = route.operation
    described: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": summary,
        "description": f"{rest.strip()}\n\nScope: `{operation.scope}`.".strip(),
        "parameters": [*_parameters(route, schemas)],
        "responses": _responses(operation, schemas),
    }
    if isinstance(operation.takes, Body | Images):
        described["requestBody"] = schemas.body(operation.takes)
    if operation.scope != "public":
        described["security"] = [{scheme: [operation.scope]} for scheme in SECURITY_SCHEMES]
    _add_example(described, example)
    return described


def _add_example(described: dict[str, Any], example: dict[str, Any]) -> None:
    if "request" in example:
        described["requestBody"]["content"]["application/json"]["example"] = example["request"]
    for status, response in described["responses"].items():
        if "answer" in example and status in ("200", "201"):
            response["content"]["application/json"]["example"] = example["answer"]


def _parameters(route: Route, schemas: Schemas) -> Iterator[dict[str, Any]]:
    for name in sorted(route.rule.arguments):
        yield {"in": "path", "name": name, "required": True, "schema": {"type": "string", "minLength": 1}}
    for name in route.operation.headers:
        yield {"in": "header", "name": name, "description": HEADERS[name], "schema": {"type": "string"}}
    takes = route.operation.takes
    if isinstance(takes, Query | Images):
        options = schemas.of(takes.options)
        for name, schema in options.get("properties", {}).items():
            text = in_text(schema)
            if text is not None:
                required = isinstance(takes, Query) and name in options.get("required", ())
                yield {"in": "query", "name": name, "required": required, "schema": text}


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        responses[str(status)] = _answer(status, answer, schemas)
        if 304 in operation.answers:
            responses[str(status)]["headers"]["ETag"] = "ETag"
    by_status: dict[int, dict[str, str]] = {}
    for error in operation.errors:
        known = by_status.setdefault(problems.status_of(error), {})
        for code in sorted(problems.codes_of(error)):
            known.setdefault(code, inspect.getdoc(error) or "")
    for status, codes in sorted(by_status.items()):
        _add_problem(responses.setdefault(str(status), {"description": ""}), status, codes, schemas)
    return responses


def _answer(status: int, answer: Any, schemas: Schemas) -> dict[str, Any]:
    content = {}
    descriptions = []
    for each in answer if isinstance(answer, tuple) else (answer,) if answer is not None else ():
        if isinstance(each, Media):
            content[each.type] = {"schema": {"type": "string"}}
            descriptions.append(each.description)
        else:
            content["application/json"] = {"schema": schemas.answer(each)}
            descriptions.append(inspect.getdoc(each) or "")
    described: dict[str, Any] = {"headers": {"X-Request-ID": "X-Request-ID"}}
    described["description"] = " ".join(descriptions) or f"{HTTPStatus(status).phrase}."
    return {**described, "content": content} if content else described


def _add_problem(response: dict[str, Any], status: int, codes: dict[str, str], schemas: Schemas) -> None:
    """A status may be an answer as well as a problem: then it has both content types."""
    lines = [f"- `{code}`: {sentence}" for code, sentence in codes.items()]
    response["description"] = "\n".join([response["description"], *lines]).strip()
    only = {"status": {"const": status}, "code": {"enum": list(codes)}}
    problem = {**schemas.answer(Problem), "properties": only}
    response.setdefault("content", {})[PROBLEM] = {"schema": problem}
    headers = response.setdefault("headers", {"X-Request-ID": "X-Request-ID"})
    if status in (429, 503):
        headers["Retry-After"] = "Retry-After"
