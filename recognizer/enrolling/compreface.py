"""Subjects and their photos in a running CompreFace (1.x), read page by page over its REST API."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

from recognizer.client import RecognizerClientError
from recognizer.client.transport import Call, Reply, Transport
from recognizer.enrolling.items import Item, NoPhoto, Outcome, Row
from recognizer.errors import StartupError

PAGE_SIZE = 100
MOST_PASSES = 3
"""So often is what has changed while it was read looked at again."""

TIMEOUT_SECONDS = 60.0

OF_THE_KEY = frozenset({10, 20, 26})
"""CompreFace's codes for a key that is unknown, not there, or no UUID."""

WRONG_KEY = (
    "CompreFace does not know this key as one of a recognition service. Take the API key of the service of the type "
    "RECOGNITION that the subjects are in (Applications, Services); keys for detection or verification own no subjects."
)
NO_PHOTOS = Outcome("skipped", ("no_photos",), "This subject has no photos in CompreFace.")
CHANGED = Outcome("failed", ("changed_meanwhile",), "Its photos changed while they were listed; run the command again.")
GONE = Outcome(
    "failed",
    ("photo_gone",),
    "CompreFace has no photo of this id (any more); it keeps none at all where it runs with SAVE_IMAGES_TO_DB=false.",
)


class CompreFace:
    """The photos of the recognition service whose key is given."""

    def __init__(self, url: str, key: str, *, retry_seconds: float = 60.0) -> None:
        """Nothing is asked yet.

        Raises:
            StartupError: that is no URL.
        """
        try:
            self._transport = Transport(
                _base(url), {"x-api-key": key}, timeout_seconds=TIMEOUT_SECONDS, retry_seconds=retry_seconds
            )
        except RecognizerClientError as error:
            raise StartupError(error.detail) from error

    def close(self) -> None:
        """Close the connections; may be called again."""
        self._transport.close()

    def count(self) -> int:
        """How many photos there are.

        Raises:
            StartupError: it does not answer, or refuses the key.
        """
        return int(self._json("faces", page=0, size=1).get("total_elements", 0))

    def __iter__(self) -> Iterator[Item | Row]:
        """All photos, subject by subject; subjects that come while it is read, too."""
        read: set[str] = set()
        for _ in range(MOST_PASSES):
            new = sorted(set(self._subjects()) - read)
            for subject in new:
                yield from self._of(subject)
            read.update(new)
            if not new:
                return

    def _subjects(self) -> list[str]:
        return [str(subject) for subject in self._json("subjects")["subjects"]]

    def _of(self, subject: str) -> Iterator[Item | Row]:
        image_ids, complete = self._image_ids(subject)
        if not complete:
            yield Row(subject, subject, CHANGED)
        elif not image_ids:
            yield Row(subject, subject, NO_PHOTOS)
        for image_id in image_ids:
            yield Item(f"{subject}/{image_id}", subject, partial(self._read, image_id))

    def _image_ids(self, subject: str) -> tuple[list[str], bool]:
        """The ids of a subject's photos, and whether these are all.

        Whoever adds or deletes photos meanwhile shifts the pages; then they are read once more.
        """
        found: dict[str, None] = {}
        for _ in range(MOST_PASSES):
            totals = set()
            for page in self._pages(subject):
                found.update(dict.fromkeys(str(face["image_id"]) for face in page["faces"]))
                totals.add(int(page.get("total_elements", len(found))))
            if len(totals) == 1 and len(found) >= max(totals):
                return list(found), True
        return list(found), False

    def _pages(self, subject: str) -> Iterator[dict[str, Any]]:
        for number in itertools.count():
            page = self._json("faces", page=number, size=PAGE_SIZE, subject=subject)
            yield page
            if number + 1 >= int(page.get("total_pages", 1)) or not page["faces"]:
                return

    def _read(self, image_id: str) -> bytes:
        reply = self._get(f"faces/{quote(image_id, safe='')}/img")
        if reply.status != 200:
            detail = f"CompreFace does not give it (status {reply.status})."
            raise NoPhoto(Outcome("failed", ("unreadable",), detail))
        if not reply.body:
            raise NoPhoto(GONE)
        return reply.body

    def _json(self, path: str, **query: Any) -> dict[str, Any]:
        reply = self._get(path, **query)
        try:
            answer = dict(json.loads(reply.body))
            list(answer[path])
        except (ValueError, KeyError, TypeError):
            raise StartupError(
                f"{self._transport.shown} does not answer as CompreFace does (status {reply.status}); give the URL of "
                "its web page, such as http://localhost:8000, or try again later if it fails."
            ) from None
        return answer

    def _get(self, path: str, **query: Any) -> Reply:
        """An answer to somebody who has the right key."""
        try:
            reply = self._transport.send(Call("GET", f"/api/v1/recognition/{path}", query=query))
        except RecognizerClientError as error:
            raise StartupError(f"CompreFace cannot be read. {error.detail}") from error
        if reply.status in (401, 403) or (reply.status in (400, 404) and _code(reply) in OF_THE_KEY):
            raise StartupError(WRONG_KEY)
        return reply


def _base(url: str) -> str:
    """The URL without the path that examples of CompreFace have."""
    return url.rstrip("/").removesuffix("/api/v1").removesuffix("/api")


def _code(reply: Reply) -> int | None:
    """The number that CompreFace's errors have."""
    try:
        return int(json.loads(reply.body)["code"])
    except (ValueError, KeyError, TypeError):
        return None
