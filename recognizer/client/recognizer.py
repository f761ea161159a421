"""The client itself: one method for each thing that can be asked of the service."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

from recognizer import __version__
from recognizer.client import answers
from recognizer.client.answers import (
    Collection,
    CollectionErasure,
    Detection,
    Enrolment,
    Erasure,
    Merger,
    Person,
    PersonDetails,
    Recognition,
    Verification,
)
from recognizer.client.batches import recognized
from recognizer.client.calls import Answer, error_of, image_files, options, parsed, path
from recognizer.client.errors import RecognizerClientError
from recognizer.client.images import Image, as_images, image_bytes
from recognizer.client.transport import Call, Transport

Include = Iterable[Literal["landmarks", "embedding", "timings"]]


class Recognizer:
    """A recognizer at `url`; a context manager, safe to use from many threads.

    Every method raises `RecognizerClientError`, whose `code` says why; `Unreachable`, one of them, where nobody
    answers. Requests are sent again after 429 and 503, as Retry-After asks, and when the connection breaks; what
    must not be done twice only where it has not been done.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout_seconds: float = 60.0,
        retry_seconds: float = 60.0,
    ) -> None:
        """Nothing is sent yet.

        Args:
            key: an API key, `rk_...`; without any key a service answers its own machine only.
            timeout_seconds: how long an answer may take; the service's own `request_timeout_seconds` is 30.
            retry_seconds: no request is sent again later than that after its first attempt; 0: never.

        Raises:
            RecognizerClientError: that is no URL.
        """
        headers = {"User-Agent": f"recognizer-client/{__version__}", **({"X-API-Key": key} if key else {})}
        self._transport = Transport(url, headers, timeout_seconds=timeout_seconds, retry_seconds=retry_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; may be called again."""
        self._transport.close()

    # -- images --

    def recognize(
        self,
        image: Image,
        *,
        collection: str = "default",
        threshold: float | None = None,
        top_k: int = 1,
        min_face_pixels: int | None = None,
        min_revision: int = 0,
        unique: bool = False,
        include: Include = (),
    ) -> Recognition:
        """Who is in an image; no face is no error."""
        form = options(
            collection=collection,
            threshold=threshold,
            top_k=top_k,
            min_face_pixels=min_face_pixels,
            min_revision=min_revision,
            unique=unique,
            include=include,
        )
        return self._ask(Recognition, Call("POST", path("recognize"), form=form, files=_one(image)))

    def recognize_many(
        self,
        images: Iterable[Image],
        *,
        collection: str = "default",
        threshold: float | None = None,
        top_k: int = 1,
        min_face_pixels: int | None = None,
        unique: bool = False,
        include: Include = (),
    ) -> Iterator[Recognition | RecognizerClientError]:
        """Who is in each of many images, in order: a result, or the error of that image.

        `images` is read as the results are, a batch of at most 32 images and 32 MB ahead. What is wrong with a
        request as a whole (its key, the collection, nobody answers) is raised.
        """
        form = options(
            collection=collection,
            threshold=threshold,
            top_k=top_k,
            min_face_pixels=min_face_pixels,
            unique=unique,
            include=include,
        )

        def send(batch: list[bytes]) -> answers.Batch:
            call = Call("POST", path("recognize", "batch"), form=form, files=image_files(batch))
            return self._ask(answers.Batch, call)

        return recognized(images, send)

    def detect(self, image: Image, *, min_face_pixels: int | None = None) -> Detection:
        """The faces of an image: where they are, their landmarks, and how good they are as evidence."""
        form = options(min_face_pixels=min_face_pixels)
        return self._ask(Detection, Call("POST", path("detect"), form=form, files=_one(image)))

    def verify(
        self,
        image: Image,
        other_image: Image | None = None,
        *,
        person_id: str | None = None,
        threshold: float | None = None,
        single_face: bool = False,
    ) -> Verification:
        """Whether two images, or an image and somebody who is enrolled, are the same person."""
        files = _one(image)
        if other_image is not None:
            files += image_files([image_bytes(other_image)], "other_image")
        form = options(person_id=person_id, threshold=threshold, face="single" if single_face else None)
        return self._ask(Verification, Call("POST", path("verify"), form=form, files=files))

    def enroll(
        self,
        images: Image | Iterable[Image],
        *,
        name: str | None = None,
        person_id: str | None = None,
        collection: str = "default",
        external_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        largest_face: bool = False,
        force: bool = False,
        idempotency_key: str | None = None,
    ) -> Enrolment:
        """Remember the faces of one person, by `name` or `person_id`; photos that cannot be used are `refused`.

        Args:
            images: photos of one person, one or several; each shows one face, or `largest_face`.
            force: enrol poor faces, too, and such as are almost certainly another person's.
            idempotency_key: the same key with the same request enrols once, for 24 hours; made here, it makes the
                retries of this call safe.

        Raises:
            RecognizerClientError: when no photo could be used `refused` says why, one by one.
        """
        form = options(
            name=name,
            person_id=person_id,
            collection=collection,
            external_id=external_id,
            metadata=metadata,
            face="largest" if largest_face else None,
            force=force,
        )
        headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(24)}
        call = Call("POST", path("enroll"), form=form, files=image_files(as_images(images)), headers=headers)
        return self._ask(Enrolment, call)

    # -- people --

    def people(
        self,
        collection: str = "default",
        *,
        query: str = "",
        external_id: str | None = None,
        sort: Literal["name", "-name", "created_at", "-created_at"] = "name",
        page_size: int = 200,
    ) -> Iterator[Person]:
        """The people of a collection, those whose name contains `query`; asked for page by page as they are read."""
        asked = options(collection=collection, query=query, external_id=external_id, sort=sort, limit=page_size)
        cursor: str | None = None
        while True:
            page = self._ask(answers.PeoplePage, Call("GET", path("people"), query={**asked, "cursor": cursor}))
            yield from page.people
            cursor = page.next_cursor
            if cursor is None:
                return

    def person(self, person_id: str) -> PersonDetails:
        """A person with the faces that are stored."""
        return self._ask(PersonDetails, Call("GET", path("people", person_id)))

    def delete_person(self, person_id: str) -> Erasure:
        """Erase a person, and get the receipt."""
        return self._ask(Erasure, Call("DELETE", path("people", person_id), repeatable=False))

    def merge_people(self, person_id: str, *, into: str) -> Merger:
        """Give all that is held on a person to another one, who was the same all along."""
        call = Call("POST", path("people", person_id, "merge"), json={"into": into}, repeatable=False)
        return self._ask(Merger, call)

    def export_person(self, person_id: str, file: str | os.PathLike[str]) -> None:
        """Write all that is held on a person to `file`, a ZIP that only this user can read.

        The file is there when it is complete, or not at all.

        Raises:
            RecognizerClientError: also where the file cannot be written.
        """
        unfinished = f"{os.fspath(file)}.part"
        with self._transport.stream(Call("GET", path("people", person_id, "export"))) as (reply, pieces):
            if reply.status != 200:
                raise error_of(reply)
            try:
                with open(unfinished, "wb", opener=_for_us_alone) as written:
                    written.writelines(pieces)
                os.replace(unfinished, file)
            except OSError as error:
                raise RecognizerClientError(
                    "file_unwritable", f"{file} cannot be written: {error.strerror}."
                ) from error
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(unfinished)

    # -- collections --

    def collections(self) -> tuple[Collection, ...]:
        """The collections that the key may use, by name."""
        return self._ask(answers.Collections, Call("GET", path("collections"))).collections

    def collection(self, name: str) -> Collection:
        """A collection, what is set for it and how much it holds."""
        return self._ask(Collection, Call("GET", path("collections", name)))

    def create_collection(
        self,
        name: str,
        *,
        target_fpir: float | None = None,
        threshold: float | None = None,
        keep_photos: bool | None = None,
        retention_days: int | None = None,
    ) -> Collection:
        """Make a collection; this takes a key with the scope `admin`."""
        values = {
            "name": name,
            "target_fpir": target_fpir,
            "threshold": threshold,
            "keep_photos": keep_photos,
            "retention_days": retention_days,
        }
        given = {key: value for key, value in values.items() if value is not None}
        return self._ask(Collection, Call("POST", path("collections"), json=given, repeatable=False))

    def delete_collection(self, name: str) -> CollectionErasure:
        """Erase a collection with all in it; this takes a key with the scope `admin`."""
        return self._ask(CollectionErasure, Call("DELETE", path("collections", name), repeatable=False))

    def _ask(self, kind: type[Answer], call: Call) -> Answer:
        reply = self._transport.send(call)
        if not 200 <= reply.status < 300:
            raise error_of(reply)
        return parsed(kind, reply.body)


def _one(image: Image) -> list[tuple[str, tuple[str, bytes]]]:
    return image_files([image_bytes(image)])


def _for_us_alone(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
