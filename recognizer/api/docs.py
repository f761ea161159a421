"""The API told by itself: /openapi.json, and the page /docs that renders it with files of this host alone."""

from __future__ import annotations

import importlib.resources

from flask import Blueprint, Response, current_app
from flask.typing import ResponseReturnValue
from werkzeug.http import generate_etag

from recognizer.api import openapi
from recognizer.api.answers import Document, Media
from recognizer.api.auth import route, runtime
from recognizer.api.versions import conditional, tagged
from recognizer.errors import NotFound, PreconditionFailed

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Recognizer: the API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null});\n'
"""A file, since the page's Content-Security-Policy allows no script but from files."""

FILES = {
    "favicon-32x32.png": "image/png",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "start.js": "text/javascript",
}
"""What the page needs: `start.js`, and of Swagger UI what the package flask-swagger-ui brings."""


def blueprint() -> Blueprint:
    """The document and its page; they say nothing of what is stored, so they need no key."""
    docs = Blueprint("docs", __name__)
    route(
        docs,
        "/openapi.json",
        document,
        methods=["GET"],
        scope="public",
        answers={200: Document, 304: None},
        errors=(PreconditionFailed,),
    )
    html = Media("text/html", "The page.")
    route(docs, "/docs", page, methods=["GET"], scope="public", answers={200: html})
    files = (Media("text/css", "A style."), Media("text/javascript", "A script."), Media("image/png", "An icon."))
    route(
        docs,
        "/docs/<name>",
        file,
        methods=["GET"],
        scope="public",
        answers={200: files, 304: None},
        errors=(NotFound, PreconditionFailed),
    )
    return docs


def document() -> ResponseReturnValue:
    """This document: OpenAPI 3.1."""
    known = current_app.extensions
    if "openapi" not in known:
        known["openapi"] = openapi.document(current_app, runtime().settings)
    return _kept(tagged(known["openapi"]))


def page() -> ResponseReturnValue:
    """This document as a page to read and to try out."""
    return Response(PAGE, content_type="text/html; charset=utf-8")


def file(name: str) -> ResponseReturnValue:
    """A script or a style of the page."""
    if name not in FILES:
        raise NotFound("The page has no such file; it is at /docs.")
    package = importlib.resources.files("flask_swagger_ui")
    content = START.encode() if name == "start.js" else package.joinpath("dist", name).read_bytes()
    response = Response(content, mimetype=FILES[name])
    return _kept(conditional(response, generate_etag(content)))


def _kept(response: Response) -> Response:
    """A response that a browser may keep, unlike all others, and asks about by its ETag before each use."""
    response.headers["Cache-Control"] = "no-cache"
    return response
