"""The use cases: the one place where faces (vision) and people (gallery) meet. No HTTP, no SQL, no pixels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.decisions import Verdict, decide
from recognizer.errors import (
    EnrolmentRefused,
    FaceTooSmall,
    GalleryBehind,
    InvalidRequest,
    MultipleFaces,
    NoFace,
    Refusal,
    Unusable,
)
from recognizer.faces import Analysis, Box, Embedding, Face, NewFace, Rejection
from recognizer.gallery.store import Enrolment, Gallery, Idempotency
from recognizer.vision.engine import Engine

MIN_OVERLAP = 0.3
"""How much (intersection over union) a face has to overlap the box that says which one is meant."""


class Seen(NamedTuple):
    """One face of a photo and what was decided about it."""

    face: Face
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Recognition:
    """The answer to one photo: every face with its verdict, and the gallery's revision it holds for."""

    collection: str
    revision: int
    analysis: Analysis
    seen: tuple[Seen, ...]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """What to remember: photos (encoded images) of one person, by `name` or `person_id`."""

    collection: str
    photos: Sequence[bytes] = field(repr=False)
    name: str | None = None
    person_id: str | None = None
    external_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    largest_face: bool = False
    idempotency_key: str | None = None

    def digest(self) -> bytes:
        """SHA-256 over what makes two requests to a collection the same one."""
        digest = hashlib.sha256()
        options = (self.name, self.person_id, self.external_id, self.metadata, self.largest_face)
        digest.update(repr(options).encode())
        for photo in self.photos:
            digest.update(hashlib.sha256(photo).digest())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class RejectRequest:
    """Whose face one is not: `photo` (an encoded image), of which `box` or `largest_face` says which face, or the
    `embedding`. `by` is who says so; with `collection`, only if the person is in it."""

    person_id: str
    by: str
    collection: str | None = None
    photo: bytes | None = field(default=None, repr=False)
    embedding: Embedding | None = field(default=None, repr=False, compare=False)
    box: Box | None = None
    largest_face: bool = False


