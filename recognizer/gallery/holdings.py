"""What is held on a person, handed out: every time, the audit trail tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.gallery import audit, people, photos, sealing
from recognizer.gallery.photos import KeptImage, Kind
from recognizer.gallery.pool import Pool
from recognizer.gallery.sealing import Table

IMAGE_SECONDS = 30.0

HELD = {
    "people": """
        SELECT person.*, collection.name AS collection
        FROM people AS person JOIN collections AS collection ON collection.id = collection_id
        WHERE person.id = %(person_id)s
    """,
    "faces": "SELECT * FROM faces WHERE person_id = %(person_id)s ORDER BY created_at, id",
    "photos": """
        SELECT face_id, person_id, collection_id, media_type, key_id, created_at
        FROM photos WHERE person_id = %(person_id)s ORDER BY created_at, face_id
    """,
    "templates": "SELECT * FROM templates WHERE person_id = %(person_id)s ORDER BY space_id",
    "cohorts": "SELECT * FROM cohorts WHERE person_id = %(person_id)s ORDER BY space_id",
    "rejections": "SELECT * FROM rejections WHERE person_id = %(person_id)s ORDER BY created_at, id",
    "idempotency_keys": "SELECT * FROM idempotency_keys WHERE person_id = %(person_id)s ORDER BY created_at",
    "audit": "SELECT * FROM audit WHERE subject = %(subject)s ORDER BY number",
}
"""What is held on a person, by table, with all columns but the pictures; whatever comes to hold something is added."""


EMBEDDINGS = {table.name: table for table in sealing.TABLES}


@dataclass(frozen=True)
class Held:
    """Everything that is held on a person but the pictures: rows by table, in JSON types."""

    person_id: str
    tables: dict[str, list[dict[str, Any]]]

    @property
    def name(self) -> str:
        """The person's."""
        return str(self.tables["people"][0]["name"])

    @property
    def kept(self) -> list[str]:
        """The faces whose photos are kept."""
        return [row["face_id"] for row in self.tables["photos"]]


class Holdings:
    """Hands out what is held; safe to use from many threads.

    Every method may raise `DatabaseUnavailable` and `DeadlineExceeded`. `collection` is the one that the caller may
    see, all by default.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def photo(
        self, person_id: str, face_id: str, kind: Kind, deadline: Deadline, *, collection: str | None = None
    ) -> KeptImage:
        """What is kept of the photo that a face was enrolled by: the photo itself, or the chip.

        Raises:
            PersonNotFound
            PhotoNotFound: nothing is kept of this face, or the person has no such face.
            EncryptionKeyMissing: it was encrypted with a key that is not here.
            SealBroken: it was changed since.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            person_id = people.require(cursor, person_id, collection)
            found = photos.read(cursor, person_id, face_id, kind)
            where = people.home(cursor, person_id, None)
            audit.append(cursor, "looked_up", person_id=person_id, collection=where, what=kind)
            return found

    def of_person(self, person_id: str, deadline: Deadline, *, collection: str | None = None) -> Held:
        """Everything but the pictures, which `image` reads one by one.

        Raises:
            PersonNotFound
            EncryptionKeyMissing: a kept photo or an embedding was encrypted with a key that is not here.
            SealBroken: an embedding was changed since.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            person_id, _ = people.lock(cursor, person_id, collection)
            whose = {"person_id": person_id, "subject": audit.subject_of(person_id)}
            tables = {}
            for table, statement in HELD.items():
                cursor.execute(statement, whose)
                names = [column.name for column in cursor.description or ()]
                rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
                if table in EMBEDDINGS:
                    _open(cursor, EMBEDDINGS[table], rows)
                tables[table] = [{name: _plain(value) for name, value in row.items()} for row in rows]
            held = Held(person_id, tables)
            if tables["photos"]:
                self._pool.keyring.require({row["key_id"] for row in tables["photos"]})
            where = tables["people"][0]["collection"]
            counts = {table: len(rows) for table, rows in tables.items()}
            audit.append(cursor, "exported", person_id=person_id, collection=where, rows=counts)
            return held

    def image(self, person_id: str, face_id: str, kind: Kind) -> KeptImage:
        """A kept image of an export; raises as `photo`, which has told of it."""
        with self._pool.connection(Deadline(IMAGE_SECONDS)) as connection, connection.cursor() as cursor:
            return photos.read(cursor, person_id, face_id, kind)


def _open(cursor: Cursor, table: Table, rows: list[dict[str, Any]]) -> None:
    """Put the embeddings themselves into rows that may have them encrypted."""
    for row in rows:
        place = table.place(*(row[column] for column in table.key))
        row["embedding"] = sealing.read(cursor, place, row["embedding"], row.pop("sealed"))


def _plain(value: Any) -> Any:
    """A value of the database as JSON has it: numbers as they are, bytes as hexadecimal digits, times in UTC."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, memoryview | bytes):
        return bytes(value).hex()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value
