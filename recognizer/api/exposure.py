"""What stands between the app and a network: proxies, pages of other sites, limits of keys, headers for browsers."""

from __future__ import annotations

import re
import time

from flask import Flask, Response, current_app, g
from flask_cors import CORS
from flask_limiter import Limiter, RateLimitExceeded
from werkzeug.middleware.proxy_fix import ProxyFix

from recognizer.api.wrong_keys import WrongKeys
from recognizer.config import Settings
from recognizer.errors import RateLimited

HEADERS = {
    "Cache-Control": "no-store",  # answers name people
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer that does not say otherwise itself."""

POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of pages: nothing from another host, and no script or style but from files of our own."""

REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "X-API-Key",
    "X-Request-ID",
)
ANSWER_HEADERS = ("ETag", "Retry-After", "X-Request-ID")
METHODS = ("GET", "POST", "PATCH", "DELETE")
PREFLIGHT_SECONDS = 600

NETWORK_REDIS = re.compile("(redis|valkey)s?://")
STORAGE_OPTIONS: dict[str, str | int] = {"socket_timeout": 1, "socket_connect_timeout": 1}
"""Of such a storage: seconds that a request waits for it, where its URL does not say otherwise."""


def register(app: Flask, settings: Settings) -> None:
    """Set all of it up as the settings say."""
    if settings.trusted_proxies:
        proxies = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]
    if settings.cors_origins:
        CORS(
            app,
            origins=[origin if origin == "*" else _just(origin) for origin in settings.cors_origins.split()],
            methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
            max_age=PREFLIGHT_SECONDS,
            supports_credentials=False,
        )
    app.after_request(_add_headers)
    app.extensions["wrong_keys"] = WrongKeys()
    app.extensions["key_limit"] = KeyLimit(app, settings) if settings.rate_limit else None


def wrong_keys() -> WrongKeys:
    """Those of the app that handles this request."""
    found = current_app.extensions["wrong_keys"]
    assert isinstance(found, WrongKeys)
    return found


def count_use() -> None:
    """Count a use of the request's key, `g.key`.

    Raises:
        RateLimited: it has been used as often as it may be.
    """
    limit: KeyLimit | None = current_app.extensions["key_limit"]
    if limit is not None:
        limit.take()


class KeyLimit:
    """How often a key may be used.

    Without a storage of its own each worker counts what it answers itself; so it does while the storage is away.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        storage = settings.rate_limit_storage
        self._limiter = Limiter(
            _key_id,
            app=app,
            storage_uri=storage.get_secret_value() if storage else "memory://",
            storage_options=STORAGE_OPTIONS if storage and NETWORK_REDIS.match(storage.get_secret_value()) else {},
            in_memory_fallback_enabled=True,
        )
        self._limiter.request_filter(_is_not_counted)
        self._count = self._limiter.shared_limit(settings.rate_limit, scope="key", key_func=_key_id)(_counted)

    def take(self) -> None:
        """Count one request of `g.key`; raises RateLimited."""
        try:
            self._count()
        except RateLimitExceeded as error:
            text = f"This API key may be used {error.limit.limit}; wait a moment."
            raise RateLimited(text, self._seconds_until_reset()) from None

    def _seconds_until_reset(self) -> int:
        limit = self._limiter.current_limit
        try:
            return max(1, limit.reset_at - int(time.time())) if limit else 1
        except Exception:  # noqa: BLE001 - it asks the storage again; each has errors of its own for being away
            return 1


def _just(origin: str) -> re.Pattern[str]:
    """That origin and no other; flask-cors would take the brackets of an IPv6 address for a pattern of its own."""
    return re.compile(re.escape(origin) + r"\Z", re.IGNORECASE)


def _key_id() -> str:
    return str(g.key.id)


def _is_not_counted() -> bool:
    """Before every request the limiter would ask a storage that was away whether it is back; not for these."""
    return g.get("key") is None


def _counted() -> None:
    """What the limiter stands before; there is nothing to do but to be counted."""


def _add_headers(response: Response) -> Response:
    policy = PAGE_POLICY if response.mimetype == "text/html" else POLICY
    for name, value in {**HEADERS, "Content-Security-Policy": policy}.items():
        response.headers.setdefault(name, value)
    return response
