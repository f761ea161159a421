"""What stands between the app and a network: other sites' pages, proxies, wrong keys, limits, headers, injection."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from calls import Photos, assert_problem, post
from flask import Flask
from flask.testing import FlaskClient
from limits.storage import SCHEMES, MemoryStorage

from recognizer.api.wrong_keys import ADDRESSES, MOST, WINDOW_SECONDS, WrongKeys
from recognizer.app import create_app
from recognizer.errors import TooManyWrongKeys, Unauthorized
from recognizer.logs import formatter
from recognizer.runtime import Runtime

WRONG = f"rk_{'0' * 16}_{'0' * 64}"
CONSOLE = "https://console.example"


@pytest.fixture
def client_with(client: FlaskClient, runtime: Runtime) -> Iterator[Callable[..., FlaskClient]]:
    """Clients of an app with other settings, over the same runtime and the emptied gallery."""
    before = runtime.settings

    def make(**settings: Any) -> FlaskClient:
        runtime.settings = type(before)(**{**before.model_dump(), **settings})
        return create_app(runtime.settings, runtime).test_client()

    yield make
    runtime.settings = before


def from_address(address: str) -> dict[str, Any]:
    return {"environ_base": {"REMOTE_ADDR": address}}


# -- headers --


def test_every_answer_has_the_headers_for_browsers(client: FlaskClient) -> None:
    for answer in (client.get("/v1/people"), client.get("/nowhere"), client.get("/health/live"), client.put("/enroll")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]


# -- pages of other sites --


def preflight(client: FlaskClient, origin: str) -> dict[str, str]:
    wish = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "x-api-key, content-type"}
    answer = client.options("/v1/people/1", headers={"Origin": origin, **wish})
    assert answer.status_code == 200
    return {name: value for name, value in answer.headers.items() if name.startswith("Access-Control-")}


def test_pages_of_other_sites_get_nothing_by_default(client: FlaskClient, runtime: Runtime) -> None:
    headers = {"Origin": CONSOLE, "X-API-Key": runtime.keys.create(scopes=["admin"])[1]}
    answer = client.get("/v1/people", headers=headers)
    assert not [name for name, _ in answer.headers if "Access-Control" in name]
    assert preflight(client, CONSOLE) == {}


def test_pages_of_a_site_that_is_named_may_call(client_with: Callable[..., FlaskClient], runtime: Runtime) -> None:
    client = client_with(cors_origins=f"{CONSOLE}, http://localhost:3000")
    key = runtime.keys.create(scopes=["admin"])[1]
    allowed = preflight(client, CONSOLE)
    assert allowed["Access-Control-Allow-Origin"] == CONSOLE
    assert "DELETE" in allowed["Access-Control-Allow-Methods"]
    assert "x-api-key" in allowed["Access-Control-Allow-Headers"].lower()
    assert "Access-Control-Allow-Credentials" not in allowed
    for status, sent in ((200, {"X-API-Key": key}), (401, {})):
        answer = client.get("/v1/people", headers={"Origin": CONSOLE, **sent})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == CONSOLE, "a page may read errors too"
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://console.example.evil.example", "https://consoleXexample", "null", "x"]
)
def test_pages_of_others_still_get_nothing(client_with: Callable[..., FlaskClient], origin: str) -> None:
    assert preflight(client_with(cors_origins=CONSOLE), origin) == {}


def test_a_site_may_be_named_by_its_ipv6_address(client_with: Callable[..., FlaskClient]) -> None:
    client = client_with(cors_origins="http://[2001:db8::1]")
    assert preflight(client, "http://[2001:DB8::1]")["Access-Control-Allow-Origin"] == "http://[2001:DB8::1]"
    for other in ("http://2", "http://d", "http://[2001:db8::1]:8080"):
        assert preflight(client, other) == {}


def test_local_mode_stays_closed_to_pages_of_sites_that_are_named(client_with: Callable[..., FlaskClient]) -> None:
    for origins in (CONSOLE, "*"):
        answer = client_with(cors_origins=origins).get("/v1/people", headers={"Origin": CONSOLE})
        assert_problem(answer, 401, "unauthorized")


# -- proxies --


def test_behind_a_proxy_there_is_no_local_mode(client_with: Callable[..., FlaskClient]) -> None:
    assert_problem(client_with(trusted_proxies=1).get("/v1/people"), 401, "unauthorized")


@contextmanager
def logged_addresses(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    found: list[str] = []
    caplog.clear()
    yield found
    found += [record.address for record in caplog.records if record.message == "wrong API key"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("proxies", "address"), [(0, "127.0.0.1"), (1, "203.0.113.9"), (2, "198.51.100.7")])
def test_only_as_many_proxies_as_are_set_are_believed(
    client_with: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture, proxies: int, address: str
) -> None:
    client = client_with(trusted_proxies=proxies)
    forwarded = {"X-Forwarded-For": "192.0.2.1, 198.51.100.7, 203.0.113.9"}
    with logged_addresses(caplog) as found:
        client.get("/v1/people", headers={"X-API-Key": WRONG, **forwarded})
    assert found == [address]


# -- wrong keys --


def test_an_address_with_many_wrong_keys_has_to_wait_and_a_right_key_has_not(
    app: Flask, client: FlaskClient, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    right = runtime.keys.create(scopes=["enroll"])[1]
    here = from_address("192.0.2.7")
    with logged_addresses(caplog) as found:
        for _ in range(MOST):
            assert_problem(client.get("/v1/people", headers={"X-API-Key": WRONG}, **here), 401, "unauthorized")
        for _ in range(3):
            slowed = client.get("/v1/people", headers={"X-API-Key": WRONG}, **here)
            assert_problem(slowed, 429, "too_many_wrong_keys")
            assert 0 < int(slowed.headers["Retry-After"]) <= WINDOW_SECONDS
        assert client.get("/v1/people", headers={"X-API-Key": right}, **here).status_code == 200
        elsewhere = client.get("/v1/people", headers={"X-API-Key": WRONG}, **from_address("192.0.2.8"))
        assert_problem(elsewhere, 401, "unauthorized")
    assert found == ["192.0.2.7"] * MOST + ["192.0.2.8"]


def test_a_wrong_key_is_logged_by_its_id_and_no_secret_is(
    client: FlaskClient, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    record, right = runtime.keys.create(scopes=["enroll"])
    caplog.set_level(logging.DEBUG)
    sent = [right[:-1] + ("0" if right[-1] != "0" else "1"), f"{right}0", "hunter2", "a\tFORGED b"]
    for key in sent:
        client.get("/v1/people", headers={"X-API-Key": key}, **from_address("192.0.2.9"))
    ids = [each.key_id for each in caplog.records if each.message == "wrong API key"]  # type: ignore[attr-defined]
    assert ids == [record.id, "malformed", "malformed", "malformed"]
    text = "\n".join(formatter("json").format(each) for each in caplog.records)
    for secret in (right[20:-1], "hunter2", "FORGED"):
        assert secret not in text


def test_the_line_of_a_request_names_its_key(
    client: FlaskClient, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    record, key = runtime.keys.create(scopes=["enroll"])
    caplog.set_level(logging.INFO)
    client.get("/v1/people", headers={"X-API-Key": key})
    client.get("/v1/keys", headers={"X-API-Key": key})  # for which it has no scope
    client.get("/v1/people")
    named = [getattr(each, "key_id", None) for each in caplog.records if each.message == "request"]
    assert named == [record.id, record.id, None]


def test_wrong_keys_are_forgotten_after_a_while_and_take_bounded_memory() -> None:
    now = 0.0
    wrong = WrongKeys(clock=lambda: now)
    for _ in range(MOST):
        assert isinstance(wrong.refusal(WRONG, "192.0.2.1"), Unauthorized)
    now = WINDOW_SECONDS / 2
    slowed = wrong.refusal(WRONG, "192.0.2.1")
    assert isinstance(slowed, TooManyWrongKeys)
    assert slowed.retry_after_seconds == WINDOW_SECONDS / 2
    now = WINDOW_SECONDS
    assert isinstance(wrong.refusal(WRONG, "192.0.2.1"), Unauthorized)
    logging.disable(logging.WARNING)
    try:
        for number in range(ADDRESSES + 50):
            wrong.refusal(WRONG, f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    finally:
        logging.disable(logging.NOTSET)
    assert len(wrong._seen) == ADDRESSES


def test_the_addresses_of_one_ipv6_subscriber_count_as_one() -> None:
    wrong = WrongKeys()
    answers = [wrong.refusal(WRONG, f"2001:db8:1:2::{number:x}") for number in range(MOST + 1)]
    assert isinstance(answers[-1], TooManyWrongKeys)
    assert isinstance(wrong.refusal(WRONG, "2001:db8:1:3::1"), Unauthorized)
    assert isinstance(wrong.refusal(WRONG, None), Unauthorized)


# -- limits --


def test_each_key_may_be_used_so_often_over_all_routes(
    client_with: Callable[..., FlaskClient], runtime: Runtime
) -> None:
    client = client_with(rate_limit="3/minute")
    one, other = ({"X-API-Key": runtime.keys.create(scopes=["admin"])[1]} for _ in range(2))
    for path in ("/v1/people", "/v1/keys", "/v1/collections"):
        assert client.get(path, headers=one).status_code == 200
    limited = client.get("/metrics", headers=one)
    assert "3 per 1 minute" in assert_problem(limited, 429, "rate_limited")["detail"]
    assert 0 < int(limited.headers["Retry-After"]) <= 61
    assert client.get("/v1/people", headers=other).status_code == 200
    for _ in range(5):
        assert client.get("/health/ready", headers=one).status_code == 200
        assert_problem(client.get("/v1/people"), 401, "unauthorized")


def test_requests_that_a_key_is_not_enough_for_count(client_with: Callable[..., FlaskClient], runtime: Runtime) -> None:
    client = client_with(rate_limit="2/minute")
    headers = {"X-API-Key": runtime.keys.create(scopes=["recognize"])[1]}
    assert [client.get("/v1/people", headers=headers).status_code for _ in range(3)] == [403, 403, 429]


def away(*_: object, **__: object) -> None:
    raise ConnectionError("away")


def test_a_storage_that_is_away_refuses_nobody_and_each_worker_counts_by_itself(
    client_with: Callable[..., FlaskClient], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_with(rate_limit="2/minute")
    headers = {"X-API-Key": runtime.keys.create(scopes=["admin"])[1]}
    limiter = client.application.extensions["key_limit"]._limiter
    monkeypatch.setattr(limiter._limiter, "hit", away)
    assert [client.get("/v1/people", headers=headers).status_code for _ in range(3)] == [200, 200, 429]


def test_a_storage_that_goes_away_after_it_counted_is_not_needed_to_refuse(
    client_with: Callable[..., FlaskClient], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_with(rate_limit="1/minute")
    headers = {"X-API-Key": runtime.keys.create(scopes=["admin"])[1]}
    monkeypatch.setattr(client.application.extensions["key_limit"]._limiter._limiter, "get_window_stats", away)
    assert client.get("/v1/people", headers=headers).status_code == 200
    refused = client.get("/v1/people", headers=headers)
    assert_problem(refused, 429, "rate_limited")
    assert int(refused.headers["Retry-After"]) == 1


class Redis(MemoryStorage):
    """Stands in for the storage of that name, whose package is not installed here; it notes what is done with it."""

    def __init__(self, url: str, **options: object) -> None:
        super().__init__(url)
        self.options, self.checks = options, 0

    def check(self) -> bool:
        self.checks += 1
        return False


def test_only_requests_that_count_ask_whether_the_storage_is_back(
    client_with: Callable[..., FlaskClient], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEMES, "redis", Redis)
    client = client_with(rate_limit="9/minute", rate_limit_storage="redis://counts.example")
    headers = {"X-API-Key": runtime.keys.create(scopes=["admin"])[1]}
    limiter = client.application.extensions["key_limit"]._limiter
    monkeypatch.setattr(limiter._limiter, "hit", away)
    client.get("/v1/people", headers=headers)
    limiter._Limiter__last_check_backend = 0.0  # long ago
    for sent in ({}, headers):
        client.get("/health/live", headers=sent)
        client.get("/health/ready", headers=sent)
    client.get("/v1/people")
    before = limiter.storage.checks
    client.get("/v1/people", headers=headers)
    assert (before, limiter.storage.checks) == (0, 1)


def test_a_storage_over_a_network_is_waited_for_a_moment_only(
    client_with: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEMES, "redis", Redis)
    client = client_with(rate_limit="9/minute", rate_limit_storage="redis://counts.example")
    options = client.application.extensions["key_limit"]._limiter.storage.options
    assert options == {"socket_timeout": 1, "socket_connect_timeout": 1}


# -- injection --


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization", "Idempotency-Key", "X-Request-ID"])
@pytest.mark.parametrize("value", ["a\tb", "' OR 1=1 --", "\x1b[31mred", "é\x85", "%0d%0aSet-Cookie: x=y", "x" * 8000])
def test_odd_headers_change_nothing_but_the_answer(client: FlaskClient, photo: Photos, name: str, value: str) -> None:
    answer = post(client, "/enroll", photo["obama"], name="Ada", headers={name: value})
    expected = {"X-API-Key": {401}, "Authorization": {201}, "Idempotency-Key": {400, 201}, "X-Request-ID": {201}}
    assert answer.status_code in expected[name], answer.text
    assert "Set-Cookie" not in answer.headers
    assert all(value not in kept for _, kept in answer.headers)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_is_logged_cannot_forge_a_line(log_format: Any) -> None:
    forged = "a\n2026-01-01 00:00:00,000 INFO forged\r\u2028\x1b[2J\x85"
    record = logging.makeLogRecord({"msg": "said %s", "args": (forged,), "levelname": "INFO", "code": forged})
    line = formatter(log_format).format(record)
    assert all(rest.startswith("    ") for rest in line.splitlines()[1:])
    assert "\x1b" not in line
    if log_format == "json":
        assert json.loads(line)["code"] == forged
