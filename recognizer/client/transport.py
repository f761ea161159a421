"""Requests that are sent again while the other side is busy or away, for a bounded time."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from recognizer.client.errors import RecognizerClientError, Unreachable

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""After these the request has not reached anybody: it may be sent again, whatever it does."""

PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""Between attempts, where no Retry-After says how long; the last one from then on."""

CONNECT_SECONDS = 10.0
MOST_BYTES = 256 * 2**20
"""An answer that is longer is none of a service that we know."""

BUSY = frozenset({429, 502, 503})

File = tuple[str, tuple[str, bytes]]
"""A part of a form: its name, the file's name and the file's bytes."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `repeatable`: done twice it is done once, so that it may be sent again when an answer is lost."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    form: Mapping[str, str] | None = None
    files: Sequence[File] | None = field(default=None, repr=False)
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True


class Reply(NamedTuple):
    """An answer, whatever its status."""

    status: int
    headers: httpx.Headers
    body: bytes


class Transport:
    """Sends calls to one base URL; safe to use from many threads."""

    def __init__(self, url: str, headers: Mapping[str, str], *, timeout_seconds: float, retry_seconds: float) -> None:
        """Nothing is sent yet.

        Raises:
            RecognizerClientError: that is no URL of a web service.
        """
        try:
            base = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL:
            base = httpx.URL("")
        if base.scheme not in ("http", "https") or not base.host:
            raise RecognizerClientError("url_invalid", "The URL must look like http://127.0.0.1:8000.")
        self.shown = str(base.copy_with(username=None, password=None))
        self._retry_seconds = retry_seconds
        self._client = httpx.Client(
            base_url=base,
            headers=dict(headers),
            timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
            limits=httpx.Limits(max_connections=None),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; may be called again."""
        self._client.close()

    def send(self, call: Call) -> Reply:
        """Send a request until it is answered by more than "not now", or the time for that is over.

        Raises:
            Unreachable: there was no answer.
        """
        response, body = self._answered(call, whole=True)
        return Reply(response.status_code, response.headers, body)

    @contextlib.contextmanager
    def stream(self, call: Call) -> Iterator[tuple[Reply, Iterator[bytes]]]:
        """`send` for a long answer: the reply, its body, if it was not successful, and else the body piece by piece.

        Raises:
            Unreachable: there was no answer, or it broke off.
        """
        response, body = self._answered(call, whole=False)
        try:
            yield Reply(response.status_code, response.headers, body), self._pieces(response)
        finally:
            response.close()

    def _answered(self, call: Call, *, whole: bool) -> tuple[httpx.Response, bytes]:
        until = time.monotonic() + self._retry_seconds
        for attempt in itertools.count():
            pause = PAUSES_SECONDS[min(attempt, len(PAUSES_SECONDS) - 1)]
            try:
                response, body = self._attempt(call, whole)
            except httpx.TransportError as error:
                again = call.repeatable or isinstance(error, NEVER_SENT)
                if not again or time.monotonic() + pause > until:
                    raise Unreachable("unreachable", self._silence(error)) from error
            else:
                pause = _retry_after(response, pause)
                if not _is_not_now(response, body, call) or time.monotonic() + pause > until:
                    return response, body
            time.sleep(pause)
        raise AssertionError("it counts for ever")

    def _attempt(self, call: Call, whole: bool) -> tuple[httpx.Response, bytes]:
        """An answer that is open, with its body where that was read."""
        response = self._client.send(self._request(call), stream=True)
        if not whole and response.is_success:
            return response, b""
        with contextlib.closing(response):
            return response, _joined(response.iter_bytes())

    def _request(self, call: Call) -> httpx.Request:
        return self._client.build_request(
            call.method,
            call.path,
            params={name: value for name, value in call.query.items() if value is not None},
            data=call.form,
            files=call.files,
            json=call.json,
            headers=call.headers,
        )

    def _silence(self, error: httpx.TransportError) -> str:
        if isinstance(error, httpx.ReadTimeout):
            return f"{self.shown} did not answer in time; it may be overloaded, or the request too large for it."
        if isinstance(error, NEVER_SENT):
            return f"Nobody answers at {self.shown}; check the URL and whether the service runs."
        return f"The connection to {self.shown} broke off; try again."

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes()
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Unreachable("unreachable", f"The answer of {self.shown} broke off; try again.") from error


def _is_not_now(response: httpx.Response, body: bytes, call: Call) -> bool:
    """Whether the same request may do better later, and has done nothing yet or may be done twice."""
    untouched = response.status_code == httpx.codes.TOO_MANY_REQUESTS or b'"busy"' in body
    return response.status_code in BUSY and (call.repeatable or untouched)


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    """The seconds that the answer asks for; a date, which no service of ours sends, is not read."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdigit() else otherwise


def _joined(pieces: Iterator[bytes]) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > MOST_BYTES:
            raise RecognizerClientError("answer_not_understood", f"The answer has more than {MOST_BYTES:,} bytes.")
    return bytes(body)
