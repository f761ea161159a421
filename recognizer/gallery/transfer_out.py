"""Reading a whole collection in one state, in constant memory, while others go on enrolling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Identifier

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound
from recognizer.faces import Box, Quality
from recognizer.gallery import audit, sealing
from recognizer.gallery.connection import Connection
from recognizer.gallery.names import comparable
from recognizer.gallery.pool import Pool
from recognizer.gallery.transfer import (
    SETTINGS,
    CohortFigures,
    CollectionRecord,
    FaceRecord,
    PersonRecord,
    RejectionRecord,
    SpaceRecord,
    Vectors,
    evidence_constants,
)

ROWS_AT_ONCE = 2000

# One state from the first statement to the last; between two statements a slow disk may be written to.
BEGIN = """
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL idle_in_transaction_session_timeout = '10min'
"""

COLLECTION = SQL("""
    SELECT id, name, revision,
           (SELECT count(*) FROM people WHERE collection_id = collections.id),
           (SELECT count(*) FROM faces WHERE collection_id = collections.id),
           (SELECT count(*) FROM rejections WHERE collection_id = collections.id),
           {settings}
    FROM collections WHERE name_key = %s
""").format(settings=SQL(", ").join(map(Identifier, SETTINGS)))

MODELS = "SELECT model_id, count(*) FROM faces WHERE collection_id = %s GROUP BY model_id"

SPACES = "SELECT name, people, faces, changes, shift FROM spaces WHERE collection_id = %s ORDER BY name"

# people, faces and rejections in one order, so that a reader needs to hold no more than one person
PEOPLE = """
    SELECT id, name, external_id, metadata, created_at, (
        SELECT json_agg(json_build_array(space.name, likeness, rival, seen) ORDER BY space.name)
        FROM cohorts JOIN spaces AS space ON space.id = space_id
        WHERE cohorts.person_id = people.id
    )
    FROM people WHERE collection_id = %s ORDER BY id
"""

FACES = """
    SELECT id, person_id, model_id, box_left, box_top, box_right, box_bottom, quality_score, quality_issues,
           encode(photo_sha256, 'hex'), created_at
    FROM faces WHERE collection_id = %s ORDER BY person_id, created_at, id
"""

EMBEDDINGS = "SELECT id, embedding, sealed FROM faces WHERE collection_id = %s ORDER BY person_id, created_at, id"

REJECTIONS = """
    SELECT id, person_id, model_id, created_at, created_by
    FROM rejections WHERE collection_id = %s ORDER BY person_id, created_at, id
"""

REJECTED = "SELECT id, embedding, sealed FROM rejections WHERE collection_id = %s ORDER BY person_id, created_at, id"

PHOTOS = """
    SELECT face.id, media_type, photo, chip FROM photos JOIN faces AS face ON face.id = face_id
    WHERE photos.collection_id = %s ORDER BY face.person_id, face.created_at, face.id
