"""More work than can be done: it waits a bounded time in a bounded queue, the rest is refused without a thread."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial

import pytest
from fault_clients import Answer, Load, Server, StartServer, at_once, many, wait_until

HALF_A_BODY = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nhalf"


def test_what_cannot_be_worked_on_is_refused_at_once_and_the_rest_is_answered(start: StartServer) -> None:
    server = start(threads=2, queue_length=2)
    answers = at_once([lambda: server.get("/slow/1")] * 20)
    statuses = [answer.status for answer in answers]
    assert statuses.count(200) == 4, "two in threads, two in the queue"
    assert statuses.count(503) == 16
    for refused in (answer for answer in answers if answer.status == 503):
        assert refused.json["code"] == "busy"
        assert refused.headers["Retry-After"] == "1"
        assert refused.json["request_id"] == refused.headers["X-Request-ID"]


def test_a_refused_upload_is_not_received_first(start: StartServer) -> None:
    server = start(threads=1, queue_length=0)
    with many(server, 1, b"GET /slow/3 HTTP/1.1\r\nHost: x\r\n\r\n"):
        time.sleep(0.3)
        head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
        assert server.exchange(head).status == 503, "answered to the head alone"
        assert server.exchange(head, bytes(5_000_000)).status == 503, "and to who sends it all the same"


def test_nobody_waits_in_the_queue_longer_than_allowed(start: StartServer) -> None:
    server = start(threads=1, queue_length=5, queue_timeout_seconds=0.5)
    began = time.monotonic()
    first, *waiting = at_once([lambda: server.get("/slow/4")] * 4)
    del first
    refused = [answer for answer in waiting if answer.status == 503]
    assert len(refused) >= 2
    assert time.monotonic() - began < 8, "none of them had its turn"


def test_health_is_answered_at_once_under_overload(start: StartServer) -> None:
    server = start(threads=2, queue_length=2)
    with Load(lambda: server.get("/slow/0.5"), clients=40):
        time.sleep(0.5)
        began = time.monotonic()
        for _ in range(20):
            assert server.get("/health/live").status == 200
            assert server.get("/health/ready").status == 200
        assert time.monotonic() - began < 10, "forty health checks; behind the queue they would take 40 seconds"


def test_400_half_sent_bodies_hold_neither_a_thread_nor_a_health_check(server: Server) -> None:
    with many(server, 400, HALF_A_BODY):
        began = time.monotonic()
        assert server.get("/health/live").status == 200
        assert server.get("/health/ready").status == 200
        assert server.get("/who").status == 200
        assert time.monotonic() - began < 4


def test_it_is_normal_again_as_soon_as_the_load_ends(start: StartServer) -> None:
    server = start(threads=2, queue_length=2)
    with Load(lambda: server.get("/slow/0.2"), clients=30) as load:
        time.sleep(2)
    assert load.statuses() == {200, 503}
    answers = at_once([lambda: server.get("/slow/0.01")] * 2)
    assert [answer.status for answer in answers] == [200, 200]


def test_a_worker_without_a_free_thread_leaves_new_clients_to_one_that_has_some(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTS_COURTESY_SECONDS", "0.2")  # a busy machine takes its time to wake the other worker
    server = start(workers=2, threads=2, queue_length=9)
    server.await_workers(2)
    busy: list[Answer] = []

    def take_three_of_four_threads() -> None:
        busy.extend(at_once([partial(server.get, "/slow/4")] * 3))

    holding = threading.Thread(target=take_three_of_four_threads)
    holding.start()
    time.sleep(0.5)
    quick = Counter(server.get("/who").json["pid"] for _ in range(12))
    holding.join()
    full, _ = Counter(answer.json["pid"] for answer in busy).most_common(1)[0]
    assert quick[full] <= 1, "a request that comes to the full worker waits there for seconds"


def test_what_is_refused_is_in_the_log_in_one_line_for_many(start: StartServer) -> None:
    server = start(threads=1, queue_length=0)
    at_once([lambda: server.get("/slow/0.5")] * 10)
    wait_until(lambda: "refused without being worked on" in server.log(), 20)
    assert server.log().count("refused without being worked on") == 1
