"""Requests in whatever pieces they come: the same request, or the same refusal, as if they had come at once."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import pytest
from fuzzing import bounded, damaged
from hypothesis import given
from hypothesis import strategies as st

if sys.platform == "win32":
    pytest.skip("gunicorn does not run there", allow_module_level=True)

from gunicorn.config import Config

from recognizer.servers.arrival import ClientSocket, Connection

WHOLE = [
    b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nphoto=123GET / HTTP/1.1\r\n\r\n",
    b"POST /enroll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;a=b\r\nWiki\r\n5\r\npedia\r\n0\r\nX-T: 1\r\n\r\nGET",
    b"POST /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
]


def received(pieces: list[bytes]) -> tuple[object, ...]:
    """What has become of the request: method, path and body, how it was refused, or what is still missing."""
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(ClientSocket(ours)) as sock:
        connection = Connection(Config(), sock, ("127.0.0.1", 1), ("127.0.0.1", 2))
        try:
            for piece in pieces:
                connection.take(piece)
                if connection.is_complete:
                    break
            if not connection.is_complete:
                return ("incomplete", connection.request is not None)
            connection.unchunk()
            request = connection.request
            return (request.method, request.path, request.body.read())
        except Exception as error:  # noqa: BLE001 - the parser's own are many; those that are no refusal fail
            assert type(error).__module__.startswith(("gunicorn.http", "recognizer.servers")), repr(error)
            return (type(error).__name__,)


@bounded(800)
@given(damaged(st.sampled_from(WHOLE)), st.lists(st.integers(1, 60), max_size=12))
def test_a_request_is_the_same_in_whatever_pieces_it_comes(data: bytes, sizes: list[int]) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces = [piece for piece in [*pieces, data[at:]] if piece]
    assert received(pieces) == received([data] if data else [])
