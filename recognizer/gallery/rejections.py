"""Rejections: faces that were said not to be a person's. A probe nearer to one of them is not taken for that person.

What was rejected is kept as an embedding, not as a photo, and only compared with embeddings of its own space.
"""

from __future__ import annotations

import uuid

import numpy as np
from psycopg2.extensions import cursor as Cursor

from recognizer.errors import Conflict, InvalidRequest, RejectionNotFound
from recognizer.faces import Embedding, Rejection, space_of
from recognizer.gallery import audit, people, sealing
from recognizer.gallery.turns import grow_revision

MAX_OF_ONE_PERSON = 1000
"""Every one of them is compared with each face that resembles the person, so they are bounded."""

DIMENSIONS = 128

MAX_COMPONENT = 1000.0
"""No network gives such numbers, and squares of larger ones would not fit into the database's."""

NO_EMBEDDING = (
    f"An embedding is {DIMENSIONS} finite numbers from -{MAX_COMPONENT:.0f} to {MAX_COMPONENT:.0f}; "
    "send it as /recognize?include=embedding gives it."
)


def add(
    cursor: Cursor, person_id: str, embedding: Embedding, model_id: str, by: str, collection: str | None
) -> tuple[Rejection, int]:
    """Store a rejection; `Gallery.reject` says what it promises and raises."""
    embedding = _checked(embedding)
    person_id, collection_id = people.lock(cursor, person_id, collection)
    cursor.execute("SELECT count(*) FROM rejections WHERE person_id = %s", (person_id,))
    if cursor.fetchall()[0][0] >= MAX_OF_ONE_PERSON:
        raise Conflict(f"This person has {MAX_OF_ONE_PERSON:,} rejections, the most there may be; undo old ones first.")
    rejection_id, encrypted = str(uuid.uuid4()), sealing.is_encrypted(cursor, collection_id)
    kept = sealing.stored(cursor, sealing.rejection_place(rejection_id), embedding, encrypted)
    # The clock's time, not the transaction's: those who waited for the lock come after whom they waited for.
    cursor.execute(
        "INSERT INTO rejections"
        " (id, person_id, collection_id, embedding, sealed, model_id, space, created_at, created_by)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, clock_timestamp(), %s) RETURNING id, model_id, created_at, created_by",
        (rejection_id, person_id, collection_id, *kept, model_id, space_of(model_id), by),
    )
    rejection, revision = Rejection(*cursor.fetchall()[0]), grow_revision(cursor, collection_id)
    audit.append(cursor, "rejected", person_id=person_id, collection=collection_id)
    return rejection, revision


def of_person(cursor: Cursor, person_id: str, collection: str | None, min_revision: int = 0) -> tuple[Rejection, ...]:
    """A person's rejections, oldest first."""
    person_id = people.require(cursor, person_id, collection, min_revision)
    cursor.execute(
        "SELECT id, model_id, created_at, created_by FROM rejections WHERE person_id = %s ORDER BY created_at, id",
        (person_id,),
    )
    found = tuple(Rejection(*row) for row in cursor.fetchall())
    where = people.home(cursor, person_id, None)
    audit.append(cursor, "looked_up", person_id=person_id, collection=where, rejections=len(found))
    return found


def undo(cursor: Cursor, person_id: str, rejection_id: str, collection: str | None) -> int:
    """Delete a rejection and return the collection's revision."""
    person_id, collection_id = people.lock(cursor, person_id, collection)
    cursor.execute("DELETE FROM rejections WHERE id = %s AND person_id = %s", (_valid_id(rejection_id), person_id))
    if not cursor.rowcount:
        raise RejectionNotFound("This person has no such rejection (any more); list them to see which there are.")
    revision = grow_revision(cursor, collection_id)
    audit.append(cursor, "rejection_undone", person_id=person_id, collection=collection_id)
    return revision


def _valid_id(rejection_id: str) -> str:
    try:
        return str(uuid.UUID(rejection_id))
    except ValueError as error:
        raise RejectionNotFound("No rejection can have such an id; list them to see which there are.") from error


def _checked(embedding: Embedding) -> Embedding:
    given = np.asarray(embedding)
    if given.shape != (DIMENSIONS,) or given.dtype.kind not in "fiu" or not (np.abs(given) <= MAX_COMPONENT).all():
        raise InvalidRequest(NO_EMBEDDING)  # NaN is not less than anything
    return given.astype(np.float32)