class Service:
    """Recognising and enrolling, over one engine and one gallery. Safe to use from many threads."""

    def __init__(self, engine: Engine, gallery: Gallery, settings: Settings) -> None:
        self._engine = engine
        self._gallery = gallery
        self._settings = settings

    def recognize(
        self,
        photo: bytes,
        collection: str,
        deadline: Deadline,
        *,
        threshold: float | None = None,
        top_k: int = 1,
        min_face_pixels: int | None = None,
        min_revision: int = 0,
    ) -> Recognition:
        """Find the faces of one photo and decide who they are.

        Args:
            photo: the encoded image.
            threshold: the L2 distance up to which a person is a match; default: the collection's, else
                the settings'.
            top_k: how many candidates each verdict has at least, where there are so many people.
            min_revision: refuse to answer from an older state of the gallery than this.

        Raises:
            Unusable: the image cannot be read.
            CollectionNotFound, Busy, DatabaseUnavailable, DeadlineExceeded, GalleryBehind
        """
        began = time.perf_counter()
        known = self._gallery.collection(collection, deadline)
        analysis = self._engine.analyse(photo, deadline, min_face_pixels=min_face_pixels)
        deadline.check()
        searching = time.perf_counter()
        revision, neighbours = self._gallery.nearest(
            known.name,
            [face.embedding for face in analysis.faces],
            self._engine.model_id,
            max(top_k, 2),  # the margin needs the second person
            deadline,
        )
        search_ms = (time.perf_counter() - searching) * 1000
        if revision < min_revision:
            raise GalleryBehind(f"The gallery is at revision {revision}, not yet at {min_revision}; try again.")
        limit = threshold or known.threshold or self._settings.threshold
        seen = tuple(Seen(face, decide(near, limit)) for face, near in zip(analysis.faces, neighbours, strict=True))
        total_ms = (time.perf_counter() - began) * 1000
        timings = {**analysis.timings_ms, "search": search_ms, "total": total_ms}
        return Recognition(known.name, revision, analysis, seen, timings)

    def enrol(self, request: EnrolRequest, deadline: Deadline) -> Enrolment:
        """Remember the faces of one person; the person is made when the name is new to the collection.

        Photos that cannot be used are refused one by one, the others are stored in one transaction.
        The same idempotency key with the same request gives the first answer again and stores nothing.

        Raises:
            EnrolmentRefused: no photo could be used; nothing is stored.
            PersonNotFound, CollectionNotFound, Conflict, Busy, DatabaseUnavailable, DeadlineExceeded
        """
        collection = self._gallery.collection(request.collection, deadline)
        idempotency = Idempotency(request.idempotency_key, request.digest()) if request.idempotency_key else None
        if idempotency and (earlier := self._gallery.earlier_answer(collection.name, idempotency, deadline)):
            return earlier
        faces: list[NewFace] = []
        refused: list[Refusal] = []
        for index, photo in enumerate(request.photos):
            try:
                faces.append(self._face_to_enrol(index, photo, request.largest_face, deadline))
            except Unusable as error:
                refused.append(Refusal(index, error.code, str(error)))
        if not faces:
            raise EnrolmentRefused(refused)
        deadline.check()
        return self._gallery.enrol(
            collection.name,
            faces,
            name=request.name,
            person_id=request.person_id,
            external_id=request.external_id,
            metadata=request.metadata,
            refused=refused,
            idempotency=idempotency,
            deadline=deadline,
        )

    def _face_to_enrol(self, index: int, photo: bytes, largest: bool, deadline: Deadline) -> NewFace:
        analysis = self._engine.analyse(photo, deadline)
        if not analysis.faces:
            raise NoFace(f"Photo {index} shows no face that can be found; use a sharper photo from the front.")
        if len(analysis.faces) > 1 and not largest:
            raise MultipleFaces(
                f"Photo {index} shows {len(analysis.faces)} faces; crop it to one, or send face=largest."
            )
        face = analysis.faces[0]
        smallest = self._settings.enrol_min_face_pixels
        if face.box.width < smallest:
            raise FaceTooSmall(
                f"The face in photo {index} is {face.box.width} pixels wide; at least {smallest} are needed."
            )
        return NewFace(
            index=index,
            box=face.box,
            quality=face.quality,
            embedding=face.embedding,
            model_id=self._engine.model_id,
            photo_sha256=hashlib.sha256(photo).digest(),
        )

    def reject(self, request: RejectRequest, deadline: Deadline) -> tuple[Rejection, int]:
        """Keep that a face is not this person's; returns also the collection's revision.

        Raises:
            Unusable: the image cannot be read, or does not show the one face that is meant.
            PersonNotFound, Conflict, InvalidRequest, Busy, DatabaseUnavailable, DeadlineExceeded
        """
        embedding = request.embedding
        if embedding is None:
            if request.photo is None:
                raise InvalidRequest("Say whose face it is not by a photo of it, or by its embedding.")
            self._gallery.rejections(request.person_id, deadline, collection=request.collection)  # is there such a one?
            faces = self._engine.analyse(request.photo, deadline).faces
            embedding = _meant(faces, request.box, request.largest_face).embedding
            deadline.check()
        return self._gallery.reject(
            request.person_id, embedding, self._engine.model_id, request.by, deadline, collection=request.collection
        )


def _meant(faces: Sequence[Face], box: Box | None, largest: bool) -> Face:
    """The face of a photo, largest first, that a rejection means."""
    if not faces:
        raise NoFace("The photo shows no face that can be found; send the photo that was recognised, or the embedding.")
    if box is not None:
        nearest = max(faces, key=lambda face: face.box.overlap(box))
        if nearest.box.overlap(box) < MIN_OVERLAP:
            raise NoFace("The photo shows no face at this box; send a box as /recognize gives it for the same photo.")
        return nearest
    if len(faces) > 1 and not largest:
        raise MultipleFaces(
            f"The photo shows {len(faces)} faces; say which by `box`, as /recognize gives it, or send face=largest."
        )
    return faces[0]
