"""The API tells of itself: /openapi.json holds every route and nothing more, /docs needs no other host."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from recognizer import errors
from recognizer.api import problems
from recognizer.api.meanings import MEANINGS


@pytest.fixture(scope="module")
def document(app: Flask) -> dict[str, Any]:
    response = app.test_client().get("/openapi.json")
    assert (response.status_code, response.content_type) == (200, "application/json")
    found: dict[str, Any] = response.json
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By "METHOD path", as Flask writes paths."""
    return {
        f"{method.upper()} {path.replace('{', '<').replace('}', '>')}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"


def test_every_schema_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    assert [name for name in document["components"]["schemas"] if "__" in name] == []


def test_every_option_is_explained(document: dict[str, Any]) -> None:
    explained = set()
    for route, operation in operations(document).items():
        options = {each["name"]: each["schema"] for each in operation["parameters"] if each["in"] == "query"}
        for body in operation.get("requestBody", {}).get("content", {}).values():
            name = body["schema"].get("$ref", "").rpartition("/")[2]
            options |= document["components"]["schemas"].get(name, {}).get("properties", {})
        for name, schema in options.items():
            assert schema.get("description"), f"{route}: {name} has no meaning in api/meanings.py"
        explained |= options.keys()
    assert set(MEANINGS) <= explained


def test_no_schema_is_called_as_one_of_its_members(document: dict[str, Any]) -> None:
    """Generators call a variable by either."""
    for name, schema in document["components"]["schemas"].items():
        assert name.lower() not in schema.get("properties", {}), name


def test_no_default_in_a_body_overrules_the_query(document: dict[str, Any]) -> None:
    for route, operation in operations(document).items():
        content = operation.get("requestBody", {}).get("content", {})
        if "image/*" in content:
            for kind in ("multipart/form-data", "application/json"):
                name = content[kind]["schema"]["$ref"].rpartition("/")[2]
                properties = document["components"]["schemas"][name]["properties"]
                assert not [each for each, schema in properties.items() if "default" in schema], route


def test_every_route_is_in_it_and_nothing_more(app: Flask, document: dict[str, Any]) -> None:
    served = {
        f"{method} {rule.rule}" for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert set(operations(document)) == served


def test_every_operation_says_what_it_does_and_what_it_needs(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(ids) == len(set(ids))
    for route, operation in operations(document).items():
        assert operation["summary"].endswith("."), route
        scope = re.search(r"Scope: `(\w+)`\.$", operation["description"])[1]
        needs = [{"key": [scope]}, {"bearer": [scope]}] if scope != "public" else None
        assert operation.get("security") == needs, route
        refused = {"401", "403", "429"} & operation["responses"].keys()
        assert refused == ({"401", "403", "429"} if needs else set()), route


def documented_codes(document: dict[str, Any]) -> set[tuple[int, str]]:
    """Every status with every code word that an operation may answer."""
    found = set()
    for operation in operations(document).values():
        for status, response in operation["responses"].items():
            if "$ref" in response:
                response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
            problem = response.get("content", {}).get("application/problem+json")
            if problem:
                assert problem["schema"]["$ref"] == "#/components/schemas/Problem"
                found |= {(int(status), code) for code in problem["schema"]["properties"]["code"]["enum"]}
    return found


def test_every_error_is_documented_with_its_status(document: dict[str, Any]) -> None:
    def below(cls: type[errors.RecognizerError]) -> list[type[errors.RecognizerError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in below(sub))]

    of_commands = {errors.CommandFailed, *below(errors.CommandFailed)}
    abstract = {errors.Unusable, errors.Unavailable, errors.AllRefused}
    of_requests = set(below(errors.RecognizerError)) - set(below(errors.StartupError)) - of_commands - abstract
    raised = {(problems.status_of(cls), cls.code) for cls in of_requests}
    missing = raised - documented_codes(document)
    assert not missing
    introduction = document["info"]["description"].replace("\n", " ")
    for status, code in problems.HTTP_CODES.items():
        assert (status, code) in documented_codes(document) or f"{status} `{code}`" in introduction


def test_it_is_sent_once_to_those_who_have_it(client: FlaskClient) -> None:
    tag = client.get("/openapi.json").headers["ETag"]
    assert client.get("/openapi.json", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/openapi.json", headers={"If-None-Match": tag, "If-Match": "*"}).status_code == 304


def test_the_page_needs_no_other_host(client: FlaskClient) -> None:
    page = client.get("/docs")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 4
    for link in links:
        assert re.fullmatch(r"docs/[a-z0-9.-]+", link)
        assert client.get(f"/{link}").status_code == 200, link
    assert re.search("<(script|style)>|style=|onload=", page.text) is None, "the page's policy allows no inline code"
    assert '"openapi.json"' in client.get("/docs/start.js").text


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/start.js", "/docs/swagger-ui.css"])
def test_what_names_nobody_may_be_kept_and_is_asked_for_again(client: FlaskClient, path: str) -> None:
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["nothing.js", "..%2F__init__.py", "swagger-ui.css%00", "index.html"])
def test_no_other_file_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404
