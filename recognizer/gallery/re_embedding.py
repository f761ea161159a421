"""Faces that another model has encoded, and what the model in use makes of their kept photos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from recognizer.deadline import Deadline
from recognizer.errors import PersonNotFound
from recognizer.faces import Box, Face, Quality
from recognizer.gallery import audit, people, photos, sealing, templates
from recognizer.gallery.photos import KeptImage
from recognizer.gallery.pool import Pool
from recognizer.gallery.turns import grow_revision

STEP_SECONDS = 60.0

COUNT = """
    SELECT count(*) FILTER (WHERE photo.face_id IS NOT NULL), count(*) FILTER (WHERE photo.face_id IS NULL)
    FROM faces AS face LEFT JOIN photos AS photo ON photo.face_id = face.id
    WHERE model_id <> %(model_id)s AND coalesce(%(collection_id)s, face.collection_id) = face.collection_id
"""

NEXT = """
    SELECT photo.person_id FROM photos AS photo JOIN faces AS face ON face.id = face_id
    WHERE face.model_id <> %(model_id)s AND coalesce(%(collection_id)s, photo.collection_id) = photo.collection_id
      AND (%(after)s::uuid IS NULL OR photo.person_id > %(after)s)
    ORDER BY photo.person_id LIMIT 1
"""

FACES = """
    SELECT face.id, box_left, box_top, box_right, box_bottom
    FROM faces AS face JOIN photos ON face_id = face.id
    WHERE face.person_id = %s AND model_id <> %s ORDER BY face.id
"""

CHANGE = """
    UPDATE faces SET embedding = %s::vector, sealed = %s::bytea, model_id = %s, box_left = %s, box_top = %s,
                     box_right = %s, box_bottom = %s, quality_score = %s, quality_issues = %s::text[]
    WHERE id = %s AND person_id = %s
"""


class Waiting(NamedTuple):
    """How many faces another model has encoded: those whose photo is kept, and those that stay as they are."""

    with_photo: int
    without_photo: int


class OldFaces:
    """The faces of one collection, or of all, that are to be encoded anew by the model `model_id`."""

    def __init__(self, pool: Pool, model_id: str, collection_id: int | None) -> None:
        self._pool = pool
        self._model_id = model_id
        self._whose = {"model_id": model_id, "collection_id": collection_id}

    def waiting(self) -> Waiting:
        """How many there are."""
        with self._pool.connection(Deadline(STEP_SECONDS), is_long=True) as connection, connection.cursor() as cursor:
            cursor.execute(COUNT, self._whose)
            return Waiting(*cursor.fetchall()[0])

    def next_person(self, after: str | None) -> str | None:
        """Who is the next that has any, in the order of ids."""
        with self._pool.connection(Deadline(STEP_SECONDS), is_long=True) as connection, connection.cursor() as cursor:
            cursor.execute(NEXT, {**self._whose, "after": after})
            row = cursor.fetchone()
            return str(row[0]) if row else None

    def of_person(self, person_id: str) -> dict[str, Box]:
        """The faces of a person, by id, and where in their photos they are."""
        with self._pool.connection(Deadline(STEP_SECONDS)) as connection, connection.cursor() as cursor:
            cursor.execute(FACES, (person_id, self._model_id))
            return {str(face_id): Box(*edges) for face_id, *edges in cursor.fetchall()}

    def photo(self, person_id: str, face_id: str) -> KeptImage:
        """A kept photo.

        Raises:
            PhotoNotFound, EncryptionKeyMissing, SealBroken
        """
        with self._pool.connection(Deadline(STEP_SECONDS)) as connection, connection.cursor() as cursor:
            return photos.read(cursor, person_id, face_id, "photo")

    def store(self, person_id: str, faces: Mapping[str, Face]) -> int:
        """Put new faces in the place of old ones, by id, in one transaction; returns how many there still were."""
        with self._pool.connection(Deadline(STEP_SECONDS)) as connection, connection.cursor() as cursor:
            try:
                person_id, collection_id = people.lock(cursor, person_id, None)
            except PersonNotFound:  # erased or merged meanwhile
                return 0
            changed, encrypted = 0, sealing.is_encrypted(cursor, collection_id)
            for face_id, face in faces.items():
                stored = sealing.stored(cursor, sealing.face_place(face_id), face.embedding, encrypted)
                cursor.execute(CHANGE, (*stored, *_columns(face, self._model_id), face_id, person_id))
                changed += cursor.rowcount
            templates.renew(cursor, collection_id, person_id)
            grow_revision(cursor, collection_id)
            where = people.home(cursor, person_id, None)
            audit.append(cursor, "re_embedded", person_id=person_id, collection=where, faces=changed)
            return changed


def _columns(face: Face, model_id: str) -> tuple[object, ...]:
    box, quality = face.box, face.quality
    assert isinstance(quality, Quality)
    return (
        model_id, box.left, box.top, box.right, box.bottom,
        float(quality.score), list(quality.issues),
    )  # fmt: skip
