"""Talking HTTP to the service: every answer is kept as it is, and no answer has a name that can be counted."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from soak.places import IDLE_SECONDS, READY_SECONDS, REQUEST_SECONDS
from soak.problems import Wrong


class NoAnswer(Exception):
    """The service did not answer a request; the message is a kind of failure that can be counted."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0

    def json(self) -> dict[str, Any]:
        """The body as a JSON object, empty when it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def __str__(self) -> str:
        content = self.json()
        said = content.get("detail") or content.get("code") or self.body[:100].decode("utf-8", "replace")
        return f"status {self.status}: {said}"

    def is_busy(self) -> bool:
        """Whether it asks to come again later because there is too much to do; a database away is no such thing."""
        said_busy = self.status == 503 and self.json().get("code", "busy") == "busy" and "Retry-After" in self.headers
        return said_busy or self.status == 429

    def patience(self) -> float:
        """The seconds of Retry-After, within reason."""
        with contextlib.suppress(ValueError):
            return min(5.0, max(0.1, float(self.headers.get("Retry-After", "1"))))
        return 1.0


class Client:
    """One connection to the service, kept open between requests; for one thread."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=REQUEST_SECONDS)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"X-API-Key": key} if key else {}
        self._used = 0.0

    def send(
        self, method: str, path: str, body: bytes = b"", kind: str = "", request_id: str = "", once: str = ""
    ) -> Answer:
        """Send a request; `once` is its Idempotency-Key.

        Raises:
            NoAnswer: refused, cut off, too late or not HTTP.
        """
        headers = dict(self._headers)
        headers |= {"Content-Type": kind} if kind else {}
        headers |= {"X-Request-ID": request_id} if request_id else {}
        headers |= {"Idempotency-Key": once} if once else {}
        if time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
        began = time.perf_counter()
        try:
            is_sent = self._request(method, path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise NoAnswer(_failure(error)) from error
        if not is_sent:
            self.close()
        self._used = time.monotonic()
        return Answer(response.status, response.headers, content, time.perf_counter() - began)

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bool:
        """Send it; whether all of it went out: a server may refuse before it has read everything, and say why."""
        try:
            self._connection.request(method, self._prefix + path, body or None, headers)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "", patience: float = 60.0, once: str = ""
    ) -> Answer:
        """Like `send()` outside the load: waits while the service is busy, and a bad key ends the soak."""
        deadline = time.monotonic() + patience
        while True:
            answer = self.send(method, path, body, kind, once=once)
            if answer.status in (401, 403):
                raise Wrong(
                    "the service wants an API key with the scopes recognize and enroll: give it with --key or in the "
                    f"environment variable RECOGNIZER_API_KEY (it said: {str(answer).rstrip('.')})."
                )
            if answer.status not in (429, 503) or time.monotonic() > deadline:
                return answer
            time.sleep(answer.patience())

    def close(self) -> None:
        self._connection.close()


def _failure(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {REQUEST_SECONDS:.0f} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):
        return "connection lost"
    if isinstance(error, http.client.IncompleteRead):
        return "answer cut off"
    if isinstance(error, socket.gaierror):
        return "unknown host"
    return "answer is not HTTP" if isinstance(error, http.client.HTTPException) else f"connection failed ({error})"


def greet(client: Client, url: str) -> None:
    """Make sure that a recognizer answers.

    Raises:
        NoAnswer: nobody does.
        Wrong: somebody else does.
    """
    answer = client.send("GET", "/health/live")
    if answer.status != 200 or answer.json().get("status") != "live":
        raise Wrong(f"what answers at {url} is not the recognizer (GET /health/live gave {answer}).")


def wait_until_ready(client: Client, still_runs: Callable[[], bool] = lambda: True) -> None:
    """Wait for /health/ready.

    Raises:
        Wrong: it did not become ready in time, or `still_runs` says that it has ended.
    """
    deadline = time.monotonic() + READY_SECONDS
    said = "nobody answers"
    while time.monotonic() < deadline:
        if not still_runs():
            raise Wrong("the service ended while it was starting; what it said is above.")
        try:
            answer = client.send("GET", "/health/ready")
        except NoAnswer as error:
            said = str(error)
        else:
            if answer.status == 200:
                return
            checks = answer.json().get("checks", {})
            failing = [f"{name}: {check.get('detail', 'no')}" for name, check in checks.items() if not check.get("ok")]
            said = ", ".join(failing) or str(answer)
        time.sleep(0.3)
    raise Wrong(f"the service did not become ready within {READY_SECONDS:.0f} s ({said}).")
