"""A gallery of a few people behind the service's routes: photos are told apart by their bytes.

`wrong` names what it does wrong.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class SmallGallery:
    """The server; `people` is its memory, by id."""

    def __init__(self) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.answered: dict[str, dict[str, Any]] = {}
        self.wrong = ""
        self.hang_seconds = 3.0
        self.lock = threading.Lock()
        handler = type("Bound", (Handler,), {"gallery": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def enrol(self, name: str, photo: bytes, key: str = "") -> dict[str, Any]:
        """Remember a photo, once for each key, and return the answer."""
        with self.lock:
            if key and key in self.answered and self.wrong != "enrols again":
                return self.answered[key]
            person_id, face_id = str(uuid.uuid4()), str(uuid.uuid4())
            person = {"id": person_id, "name": name, "faces": {face_id: photo}}
            if self.wrong != "forgets":
                self.people[person_id] = person
            answer = {"person": {"id": person_id, "name": name, "faces": 1}, "enrolled": [{"face_id": face_id}]}
            self.answered[key] = answer
            if self.wrong == "doubles":
                person["faces"][str(uuid.uuid4())] = photo
            if self.wrong == "loses faces":
                person["faces"] = {}
            return answer

    def recognise(self, photo: bytes) -> dict[str, Any]:
        with self.lock:
            for person in self.people.values():
                for face_id, stored in person["faces"].items():
                    if stored == photo:
                        return {"faces": [self._face(person, face_id)]}
            return {"faces": []}

    def _face(self, person: dict[str, Any], face_id: str) -> dict[str, Any]:
        if self.wrong == "mixes up":
            person = {"id": "somebody-else", "name": "Somebody Else"}
        who = {"id": person["id"], "name": person["name"]}
        candidates = [{"person": who, "distance": 0.0}]
        return {
            "person": who,
            "distance": 0.0,
            "confidence": 0.99,
            "matched_face_id": face_id,
            "candidates": candidates,
        }


class Handler(BaseHTTPRequestHandler):
    """Answers like the service."""

    protocol_version = "HTTP/1.1"
    gallery: SmallGallery

    def do_GET(self) -> None:
        person_id = self.path.partition("/v1/people/")[2]
        with self.gallery.lock:
            people = list(self.gallery.people.values())
        if not person_id:
            listed = [{**person, "faces": len(person["faces"])} for person in people]
            self._answer(200, {"people": listed, "next_cursor": None})
            return
        found = [{**p, "faces": [{"id": face} for face in p["faces"]]} for p in people if p["id"] == person_id]
        self._answer(200, found[0]) if found else self._answer(404, {"code": "person_not_found"})

    def do_DELETE(self) -> None:
        person_id = self.path.rpartition("/")[2]
        with self.gallery.lock:
            keeps = self.gallery.wrong == "keeps the deleted"
            person = self.gallery.people.get(person_id) if keeps else self.gallery.people.pop(person_id, None)
        self._answer(200 if person else 404, {"left": 0})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wrong = self.gallery.wrong
        if wrong == "hangs":
            time.sleep(self.gallery.hang_seconds)
        if wrong == "fails":
            self._answer(500, {"code": "internal_error"})
        elif wrong == "is away":
            self._answer(503, {"code": "database_unavailable"}, {"Retry-After": "2"})
        elif wrong == "hangs up":
            self.close_connection = True
        elif wrong == "takes for others" and self.path == "/enroll":
            self._answer(422, {"code": "face_belongs_to_other_person"})
        elif self.path == "/enroll":
            name, photo = read(self.headers["Content-Type"], body)
            self._answer(201, self.gallery.enrol(name, photo, self.headers.get("Idempotency-Key", "")))
        elif b"a photo of" not in (photo := read(self.headers["Content-Type"], body)[1]):
            self._answer(415, {"code": "image_unsupported"})
        else:
            self._answer(200, self.gallery.recognise(photo))

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content, default=str).encode()
        with contextlib.suppress(OSError):  # the client has given up
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


def read(kind: str, body: bytes) -> tuple[str, bytes]:
    """The name and the photo of an upload, sent in any of the three ways."""
    if kind == "application/json":
        return "", base64.b64decode(json.loads(body)["image"])
    if not kind.startswith("multipart/"):
        return "", body
    name = re.search(rb'name="name"\r\n\r\n(.*?)\r\n', body)
    photo = body.partition(b"Content-Type: image/jpeg\r\n\r\n")[2].rpartition(b"\r\n--")[0]
    return (name[1].decode() if name else ""), photo
