"""The shipped configuration of nginx, where nginx is installed: what it is there to keep away from the service."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_clients import ROOT, Server, free_port, many, wait_until

NGINX = shutil.which("nginx")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[Server]:
    """The server, as it is reached through nginx."""
    port = free_port()
    text = (ROOT / "config" / "nginx.conf").read_text()
    for shipped, ours in {
        "listen 8080;": f"listen {port};",
        "127.0.0.1:8000;": f"127.0.0.1:{server.port};",
        "/run/recognizer-nginx.pid": str(tmp_path / "nginx.pid"),
        "limit_conn clients 200;": "limit_conn clients 20000;",  # all of a test's clients have one address
        "burst=40 nodelay;": "burst=20000 nodelay;",
    }.items():
        assert shipped in text
        text = text.replace(shipped, ours)
    path = tmp_path / "nginx.conf"
    path.write_text(text)
    process = subprocess.Popen([str(NGINX), "-c", str(path), "-p", str(tmp_path), "-g", "daemon off;"])
    direct, server.port = server.port, port
    try:
        wait_until(server.is_ready)
        yield server
    finally:
        server.port = direct
        process.terminate()
        process.wait(10)


def test_ten_thousand_idle_connections_are_the_proxys(proxy: Server) -> None:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with many(proxy, min(10_000, allowed - 200)):
        assert [proxy.get("/who").status for _ in range(10)] == [200] * 10


def test_half_sent_bodies_do_not_reach_the_service(proxy: Server) -> None:
    with many(proxy, 400, b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nhalf"):
        assert proxy.call("POST", "/body", b"whole").json == {"bytes": 5}
