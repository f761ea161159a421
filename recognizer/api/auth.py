"""Who may do what: every route states its scope where it is registered, and this checks it.

Without any key the service is open in local mode only: it listens on loopback, the Host header is a
loopback name (a web page cannot reach it through a name of its own), no page of another site sent the
request, and no proxy forwarded it or is said to (`trusted_proxies`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Request, current_app, g, request

from recognizer.api import exposure
from recognizer.api.operations import Answers, Operation, Scope
from recognizer.api.takes import Errors, Nothing, Takes
from recognizer.deadline import Deadline
from recognizer.errors import Forbidden, Unauthorized
from recognizer.gallery import audit
from recognizer.gallery.keys import KeyRecord
from recognizer.gallery.names import comparable
from recognizer.networks import is_loopback
from recognizer.runtime import Runtime

FORWARDING_HEADERS = (
    "Forwarded",
    "Via",
    "X-Real-Ip",
    "Client-Ip",
    "X-Client-Ip",
    "X-Cluster-Client-Ip",
    "X-Original-Forwarded-For",
    "Cf-Connecting-Ip",
    "Fly-Client-Ip",
    "True-Client-Ip",
)
FORWARDING_PREFIX = "X-Forwarded-"

AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")

NOTHING = Nothing()

View = Callable[..., Any]


def runtime() -> Runtime:
    """The runtime of the app that handles this request."""
    owner = current_app.extensions["recognizer"]
    assert isinstance(owner, Runtime)
    return owner


def request_deadline() -> Deadline:
    """The time that the request has, from when its key was looked up."""
    if "deadline" not in g:
        g.deadline = Deadline(runtime().settings.request_timeout_seconds)
    deadline: Deadline = g.deadline
    return deadline


def route(
    blueprint: Blueprint,
    rule: str,
    view: View,
    *,
    methods: list[str],
    scope: Scope,
    answers: Answers,
    takes: Takes = NOTHING,
    errors: Errors = (),
    headers: tuple[str, ...] = (),
    needs_database: bool = True,
) -> None:
    """Register a view and declare all that a caller has to know of it; there is no other way to register one.

    Args:
        view: called with what stands in the path and with what `takes` reads; its docstring is its documentation.
        answers: by status, the type of the answer's JSON, a `Media`, or both in a tuple; None: no body.
        errors: what this route in particular can raise. What comes with every scope, and with `takes`, goes without
            saying.
        headers: those of the request that matter, but for If-Match and If-None-Match: the first goes with the error
            PreconditionFailed, the second with an answer 304.
        needs_database: without it, the view is served while the database is away, to keys that were valid a minute ago.
    """

    @functools.wraps(view)
    def guarded(**arguments: Any) -> Any:
        if scope != "public":
            g.key = _authenticate(may_recall=not needs_database)
            if g.key is not None:
                exposure.count_use()
            _check_scope(scope)
        with audit.acting(caller(), g.request_id):
            return view(**arguments, **takes.read(request, runtime().settings))

    guarded.operation = Operation(scope, takes, answers, errors, headers)  # type: ignore[attr-defined]  # for the document
    blueprint.add_url_rule(rule, view_func=guarded, methods=methods)


def allowed_collection(name: str) -> str:
    """Return `name` when the request's key may use that collection.

    Raises:
        Forbidden: the key belongs to another collection.
    """
    if not may_use(name):
        raise Forbidden(f"This API key belongs to the collection `{only_collection()}`.")
    return name


def may_use(name: str | None) -> bool:
    """Whether the request's key may use that collection; None: all of them.

    Raises:
        InvalidRequest: the name is no plain text.
    """
    own = only_collection()
    return own is None or (name is not None and comparable(name) == comparable(own))


def only_collection() -> str | None:
    """The one collection that the request's key may use; None: all."""
    key: KeyRecord | None = g.get("key")
    return key.collection if key is not None else None


def caller() -> str:
    """Who sent the request, as it is kept beside what they did: the API key's id, or "local" where none is in use."""
    key: KeyRecord | None = g.get("key")
    return key.id if key is not None else "local"


def check_key_again(scope: Scope) -> None:
    """Ask the database for the request's key after all: the view's work turns out to need it."""
    g.key = _authenticate(may_recall=False)
    _check_scope(scope)


def _authenticate(*, may_recall: bool) -> KeyRecord | None:
    """The request's key; None in local mode."""
    keys = runtime().keys
    presented = _presented_key(request)
    if presented is None:
        if _is_local(request) and not keys.any_created(request_deadline(), may_recall=may_recall):
            return None
        raise Unauthorized(
            "An API key is needed: send it as X-API-Key. The first one is made on the server with "
            "`python -m recognizer keys create`."
        )
    key = keys.verify(presented, request_deadline(), may_recall=may_recall)
    if key is None:
        raise exposure.wrong_keys().refusal(presented, request.remote_addr)
    runtime().key_uses.note(key.id)
    return key


def _check_scope(scope: str) -> None:
    key: KeyRecord | None = g.key
    if key is not None and not key.allows(scope):
        raise Forbidden(f"This API key does not have the scope `{scope}`.")


def _presented_key(request: Request) -> str | None:
    header = request.headers.get("X-API-Key")
    if header is None and request.authorization and request.authorization.type == "bearer":
        header = request.authorization.token
    return header


def _is_local(request: Request) -> bool:
    headers = request.headers
    forwarded = any(name in FORWARDING_HEADERS or name.startswith(FORWARDING_PREFIX) for name, _ in headers)
    if forwarded or runtime().settings.needs_key:
        return False
    if headers.get("Sec-Fetch-Site") == "cross-site":  # a picture or a link of another site's page, which has no Origin
        return False
    origin = headers.get("Origin")  # browsers name the page that sends a form or a script's request
    return _names_this_machine(headers.get("Host", "")) and (
        origin is None or _names_this_machine(origin.partition("://")[2])
    )


def _names_this_machine(authority: str) -> bool:
    """Whether a host, perhaps with a port, is this machine; anything more in it is not understood."""
    found = AUTHORITY.fullmatch(authority)
    return found is not None and is_loopback(found[1])
