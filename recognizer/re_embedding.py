"""Encoding faces anew from their kept photos, when the model that is in use is another one."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from recognizer.deadline import Deadline
from recognizer.errors import NoFace, PhotoNotFound, SealBroken, Unusable
from recognizer.faces import Box, Face
from recognizer.gallery.re_embedding import OldFaces
from recognizer.moving.progress import Progress
from recognizer.vision.engine import Engine

PHOTO_SECONDS = 120.0

MIN_OVERLAP = 0.3
"""Intersection over union from which on a face of the photo is the one that was enrolled."""

LOGGER = logging.getLogger(__name__)


@dataclass
class Outcome:
    """How many faces were encoded anew, and how many stay as they were: not found again, or the photo is damaged."""

    changed: int = 0
    not_found: int = 0
    damaged: int = 0


def re_embed(old: OldFaces, engine: Engine, progress: Progress) -> Outcome:
    """Go from person to person, each in a transaction of their own; what is done is not done again.

    Raises:
        EncryptionKeyMissing, DatabaseUnavailable
    """
    outcome, person_id = Outcome(), None
    with progress("encoding anew", "photo", old.waiting().with_photo) as advance:
        while (person_id := old.next_person(person_id)) is not None:
            anew = {}
            for face_id, box in old.of_person(person_id).items():
                if (face := _again(old, engine, person_id, face_id, box, outcome)) is not None:
                    anew[face_id] = face
                advance(1)
            if anew:
                outcome.changed += old.store(person_id, anew)
    return outcome


def _again(old: OldFaces, engine: Engine, person_id: str, face_id: str, box: Box, outcome: Outcome) -> Face | None:
    """The face that was enrolled, as the engine sees it now; None where it cannot be found."""
    try:
        photo = old.photo(person_id, face_id).data
    except PhotoNotFound:  # erased meanwhile
        return None
    except SealBroken:
        outcome.damaged += 1
        return None
    try:
        return seen_again(engine, photo, box)
    except Unusable as error:
        LOGGER.warning("The face %s stays as it was: %s", face_id, error)
        outcome.not_found += 1
        return None


def seen_again(engine: Engine, photo: bytes, box: Box) -> Face:
    """The face that was enrolled, as the engine sees it now; `box` says where in its photo it was.

    Raises:
        Unusable: the photo is not accepted, or the face is not found again.
        DeadlineExceeded
    """
    faces = engine.analyse(photo, Deadline(PHOTO_SECONDS)).faces
    nearest = max(faces, key=lambda face: face.box.overlap(box), default=None)
    if nearest is None or nearest.box.overlap(box) < MIN_OVERLAP:
        raise NoFace("The face that was enrolled is not found again in its photo; enrol another photo.")
    return nearest
