"""Clients that misbehave: each costs a bounded amount of something, and the others do not notice."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fault_clients import Answer, Server, StartServer, many, read_answer, read_to_end, wait_until

CHUNKED = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all who leave it as it was: each of them finds it at work after the one before."""
    with Server(tmp_path_factory.mktemp("clients")) as server:
        yield server


def upload(size: int, *more: bytes) -> bytes:
    return b"\r\n".join([b"POST /body HTTP/1.1", b"Host: x", b"Content-Length: %d" % size, *more, b"", b""])


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


# -- slow ones --


@pytest.mark.parametrize("begin", [b"", b"GET / HT", upload(99) + b"half", CHUNKED + b"5\r\nhal"])
def test_who_stops_half_way_holds_no_thread_and_is_let_go(start: StartServer, begin: bytes) -> None:
    server = start(threads=1, request_timeout_seconds=2)
    with many(server, 20, begin) as clients:
        assert server.get("/who", seconds=2).status == 200
        if begin:
            for client in clients:
                assert_problem(read_answer(client), 408, "request_timeout")


def test_who_drips_has_the_same_limit(start: StartServer) -> None:
    server = start(threads=1, request_timeout_seconds=1)
    with server.connect() as client:
        began = time.monotonic()
        client.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() < began + 15:
            client.sendall(b"G")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_slow_readers_hold_no_thread(start: StartServer) -> None:
    server = start(threads=2)
    with contextlib.ExitStack() as closing:
        clients = []
        for _ in range(8):
            client = closing.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            client.connect(("127.0.0.1", server.port))
            client.sendall(b"GET /large/20 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            clients.append(client)
            time.sleep(0.1)
        assert server.get("/who", seconds=5).status == 200
        assert len(read_answer(clients[0]).body) == 20 << 20, "who reads gets all of it"


def test_a_file_is_sent_as_any_other_answer(server: Server) -> None:
    assert server.get("/file").body == Path(sys.executable).read_bytes()


# -- many of them --


def test_1000_idle_connections_and_the_others_do_not_notice(server: Server) -> None:
    with many(server, 1000):
        began = time.monotonic()
        assert [server.get("/who").status for _ in range(10)] == [200] * 10
        assert time.monotonic() - began < 10


def test_beyond_the_limit_who_is_idle_longest_makes_room(start: StartServer) -> None:
    server = start(threads=2)
    with many(server, 2100) as clients:
        assert server.get("/who").status == 200
        clients[0].settimeout(5)
        assert clients[0].recv(1) == b"", "closed"


def test_without_a_file_left_who_is_idle_longest_makes_room(start: StartServer) -> None:
    server = start(threads=2)
    (worker,) = server.workers()
    few = worker.num_fds() + 20
    worker.rlimit(psutil.RLIMIT_NOFILE, (few, few))
    with many(server, 60) as clients:
        assert [server.get("/who", seconds=10).status for _ in range(5)] == [200] * 5
        clients[0].settimeout(5)
        assert clients[0].recv(1) == b"", "closed"
    assert server.workers() == [worker]


# -- wrong ones --


def test_an_upload_that_breaks_off_is_forgotten(server: Server) -> None:
    for _ in range(50):
        with server.connect() as client:
            client.sendall(upload(100_000) + bytes(50_000))
    assert server.call("POST", "/body", b"whole").json == {"bytes": 5}


def test_who_closes_only_the_sending_side_reads_the_answer(server: Server) -> None:
    assert server.exchange(upload(3) + b"abc", half_close=True).json == {"bytes": 3}
    assert_problem(server.exchange(upload(9) + b"abc", half_close=True), 400, "invalid_request")


def test_a_chunked_body_of_unknown_length_arrives_whole_in_whatever_pieces(server: Server) -> None:
    body = b"".join(b"%x;ext=1\r\n%s\r\n" % (size, bytes(size)) for size in (1, 10, 70_000, 3)) + b"0\r\nX-T: 1\r\n\r\n"
    assert server.exchange(CHUNKED + body).json == {"bytes": 70_014}
    with server.connect() as client:
        for at in range(40):
            client.sendall((CHUNKED + body)[at : at + 1])
        client.sendall((CHUNKED + body)[40:])
        assert read_answer(client).json == {"bytes": 70_014}


def test_a_chunked_body_without_an_end_is_cut_off(start: StartServer) -> None:
    server = start(max_request_bytes=100_000, max_image_bytes=100_000)
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    assert_problem(server.exchange(CHUNKED, *[chunk] * 5), 413, "image_too_large")


def test_an_upload_that_says_it_is_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    assert_problem(server.exchange(upload(10**9)), 413, "image_too_large")
    assert_problem(server.exchange(upload(10**9, b"Expect: 100-continue")), 413, "image_too_large")


def test_a_body_is_asked_for_once(server: Server) -> None:
    with server.connect() as client:
        client.sendall(upload(3, b"Expect: 100-continue", b"Connection: close"))
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert read_answer(client).json == {"bytes": 3}


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        upload(-3),
        upload(3, b"Content-Length: 4") + b"abcd",
        upload(3, b"Transfer-Encoding: chunked") + b"abc",
    ],
)
def test_what_is_malformed_is_refused_at_once(server: Server, sent: bytes) -> None:
    assert_problem(server.exchange(sent), 400, "invalid_request")


@pytest.mark.parametrize("chunk", [b"zz\r\n\r\n", b"-5\r\nabc\r\n\r\n", b"1" * 9000])
def test_a_malformed_chunk_ends_the_request(server: Server, chunk: bytes) -> None:
    assert_problem(server.exchange(CHUNKED + chunk), 400, "invalid_request")


def test_a_body_longer_than_it_says_is_no_part_of_the_next_request(server: Server) -> None:
    with server.connect() as client:
        client.sendall(upload(3) + b"abcdef\r\n\r\n")
        answers = read_to_end(client)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"400"]


def test_header_floods_are_cut_off(server: Server) -> None:
    flood = b"GET / HTTP/1.1\r\n" + b"X-A: 1\r\n" * 100_000
    assert server.exchange(flood + b"\r\n").status in (400, 431)
    assert server.exchange(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 500_000).status == 431


def test_pipelined_requests_are_answered_one_after_the_other_and_in_order(server: Server) -> None:
    sizes = [1, 5, 2, 9, 4]
    with server.connect() as client:
        client.sendall(b"".join(upload(size) + bytes(size) for size in sizes))
        client.shutdown(socket.SHUT_WR)
        answers = read_to_end(client)
    assert [int(size) for size in re.findall(rb'"bytes":\s*(\d+)', answers)] == sizes


def test_a_thousand_pipelined_health_checks_are_answered(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        answered = b""
        while answered.count(b"HTTP/1.1 200") < 1000:
            piece = client.recv(65536)
            assert piece, "the connection ended early"
            answered += piece


def test_work_is_not_begun_for_a_client_that_has_gone(start: StartServer) -> None:
    server = start(threads=1, queue_length=4)
    with many(server, 1, b"GET /slow/1.5 HTTP/1.1\r\nHost: x\r\n\r\n"):
        time.sleep(0.2)
        with many(server, 4, b"GET /slow/4 HTTP/1.1\r\nHost: x\r\n\r\n") as waiting:
            time.sleep(0.3)
            for client in waiting:  # closing it resets it
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        began = time.monotonic()
        wait_until(lambda: server.get("/who").status == 200)
        assert time.monotonic() - began < 10, "four times four seconds would have been spent for nobody"
