"""Servers to do harm to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fault_clients import Server, StartServer

collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []  # gunicorn and POSIX signals


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Start a server with these settings; it is gone after the test."""
    with ExitStack() as closing:

        def start(**settings: object) -> Server:
            return closing.enter_context(Server(tmp_path, **settings))

        yield start


@pytest.fixture
def server(start: StartServer) -> Server:
    return start()
