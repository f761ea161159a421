"""One person: locked while something of theirs is written, and erased with all that is held on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL

from recognizer.errors import PersonNotFound
from recognizer.gallery import templates
from recognizer.gallery.enrolment import grow_revision, valid_id
from recognizer.gallery.names import comparable

NO_SUCH_PERSON = "There is no such person."

ERASE = {
    "idempotency_keys": "DELETE FROM idempotency_keys WHERE person_id = %s",
    "rejections": "DELETE FROM rejections WHERE person_id = %s",
    "templates": templates.ERASE,
    "faces": "DELETE FROM faces WHERE person_id = %s",
    "people": "DELETE FROM people WHERE id = %s",
}
"""What deletes a person, by table; whatever comes to hold something on people is added here. What refers to a
template (cohorts) goes with it."""

COUNT_LEFT = """
    SELECT (SELECT count(*) FROM idempotency_keys WHERE person_id = %(id)s)
         + (SELECT count(*) FROM rejections WHERE person_id = %(id)s)
         + (SELECT count(*) FROM cohorts WHERE person_id = %(id)s)
         + (SELECT count(*) FROM templates WHERE person_id = %(id)s)
         + (SELECT count(*) FROM faces WHERE person_id = %(id)s)
         + (SELECT count(*) FROM people WHERE id = %(id)s)
"""


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of a deletion: how many rows went, per table, and how many of that person are left (0)."""

    person_id: str
    deleted: Mapping[str, int]
    left: int
    revision: int


def require(cursor: Cursor, person_id: str, collection: str | None) -> str:
    """The person's id in its usual spelling; with `collection`, only if the person is in it.

    Raises:
        PersonNotFound
    """
    _collection_of(cursor, person_id, collection, SQL(""))
    return valid_id(person_id)


def lock(cursor: Cursor, person_id: str, collection: str | None) -> tuple[str, int]:
    """Wait for every other writer to the person's collection; return the ids of both, the collection's internal.

    All that is read afterwards stays true until the caller commits.

    Raises:
        PersonNotFound
    """
    collection_id = _collection_of(cursor, person_id, collection, SQL("FOR NO KEY UPDATE OF collection"))
    return require(cursor, person_id, collection), collection_id  # who may be gone since we began to wait


def _collection_of(cursor: Cursor, person_id: str, collection: str | None, lock: SQL) -> int:
    find = SQL("""
        SELECT collection.id
        FROM people AS person JOIN collections AS collection ON collection.id = person.collection_id
        WHERE person.id = %s AND coalesce(%s, collection.name_key) = collection.name_key
    """)
    allowed = None if collection is None else comparable(collection)
    cursor.execute(find + lock, (valid_id(person_id), allowed))
    row = cursor.fetchone()
    if row is None:
        raise PersonNotFound(NO_SUCH_PERSON)
    return int(row[0])


def erase(cursor: Cursor, person_id: str, collection: str | None) -> Erasure:
    """Delete all that is held on a person; `Gallery.delete_person` says what it promises and raises."""
    person_id, collection_id = lock(cursor, person_id, collection)
    deleted = {}
    for table, statement in ERASE.items():
        cursor.execute(statement, (person_id,))
        deleted[table] = cursor.rowcount
    cursor.execute(COUNT_LEFT, {"id": person_id})
    (left,) = cursor.fetchall()[0]
    return Erasure(person_id, deleted, left, grow_revision(cursor, collection_id))
