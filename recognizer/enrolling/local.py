"""Enrols in this process: the engine here, and the database of the data directory, or the one that is configured."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TypeVar

from recognizer import installation, supervisor
from recognizer.admission import Admission
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.enrolling.items import Manner, Outcome
from recognizer.errors import (
    CollectionNotFound,
    DatabaseUnavailable,
    DuplicatePhoto,
    EnrolmentRefused,
    StartupError,
)
from recognizer.faces import NewFace, Remark
from recognizer.gallery.audit import acting
from recognizer.gallery.known_photos import KnownPhoto, known_photos
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import EnrolledFace, Enrolment, Gallery
from recognizer.service import EnrolRequest, Service
from recognizer.vision.engine import open_engine

Result = TypeVar("Result")

BATCH = 8
"""Photos of a person in one transaction; more of them win nothing any more (benchmarks/enroll.py)."""

BATCH_SECONDS = 600.0
PATIENCE_SECONDS = 60.0
"""How long a database that is away is waited for."""

PAUSE_SECONDS = 1.0


class LocalEnroller:
    """Enrols photos by the service's own rules; a photo that the person has already is not looked at again."""

    batch = BATCH

    def __init__(self, service: Service, pool: Pool, manner: Manner) -> None:
        self._service = service
        self._pool = pool
        self._manner = manner

    def enrol(self, person: str, photos: Sequence[bytes]) -> list[Outcome]:
        """What came of each photo of a person, in order.

        Raises:
            DatabaseUnavailable: it stayed away.
            CollectionNotFound: it has been deleted meanwhile.
        """
        digests = [hashlib.sha256(photo).digest() for photo in photos]
        known = _patiently(
            lambda: known_photos(self._pool, self._manner.collection, person, digests, Deadline(BATCH_SECONDS))
        )
        outcomes = {n: _known(known[digest]) for n, digest in enumerate(digests) if digest in known}
        new = [number for number in range(len(photos)) if number not in outcomes]
        if new:
            found = _patiently(lambda: self._enrol_new(person, [photos[number] for number in new]))
            outcomes.update(zip(new, found, strict=True))
        return [outcomes[number] for number in range(len(photos))]

    def _enrol_new(self, person: str, photos: list[bytes]) -> list[Outcome]:
        collection = self._manner.collection
        request = EnrolRequest(collection, photos, name=person, largest_face=self._manner.largest_face)
        deadline = Deadline(BATCH_SECONDS)
        if self._manner.dry_run:
            outcomes = _rehearsed(self._service.rehearse(request, collection, deadline))
        else:
            try:
                with acting(self._manner.actor):  # it holds for one thread
                    outcomes = _enrolled(self._service.enrol(request, deadline))
            except EnrolmentRefused as error:
                outcomes = _refused(error.refused)
        return [outcomes[number] for number in range(len(photos))]


@contextmanager
def local_enroller(settings: Settings, manner: Manner) -> Iterator[LocalEnroller]:
    """An enroller over the database that `installation.database` gives.

    Raises:
        StartupError: something cannot be opened; or the collection is not there, and not to be made.
        DatabaseUnavailable
    """
    # one process has all cores to itself, and whoever waits for one waits as long as it takes
    settings = settings.model_copy(update={"workers": 1, "queue_timeout_seconds": BATCH_SECONDS})
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        gallery = Gallery(pool)
        _require_collection(gallery, manner)
        supervisor.prepare_models(settings.models_dir)
        with closing(open_engine(settings)) as engine:
            yield LocalEnroller(Service(engine, gallery, settings), pool, manner)


def _require_collection(gallery: Gallery, manner: Manner) -> None:
    deadline = Deadline(PATIENCE_SECONDS)
    try:
        gallery.collection(manner.collection, deadline)
    except CollectionNotFound as error:
        if manner.dry_run or not manner.create_collection:
            raise StartupError(f"{error} Add --create-collection to have it made.") from error
        with acting(manner.actor):
            gallery.create_collection(manner.collection, {}, deadline)


def _patiently(work: Callable[[], Result]) -> Result:
    """The result of `work`, which may be done again, even if the database is away for a while."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return work()
        except DatabaseUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE_SECONDS)


def _known(photo: KnownPhoto) -> Outcome:
    return Outcome("already_enrolled", person_id=photo.person_id, face_id=photo.face_id)


def _enrolled(done: Enrolment) -> dict[int, Outcome]:
    outcomes = _refused(done.refused)
    for face in done.enrolled:
        said = _said(done.warnings, face)
        outcomes[face.index] = Outcome("enrolled", *said, done.person_id, face.face_id, face.quality.score)
    return outcomes


def _rehearsed(admission: Admission) -> dict[int, Outcome]:
    outcomes = _refused(admission.refused)
    for face in admission.admitted:
        said = _said(admission.warnings, face)
        outcomes[face.index] = Outcome("would_enrol", *said, quality=face.quality.score)
    return outcomes


def _said(warnings: Sequence[Remark], face: EnrolledFace | NewFace) -> tuple[tuple[str, ...], str]:
    """What there is to say of a photo that may be enrolled: code words and issues, and sentences."""
    remarks = [remark for remark in warnings if remark.index == face.index]
    codes = (*(remark.code for remark in remarks), *face.quality.issues)
    return codes, " ".join(remark.detail for remark in remarks)


def _refused(remarks: Sequence[Remark]) -> dict[int, Outcome]:
    """A photo that the person has already is as good as enrolled: the same twice in a folder."""
    return {
        remark.index: Outcome("already_enrolled")
        if remark.code == DuplicatePhoto.code
        else Outcome("refused", (remark.code, *remark.issues), remark.detail)
        for remark in remarks
    }
