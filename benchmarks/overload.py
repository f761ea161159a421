"""Ten times as many photos as the cores can do, for a minute, against as many as they can: what is answered, and when.

    .venv/bin/python benchmarks/overload.py --photo photo.jpg [--seconds 60] [--times 10]

Starts a service of its own. At peak, clients send one photo after the other; under overload, photos are sent at the
given multiple of that rate, whatever has been answered. A health check is sent twice a second all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 40.0
START_SECONDS = 90.0


@dataclass
class Measured:
    """What was answered in one phase, and after how many seconds."""

    statuses: Counter[str] = field(default_factory=Counter)
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, name: str) -> str:
        """A line of the table."""
        offered = sum(self.statuses.values()) / self.seconds
        rate = len(self.accepted) / self.seconds
        other = sum(self.statuses.values()) - len(self.accepted) - len(self.refused)
        columns = [f"{offered:.1f}", f"{rate:.1f}", _times(self.accepted), _times(self.refused), _times(self.health)]
        return f"| {name} | " + " | ".join(columns) + f" | {other} |"


def _times(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    shares = (0.5, 0.99, 1.0)
    return " / ".join(f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000:.0f}" for share in shares)


async def call(port: int, request: bytes) -> str:
    """The status of one request over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(
            ConnectionError
        ):  # refused before the upload was over; the answer is there all the same
            writer.write(request)
        answer = await reader.read()
        return answer[9:12].decode() or "none"
    finally:
        writer.close()


async def timed(port: int, request: bytes, measured: Measured) -> None:
    began = time.perf_counter()
    try:
        status = await asyncio.wait_for(call(port, request), LIMIT_SECONDS)
    except (TimeoutError, OSError) as error:
        status = type(error).__name__
    measured.statuses[status] += 1
    seconds = time.perf_counter() - began
    if status == "200":
        measured.accepted.append(seconds)
    elif status == "503":
        measured.refused.append(seconds)


async def watch_health(port: int, measured: Measured) -> None:
    for number in range(10**9):
        path = b"/health/live" if number % 2 else b"/health/ready"
        began = time.perf_counter()
        status = await call(port, b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path)
        measured.health.append(time.perf_counter() - began if status == "200" else LIMIT_SECONDS)
        await asyncio.sleep(0.5)


async def closed_loop(port: int, request: bytes, seconds: float, clients: int) -> Measured:
    """So many clients, each sending the next photo when the one before is answered."""
    measured = Measured()
    until = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < until:
            await timed(port, request, measured)

    await _beside_health(port, measured, [client() for _ in range(clients)])
    return measured


async def open_loop(port: int, request: bytes, seconds: float, rate: float) -> Measured:
    """Photos at a rate, whatever is answered."""
    measured = Measured()

    async def senders() -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * rate)):
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
                group.create_task(timed(port, request, measured))

    await _beside_health(port, measured, [senders()])
    return measured


async def _beside_health(port: int, measured: Measured, work: list) -> None:  # type: ignore[type-arg]
    health = asyncio.create_task(watch_health(port, measured))
    began = time.perf_counter()
    await asyncio.gather(*work)
    measured.seconds = time.perf_counter() - began
    health.cancel()


@contextlib.contextmanager
def service(port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="overload-", dir="/tmp") as folder:
        command = [sys.executable, "-m", "recognizer", "serve", "--port", str(port), "--data-dir", f"{folder}/d"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + START_SECONDS
            while not _is_ready(port):
                if time.monotonic() > until or process.poll() is not None:
                    sys.exit("The service did not become ready.")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def measure(port: int, request: bytes, seconds: float, times: float, clients: int) -> None:
    await closed_loop(port, request, 5, clients)  # warm
    peak = await closed_loop(port, request, seconds, clients)
    rate = len(peak.accepted) / peak.seconds
    over = await open_loop(port, request, seconds, times * rate)
    began = time.perf_counter()
    while await call(port, request) != "200":
        await asyncio.sleep(0.02)
    normal_after = time.perf_counter() - began
    after = await closed_loop(port, request, seconds / 4, clients)
    print("| | offered/s | answered/s | accepted p50/p99/max ms | refused ms | health ms | others |")
    print("|---|---|---|---|---|---|---|")
    print(peak.row(f"peak, {clients} clients"))
    print(over.row(f"{times:g}x overload"))
    print(after.row("after it"))
    print(f"\nThroughput under overload: {len(over.accepted) / over.seconds / rate:.0%} of the peak.")
    print(f"First photo answered after the load: {normal_after * 1000:.0f} ms. Statuses: {dict(over.statuses)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8, help="at peak; enough that every core always has work")
    parser.add_argument("--port", type=int, default=8190)
    options = parser.parse_args()
    data = options.photo.read_bytes()
    lines = ["POST /recognize HTTP/1.1", "Host: localhost", "Connection: close", "Content-Type: image/jpeg"]
    head = "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode()
    with service(options.port):
        asyncio.run(measure(options.port, head + data, options.seconds, options.times, options.clients))


if __name__ == "__main__":
    main()
