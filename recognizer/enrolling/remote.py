"""Enrols through a running service: photo by photo, in requests that do nothing when they come twice."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from recognizer.client import Enrolment, Recognizer, RecognizerClientError, Unreachable
from recognizer.enrolling.items import Manner, Outcome
from recognizer.errors import DuplicatePhoto, ImageTooLarge, MultipleFaces, NoFace, StartupError

OF_ONE_PHOTO = frozenset({400, 409, 415, 422, 500, 504})
"""Statuses that say something of the photo; after any other, the next photo would fare no better."""

TOO_LARGE = 413

NOT_OF_A_PHOTO = frozenset({"collection_not_found", "answer_not_understood"})


class RemoteEnroller:
    """Sends one photo at a time; each thread has its own turn."""

    batch = 1

    def __init__(self, client: Recognizer, manner: Manner) -> None:
        """Look at the collection.

        Raises:
            RecognizerClientError
        """
        self._client = client
        self._manner = manner
        self._revision = client.collection(manner.collection).gallery_revision

    def enrol(self, person: str, photos: Sequence[bytes]) -> list[Outcome]:
        """What came of each photo of a person, in order.

        Raises:
            StartupError: the service cannot be asked any more, or refuses everything.
        """
        try:
            return [self._look(photo) if self._manner.dry_run else self._enrol(person, photo) for photo in photos]
        except RecognizerClientError as error:
            raise StartupError(_sentence(error)) from error

    def _enrol(self, person: str, photo: bytes) -> Outcome:
        try:
            done = self._send(person, photo, self._key(person, photo))
            if self._is_earlier(done) and not self._is_there(done):
                done = self._send(person, photo, secrets.token_hex(16))
        except RecognizerClientError as error:
            return _refused(error)
        return self._enrolled(done)

    def _send(self, person: str, photo: bytes, key: str) -> Enrolment:
        return self._client.enroll(
            photo,
            name=person,
            collection=self._manner.collection,
            largest_face=self._manner.largest_face,
            idempotency_key=key,
        )

    def _is_earlier(self, done: Enrolment) -> bool:
        """Whether the service gave an answer again; that is older than this run."""
        return done.gallery_revision <= self._revision

    def _is_there(self, done: Enrolment) -> bool:
        """Whether the face of an earlier answer has not been taken back since; a person who was merged keeps it."""
        try:
            kept = self._client.person(done.person.id)
        except RecognizerClientError as error:
            if error.code != "person_not_found":
                raise
            return True
        return done.enrolled[0].face_id in {face.id for face in kept.faces}

    def _enrolled(self, done: Enrolment) -> Outcome:
        face = done.enrolled[0]
        return Outcome(
            "already_enrolled" if self._is_earlier(done) else "enrolled",
            (*(remark.code for remark in done.warnings), *face.quality.issues),
            " ".join(remark.detail for remark in done.warnings),
            done.person.id,
            face.face_id,
            face.quality.score,
        )

    def _key(self, person: str, photo: bytes) -> str:
        """The same for the same photo of the same person in the same collection, whoever sends it when."""
        said = [self._manner.collection, person, self._manner.largest_face, hashlib.sha256(photo).hexdigest()]
        return f"enrol-{hashlib.sha256(json.dumps(said).encode()).hexdigest()}"

    def _look(self, photo: bytes) -> Outcome:
        """What can be told without enrolling; whether a face is good enough is the service's to say."""
        try:
            faces = self._client.detect(photo).faces
        except RecognizerClientError as error:
            return _refused(error)
        if not faces:
            return Outcome("refused", (NoFace.code,), "It shows no face that can be found.")
        if len(faces) > 1 and not self._manner.largest_face:
            return Outcome("refused", (MultipleFaces.code,), f"It shows {len(faces)} faces.")
        return Outcome("would_enrol", faces[0].quality.issues, quality=faces[0].quality.score)


@contextmanager
def remote_enroller(url: str, key: str | None, manner: Manner) -> Iterator[RemoteEnroller]:
    """An enroller over the service at a URL.

    Raises:
        StartupError: the service does not answer or refuses the key, or the collection is not there and not to be made.
    """
    try:
        with Recognizer(url, key) as client:
            if manner.create_collection and not manner.dry_run:
                _make(client, manner.collection)
            yield RemoteEnroller(client, manner)
    except RecognizerClientError as error:
        hint = " Add --create-collection to have it made." if error.code == "collection_not_found" else ""
        raise StartupError(_sentence(error) + hint) from error


def _make(client: Recognizer, collection: str) -> None:
    try:
        client.create_collection(collection)
    except RecognizerClientError as error:
        if error.code != "conflict":  # it is there
            raise


def _refused(error: RecognizerClientError) -> Outcome:
    """What an error says of the photo; raises it where it says nothing of one."""
    if error.status == TOO_LARGE:  # a proxy before the service has a limit of its own, and no word for it
        return Outcome("refused", (ImageTooLarge.code,), error.detail)
    if isinstance(error, Unreachable) or error.code in NOT_OF_A_PHOTO or error.status not in OF_ONE_PHOTO:
        raise error
    reasons = [word for remark in error.refused for word in (remark.code, *remark.issues)] or [error.code]
    if DuplicatePhoto.code in reasons:
        return Outcome("already_enrolled")
    return Outcome("failed" if (error.status or 0) >= 500 else "refused", tuple(reasons), error.detail)


def _sentence(error: RecognizerClientError) -> str:
    in_log = (error.status or 0) >= 500 and error.request_id
    return f"{error.detail} (Its log has it under the request_id {error.request_id}.)" if in_log else error.detail
