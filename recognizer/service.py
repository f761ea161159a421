"""The use cases: the one place where faces (vision) and people (gallery) meet. No HTTP, no SQL, no pixels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from recognizer.admission import Admission, admit, check_quality
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.decisions import Verdict, decide, in_force, rule_for
from recognizer.errors import (
    EnrolmentRefused,
    InvalidRequest,
    MultipleFaces,
    NoFace,
    Unusable,
)
from recognizer.faces import Analysis, Box, Embedding, Face, KeptPhoto, Neighbour, NewFace, Rejection, Remark
from recognizer.gallery.collections import require_revision
from recognizer.gallery.names import comparable
from recognizer.gallery.store import Collection, Enrolment, Gallery, Idempotency
from recognizer.vision.engine import Engine

MIN_OVERLAP = 0.3
"""How much (intersection over union) a face has to overlap the box that says which one is meant."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms the faces of a photo are identified.

    `threshold` is the L2 distance up to which a person is a match; None: the collection's, else the settings'; where
    none of them has one, the rule follows from the target. `top_k` is how many candidates each verdict has at least,
    where there are so many people. Faces narrower than `min_face_pixels` are left out (None: the setting). Nothing is
    answered from an older state of the gallery than `min_revision`. `unique`: nobody is in the photo twice.
    """

    threshold: float | None = None
    top_k: int = 1
    min_face_pixels: int | None = None
    min_revision: int = 0
    unique: bool = False


USUAL = Terms()


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
    """What to remember: photos (encoded images) of one person, by `name` or `person_id`.

    `collection` is None for the one that the person `person_id` is in.
    """

    collection: str | None
    photos: Sequence[bytes] = field(repr=False)
    name: str | None = None
    person_id: str | None = None
    external_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    largest_face: bool = False
    force: bool = False
    idempotency_key: str | None = None

    def digest(self) -> bytes:
        """SHA-256 over what makes two requests to a collection the same one."""
        digest = hashlib.sha256()
        options = (self.name, self.person_id, self.external_id, self.metadata, self.largest_face)
        # what came later counts only where it is given: a retry after an upgrade is the same request
        digest.update(repr((*options, "force") if self.force else options).encode())
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

    def recognize(self, photo: bytes, collection: str, deadline: Deadline, terms: Terms = USUAL) -> Recognition:
        """Find the faces of one photo (an encoded image) and decide who they are.

        Raises:
            Unusable: the image cannot be read.
            CollectionNotFound, Busy, DatabaseUnavailable, DeadlineExceeded, GalleryBehind
        """
        began = time.perf_counter()
        known = self._gallery.collection(collection, deadline, min_revision=terms.min_revision)
        analysis = self._engine.analyse(photo, deadline, min_face_pixels=terms.min_face_pixels)
        deadline.check()
        found = self.identify(analysis, known, deadline, terms)
        return replace(found, timings_ms={**found.timings_ms, "total": _ms_since(began)})

    def identify(
        self, analysis: Analysis, collection: Collection, deadline: Deadline, terms: Terms = USUAL
    ) -> Recognition:
        """Decide who the faces are that were found in a photo; errors as for `recognize`."""
        began = time.perf_counter()
        embeddings = [face.embedding for face in analysis.faces]
        around = self._gallery.nearest(collection.name, embeddings, self._engine.model_id, terms.top_k, deadline)
        require_revision(around.revision, terms.min_revision)
        usual, target = self._in_force(collection)
        rule = rule_for(usual if terms.threshold is None else terms.threshold, target, around)
        verdicts = decide(analysis.faces, around, rule, unique=terms.unique)
        seen = tuple(Seen(face, verdict) for face, verdict in zip(analysis.faces, verdicts, strict=True))
        timings = {**analysis.timings_ms, "search": _ms_since(began)}
        return Recognition(collection.name, around.revision, analysis, seen, timings)

    def _in_force(self, collection: Collection) -> tuple[float | None, float]:
        usual = self._settings
        return in_force(collection.threshold, collection.target_fpir, usual.threshold, usual.target_fpir)

    def enrol(self, request: EnrolRequest, deadline: Deadline) -> Enrolment:
        """Remember the faces of one person; the person is made when the name is new to the collection.

        Photos that cannot be used are refused one by one, the others are stored in one transaction.
        The same idempotency key with the same request gives the first answer again and stores nothing.

        Raises:
            EnrolmentRefused: no photo could be used; nothing is stored.
            EncryptionKeyMissing: the collection keeps photos or encrypts embeddings, and there is no key to do it with.
            PersonNotFound, CollectionNotFound, Conflict, Busy, DatabaseUnavailable, DeadlineExceeded
        """
        idempotency = Idempotency(request.idempotency_key, request.digest()) if request.idempotency_key else None
        where = request.collection or self._gallery.home(request.person_id or "", idempotency, deadline)
        collection = self._gallery.collection(where, deadline)
        if idempotency and (earlier := self._gallery.earlier_answer(collection.name, idempotency, deadline)):
            return earlier
        if collection.keep_photos or collection.encrypt_embeddings:
            self._gallery.require_key()
        person_id = request.person_id
        if person_id is not None:  # before the work on photos; whether they are erased meanwhile is seen at the end
            person_id = self._gallery.require_person(person_id, deadline, collection=collection.name)
        admission = self._examined(request, collection, person_id, deadline)
        if not admission.admitted:
            raise EnrolmentRefused(admission.refused)
        deadline.check()
        return self._gallery.enrol(
            collection.name,
            admission.admitted,
            name=request.name,
            person_id=person_id,
            external_id=request.external_id,
            metadata=request.metadata,
            refused=admission.refused,
            warnings=admission.warnings,
            idempotency=idempotency,
            deadline=deadline,
        )

    def rehearse(self, request: EnrolRequest, collection: str, deadline: Deadline) -> Admission:
        """What enrolling by name in `collection` would store and refuse, duplicates aside; nothing is stored.

        Raises:
            CollectionNotFound, Busy, DatabaseUnavailable, DeadlineExceeded
        """
        return self._examined(request, self._gallery.collection(collection, deadline), None, deadline)

    def _examined(
        self, request: EnrolRequest, collection: Collection, person_id: str | None, deadline: Deadline
    ) -> Admission:
        """Which photos may be stored; what is said of them in their order."""
        faces: list[NewFace] = []
        refused: list[Remark] = []
        for index, photo in enumerate(request.photos):
            try:
                faces.append(self._face_to_enrol(index, photo, request, collection.keep_photos, deadline))
            except Unusable as error:
                refused.append(Remark(index, error.code, str(error), issues=error.issues))
        admission = self._admission(faces, collection, request.name, person_id, request.force, deadline)
        return admission._replace(refused=sorted(refused + admission.refused, key=lambda remark: remark.index))

    def _face_to_enrol(
        self, index: int, photo: bytes, request: EnrolRequest, keeps_photos: bool, deadline: Deadline
    ) -> NewFace:
        analysis = self._engine.analyse(photo, deadline, chips=keeps_photos)
        if not analysis.faces:
            raise NoFace(f"Photo {index} shows no face that can be found; use a sharper photo from the front.")
        if len(analysis.faces) > 1 and not request.largest_face:
            raise MultipleFaces(
                f"Photo {index} shows {len(analysis.faces)} faces; crop it to one, or send face=largest."
            )
        face = analysis.faces[0]
        if not request.force:
            check_quality(index, face, self._settings)
        return NewFace(
            index=index,
            box=face.box,
            quality=face.quality,
            embedding=face.embedding,
            model_id=self._engine.model_id,
            photo_sha256=hashlib.sha256(photo).digest(),
            kept=KeptPhoto(f"image/{analysis.format.lower()}", photo, face.chip) if face.chip is not None else None,
        )

    def _admission(
        self,
        faces: Sequence[NewFace],
        collection: Collection,
        name: str | None,
        person_id: str | None,
        force: bool,
        deadline: Deadline,
    ) -> Admission:
        embeddings = [face.embedding for face in faces]
        around = self._gallery.nearest(collection.name, embeddings, self._engine.model_id, 1, deadline)
        name_key = None if name is None else comparable(name)

        def is_meant(near: Neighbour) -> bool:
            return near.person_id == person_id if name_key is None else comparable(near.name) == name_key

        _, target = self._in_force(collection)
        return admit(faces, around, is_meant, target, force)

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
            self._gallery.require_person(request.person_id, deadline, collection=request.collection)
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


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