"""

PHOTO_KEYS = "SELECT key_id, count(*) FROM photos WHERE collection_id = %s GROUP BY key_id"


class SealedPhoto(NamedTuple):
    """What is kept of a face, as it is stored."""

    face_id: str
    media_type: str
    photo: memoryview
    chip: memoryview


class Snapshot:
    """A collection in one state; each method reads it anew, row by row."""

    def __init__(self, connection: Connection, collection: str) -> None:
        self._connection = connection
        with connection.cursor() as cursor:
            cursor.execute(BEGIN)
            self._id, self.collection = _collection(cursor, collection)

    def people(self) -> Iterator[PersonRecord]:
        """Everybody, by id."""
        for person_id, name, external_id, metadata, created_at, cohorts in self._rows(PEOPLE):
            figures = tuple(
                CohortFigures(space=space, likeness=likeness, rival=rival, seen=seen)
                for space, likeness, rival, seen in cohorts or ()
            )
            yield PersonRecord(
                id=person_id,
                name=name,
                external_id=external_id,
                metadata=metadata,
                created_at=created_at,
                cohorts=figures,
            )

    def faces(self) -> Iterator[FaceRecord]:
        """All faces in the order of the people, each person's oldest first."""
        for face_id, person_id, model_id, *of_face in self._rows(FACES):
            left, top, right, bottom, score, issues, photo, created_at = of_face
            yield FaceRecord(
                id=face_id,
                person_id=person_id,
                model_id=model_id,
                box=Box(left, top, right, bottom),
                quality=Quality(score, tuple(issues)),
                photo_sha256=photo,
                created_at=created_at,
            )

    def embeddings(self) -> Iterator[Vectors]:
        """Theirs in the same order, some thousand at a time."""
        return self._vectors(EMBEDDINGS, sealing.face_place)

    def rejections(self) -> Iterator[RejectionRecord]:
        """All rejections in the order of the people, each person's oldest first."""
        for rejection_id, person_id, model_id, created_at, created_by in self._rows(REJECTIONS):
            yield RejectionRecord(
                id=rejection_id, person_id=person_id, model_id=model_id, created_at=created_at, created_by=created_by
            )

    def rejected(self) -> Iterator[Vectors]:
        """Their embeddings in the same order."""
        return self._vectors(REJECTED, sealing.rejection_place)

    def photo_keys(self) -> dict[str, int]:
        """How many photos are kept of all faces, by the key that they are encrypted with."""
        with self._connection.cursor() as cursor:
            cursor.execute(PHOTO_KEYS, (self._id,))
            return dict(cursor.fetchall())

    def photos(self) -> Iterator[SealedPhoto]:
        """These in the order of the faces, one at a time in memory."""
        return (SealedPhoto(*row) for row in self._rows(PHOTOS, at_once=1))

    def _rows(self, statement: str, at_once: int = ROWS_AT_ONCE) -> Iterator[tuple[Any, ...]]:
        with self._connection.cursor(name="transfer") as cursor:  # a name: the rows stay with the server
            cursor.itersize = at_once
            cursor.execute(statement, (self._id,))
            yield from cursor

    def _vectors(self, statement: str, place: Callable[[str], str]) -> Iterator[Vectors]:
        with self._connection.cursor(name="transfer") as cursor:
            cursor.execute(statement, (self._id,))
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                yield np.stack([sealing.read(cursor, place(each), *kept) for each, *kept in rows])


@contextmanager
def snapshot(pool: Pool, collection: str, deadline: Deadline) -> Iterator[Snapshot]:
    """A collection in the state in which it is now, until the block ends.

    Raises:
        CollectionNotFound, DatabaseUnavailable, DeadlineExceeded
        EncryptionKeyMissing, SealBroken: its embeddings are encrypted and cannot be decrypted.
    """
    with pool.connection(deadline, is_long=True) as connection:
        yield Snapshot(connection, collection)


def _collection(cursor: Cursor, name: str) -> tuple[int, CollectionRecord]:
    cursor.execute(COLLECTION, (comparable(name),))
    if (row := cursor.fetchone()) is None:
        raise CollectionNotFound(f"There is no collection `{name[:100]}`.")
    collection_id, kept_name, revision, people, faces, rejections, *settings = row
    cursor.execute(MODELS, (collection_id,))
    models = dict(cursor.fetchall())
    cursor.execute(SPACES, (collection_id,))
    members = ("name", "people", "faces", "changes", "shift")
    spaces = tuple(SpaceRecord(**dict(zip(members, space, strict=True))) for space in cursor.fetchall())
    return collection_id, CollectionRecord(
        name=kept_name,
        settings=dict(zip(SETTINGS, settings, strict=True)),
        revision=revision,
        people=people,
        faces=faces,
        rejections=rejections,
        models=models,
        spaces=spaces,
        constants=evidence_constants(),
    )


def note_export(pool: Pool, of: CollectionRecord, deadline: Deadline) -> None:
    """Add to the audit trail that a collection was exported."""
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        audit.append(
            cursor,
            "exported",
            collection=of.name,
            people=of.people,
            faces=of.faces,
            rejections=of.rejections,
            photos=of.photos,
        )
