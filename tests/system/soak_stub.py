"""A stub in the place of the service, and what it takes to run the soak script against it.

Started as a script of its own (`main()`), the stub tells people apart by the colour of their photos and misbehaves as
the environment variable STUB says.
"""

from __future__ import annotations

import base64
import email
import email.policy
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image, ImageStat

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test_continuous_recognition.py"
START_STUB = f"""import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import soak_stub
soak_stub.main()
"""
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (128, 128, 128)}
HEALTHY_REQUESTS = 40  # a stub is well until the load has begun
OWNER = {"id": "owner", "name": "Owner", "colour": [0.0, 0.0, 0.0]}


# -- the stub --


class Stub(BaseHTTPRequestHandler):
    """Answers like the service; what is wrong with it is in `behaviour`."""

    protocol_version = "HTTP/1.1"
    behaviour = os.environ.get("STUB", "")
    began = time.monotonic()
    people: dict[str, dict[str, Any]] = {"owner": OWNER}  # noqa: RUF012 - the server's state
    kept: list[object] = []  # noqa: RUF012
    requests = 0

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self.behaviour == "nonsense":
            self._answer(200, b"<html>It works!</html>")
        elif url.path == "/health/live":
            self._answer(200, {"status": "live"})
        elif url.path == "/health/ready":
            self._answer(200, {"status": "ready", "checks": {}})
        elif self.behaviour == "key" and self.headers.get("X-API-Key") != "secret":
            self._answer(401, {"code": "unauthorized", "detail": "An API key is needed."})
        elif url.path == "/metrics":
            lines = f'recognizer_worker_memory_bytes{{pid="7"}} {3e8}\nrecognizer_pool_in_use 1.0\n'
            self._answer(200, (lines + "recognizer_pool_idle 3.0\n").encode())
        else:
            query = parse_qs(url.query).get("query", [""])[0]
            self._answer(200, {"people": [p for p in self.people.values() if query in p["name"]]})

    def do_DELETE(self) -> None:
        person = self.people.pop(self.path.rpartition("/")[2], None)
        self._answer(200 if person else 404, {"left": 0})

    def do_POST(self) -> None:
        name, image = self._upload(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        try:
            with Image.open(io.BytesIO(image)) as opened:
                colour = ImageStat.Stat(opened.convert("RGB")).mean
        except OSError:
            self._answer(422, {"code": "image_corrupt", "detail": "The image is damaged."})
            return
        if self.path == "/enroll":
            person = {"id": f"id-{name}", "name": name, "colour": colour}
            self.people[person["id"]] = person
            self._answer(201, {"person": person})
        else:
            self._recognise(colour)

    def _upload(self, body: bytes) -> tuple[str, bytes]:
        kind = self.headers.get("Content-Type", "")
        if kind == "application/json":
            try:
                return "", base64.b64decode(json.loads(body)["image"], validate=True)
            except ValueError:
                return "", b""
        if not kind.startswith("multipart/"):
            return "", body
        whole = f"Content-Type: {kind}\r\n\r\n".encode() + body
        parts = email.message_from_bytes(whole, policy=email.policy.HTTP).iter_parts()
        named = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
        return named.get("name", b"").decode(), named["image"]

    def _recognise(self, colour: list[float]) -> None:
        Stub.requests += 1
        if self.requests > HEALTHY_REQUESTS and self._misbehaved():
            return
        distances = {
            sum(abs(a - b) for a, b in zip(colour, person["colour"], strict=True)) / 255: person
            for person in self.people.values()
        }
        ordered = sorted(distances)
        wrong = self.behaviour == "wrong" and self.requests > HEALTHY_REQUESTS and self.requests % 10 == 0
        distance = ordered[1 if wrong else 0]
        self._answer(200, {"faces": [{"person": distances[distance], "distance": distance}]})

    def _misbehaved(self) -> bool:
        """Whether an answer has been given already, or will never be."""
        if self.behaviour == "dies":
            os._exit(1)
        if self.behaviour == "busy" and self.requests % 5 == 0:
            self._answer(503, {"code": "busy"}, {"Retry-After": "0"})
            return True
        if self.behaviour == "garbles" and self.requests % 10 == 0:
            self._answer(200, b"[1, 2")
            return True
        if self.behaviour == "keeps memory":  # 16 MB a second, however fast this machine is
            wanted = 16 * 2**20 * (time.monotonic() - self.began)
            self.kept.append(b"x" * max(0, int(wanted - sum(map(len, self.kept)))))  # type: ignore[arg-type]
        elif self.behaviour == "keeps files" and len(self.kept) < 20 * (time.monotonic() - self.began):
            self.kept.append(open(os.devnull))  # noqa: SIM115
        return False

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


def main() -> None:
    """Serve until SIGTERM; called by what the tests put in the place of scripts/start_production.py."""
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    if "STUB_NOTES" in os.environ:
        Path(os.environ["STUB_NOTES"]).write_text(options["--data-dir"])
    server = ThreadingHTTPServer(("127.0.0.1", int(options["--port"])), Stub)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(0.1)
    server.server_close()
    sys.exit(0)


# -- the script against it --


def made_checkout(folder: Path) -> Path:
    """A folder `scripts` like ours, with the stub in the place of the service; the report goes beside it."""
    scripts = folder / "scripts"
    scripts.mkdir()
    shutil.copy(SCRIPT, scripts)
    shutil.copytree(SCRIPT.parent / "soak", scripts / "soak", ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "start_production.py").write_text(START_STUB)
    album = folder / "photos"
    album.mkdir()
    for number, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (60 + 10 * number, 80), colour).save(album / f"{name}.jpg")
    return folder


@contextmanager
def running_stub(checkout: Path, behaviour: str = "") -> Iterator[str]:
    """A stub that behaves as told, for as long as the block lasts; its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    command = [sys.executable, "scripts/start_production.py", "--port", str(port), "--data-dir", "none"]
    with subprocess.Popen(command, cwd=checkout, env={**os.environ, "STUB": behaviour}) as process:
        try:
            for _ in range(200):
                if somebody_listens(port):
                    break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def command(*arguments: str, python: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *python, "scripts/test_continuous_recognition.py", *arguments]


def report(checkout: Path) -> dict[str, Any]:
    return dict(json.loads((checkout / "soak-report.json").read_text()))


def somebody_listens(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=3).close()
    except OSError:
        return False
    return True
