"""One person: looked up, locked while something of theirs is written, changed, and erased with all that is held."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Identifier

from recognizer.errors import Conflict, FaceNotFound, InvalidRequest, PersonNotFound
from recognizer.faces import Box, Person, Quality, StoredFace
from recognizer.gallery import audit, collections, templates
from recognizer.gallery.enrolment import Idempotency, as_json, plain_metadata, valid_id
from recognizer.gallery.names import comparable, tidy
from recognizer.gallery.turns import grow_revision
from recognizer.gallery.versions import Condition, require_version, version_of

NO_SUCH_PERSON = "There is no such person."

NO_SUCH_FACE = "This person has no such face (any more); look the person up to see which there are."

CHANGEABLE = ("name", "external_id", "metadata")

ERASE = {
    "idempotency_keys": "DELETE FROM idempotency_keys WHERE person_id = %(person_id)s",
    "rejections": "DELETE FROM rejections WHERE person_id = %(person_id)s",
    "templates": templates.ERASE,
    "photos": "DELETE FROM photos WHERE person_id = %(person_id)s",
    "faces": "DELETE FROM faces WHERE person_id = %(person_id)s",
    "people": "DELETE FROM people WHERE id = %(person_id)s",
}
"""What deletes a person, by table; whatever comes to hold something on people is added here. What refers to a
template (cohorts) goes with it."""

COUNT_LEFT = """
    SELECT (SELECT count(*) FROM idempotency_keys WHERE person_id = %(id)s)
         + (SELECT count(*) FROM rejections WHERE person_id = %(id)s)
         + (SELECT count(*) FROM cohorts WHERE person_id = %(id)s)
         + (SELECT count(*) FROM templates WHERE person_id = %(id)s)
         + (SELECT count(*) FROM photos WHERE person_id = %(id)s)
         + (SELECT count(*) FROM faces WHERE person_id = %(id)s)
         + (SELECT count(*) FROM people WHERE id = %(id)s)
"""

FIND = SQL("""
    SELECT collection.id, collection.revision
    FROM people AS person JOIN collections AS collection ON collection.id = person.collection_id
    WHERE person.id = %s AND coalesce(%s, collection.name_key) = collection.name_key
""")

DETAILS = """
    SELECT collection.name, person.name, external_id, metadata, person.created_at
    FROM people AS person JOIN collections AS collection ON collection.id = person.collection_id
    WHERE person.id = %s
"""

FACES = """
    SELECT id, box_left, box_top, box_right, box_bottom, quality_score, quality_issues, model_id, created_at,
           EXISTS (SELECT FROM photos WHERE face_id = faces.id)
    FROM faces WHERE person_id = %s ORDER BY created_at, id
"""


HOME = """
    SELECT collection.name FROM collections AS collection
    WHERE id = (SELECT collection_id FROM people WHERE id = %(person_id)s)
       OR id IN (SELECT collection_id FROM idempotency_keys WHERE key_sha256 = %(key)s AND request_digest = %(digest)s)
"""


class PersonDetails(NamedTuple):
    """A person and the faces stored, oldest first."""

    person: Person
    faces: tuple[StoredFace, ...]

    @property
    def version(self) -> str:
        """What tells this state from others."""
        return version_of(self)


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of a deletion: how many rows went, per table, and how many of that person are left (0)."""

    person_id: str
    deleted: Mapping[str, int]
    left: int
    revision: int


def require(cursor: Cursor, person_id: str, collection: str | None, min_revision: int = 0) -> str:
    """The person's id in its usual spelling; with `collection`, only if the person is in it.

    Whatever is read after it is of `min_revision` or later.

    Raises:
        PersonNotFound
        GalleryBehind: the person's collection is older, or one that the person may be in is.
    """
    try:
        _, revision = _collection_of(cursor, person_id, collection, SQL(""))
    except PersonNotFound:
        collections.require_reached(cursor, collection, min_revision)
        _, revision = _collection_of(cursor, person_id, collection, SQL(""))  # who may have come before that
    collections.require_revision(revision, min_revision)
    return valid_id(person_id)


def details(cursor: Cursor, person_id: str, collection: str | None, min_revision: int = 0) -> PersonDetails:
    """A person; `Gallery.person` says what it promises and raises."""
    person_id = require(cursor, person_id, collection, min_revision)
    cursor.execute(DETAILS, (person_id,))
    if (row := cursor.fetchone()) is None:
        raise PersonNotFound(NO_SUCH_PERSON)
    where, name, external_id, metadata, created_at = row
    cursor.execute(FACES, (person_id,))
    faces = tuple(
        StoredFace(face_id, Box(left, top, right, bottom), Quality(score, tuple(issues)), *others)
        for face_id, left, top, right, bottom, score, issues, *others in cursor.fetchall()
    )
    return PersonDetails(Person(person_id, where, name, external_id, metadata, len(faces), created_at), faces)


def look_up(cursor: Cursor, person_id: str, collection: str | None, min_revision: int) -> PersonDetails:
    """The same for somebody who wants to know, of which the audit trail tells."""
    found = details(cursor, person_id, collection, min_revision)
    audit.append(cursor, "looked_up", person_id=found.person.id, collection=found.person.collection)
    return found


def home(cursor: Cursor, person_id: str, idempotency: Idempotency | None) -> str:
    """The collection of a person; `Gallery.home` says what it promises and raises."""
    key, digest = (idempotency.key_sha256, idempotency.digest) if idempotency else (None, None)
    cursor.execute(HOME, {"person_id": valid_id(person_id), "key": key, "digest": digest})
    if (row := cursor.fetchone()) is None:
        raise PersonNotFound(NO_SUCH_PERSON)
    return str(row[0])


def lock(cursor: Cursor, person_id: str, collection: str | None, only_if: Condition | None = None) -> tuple[str, int]:
    """Wait for every other writer to the person's collection; return the ids of both, the collection's internal.

    All that is read afterwards stays true until the caller commits.

    Raises:
        PersonNotFound
        PreconditionFailed: the person has another version than `only_if` allows.
    """
    collection_id, _ = _collection_of(cursor, person_id, collection, SQL("FOR NO KEY UPDATE OF collection"))
    person_id = require(cursor, person_id, collection)  # who may be gone since we began to wait
    if only_if is not None:
        require_version(details(cursor, person_id, collection).version, only_if)
    return person_id, collection_id


def _collection_of(cursor: Cursor, person_id: str, collection: str | None, lock: SQL) -> tuple[int, int]:
    allowed = None if collection is None else comparable(collection)
    cursor.execute(FIND + lock, (valid_id(person_id), allowed))
    if (row := cursor.fetchone()) is None:
        raise PersonNotFound(NO_SUCH_PERSON)
    collection_id, revision = row
    return collection_id, revision


def change(
    cursor: Cursor, person_id: str, values: Mapping[str, Any], collection: str | None, only_if: Condition | None
) -> tuple[PersonDetails, int]:
    """Change a person; `Gallery.change_person` says what it promises and raises."""
    if not values:
        raise InvalidRequest(f"There is nothing to change; give one or more of {', '.join(CHANGEABLE)}.")
    person_id, collection_id = lock(cursor, person_id, collection, only_if)
    new = _columns(values)
    _check_free(cursor, collection_id, person_id, new)
    assignments = SQL(", ").join(SQL("{} = %s").format(Identifier(column)) for column in new)
    with plain_metadata():
        cursor.execute(SQL("UPDATE people SET {} WHERE id = %s").format(assignments), (*new.values(), person_id))
    revision = grow_revision(cursor, collection_id)
    changed = details(cursor, person_id, collection)
    audit.append(cursor, "changed", person_id=person_id, collection=collection_id, members=sorted(values))
    return changed, revision


def _columns(values: Mapping[str, Any]) -> dict[str, str | None]:
    columns: dict[str, str | None] = {}
    for member, value in values.items():
        if member == "name":
            columns["name"] = tidy(value or "")
            columns["name_key"] = comparable(value)
        elif member == "external_id":
            columns["external_id"] = None if value is None else tidy(value, "external_id")
        elif member == "metadata":
            with plain_metadata():
                columns["metadata"] = as_json(value or {})
        else:
            raise InvalidRequest(f"A person has no `{member[:50]}` to change; there is {', '.join(CHANGEABLE)}.")
    return columns


def _check_free(cursor: Cursor, collection_id: int, person_id: str, new: Mapping[str, str | None]) -> None:
    taken = {
        "name_key": "Another person has this name; merge the two if they are one, or choose another name.",
        "external_id": "Another person has this external_id; take it from that person first.",
    }
    for column, sentence in taken.items():
        if new.get(column) is not None:
            find = SQL("SELECT FROM people WHERE collection_id = %s AND {} = %s AND id <> %s")
            cursor.execute(find.format(Identifier(column)), (collection_id, new[column], person_id))
            if cursor.fetchone() is not None:
                raise Conflict(sentence)


def remove_face(
    cursor: Cursor, person_id: str, face_id: str, collection: str | None, only_if: Condition | None
) -> tuple[PersonDetails, int]:
    """Delete a face; `Gallery.remove_face` says what it promises and raises."""
    person_id, collection_id = lock(cursor, person_id, collection, only_if)
    try:
        face_id = str(uuid.UUID(face_id))
    except ValueError as error:
        raise FaceNotFound(NO_SUCH_FACE) from error
    cursor.execute("DELETE FROM faces WHERE id = %s AND person_id = %s", (face_id, person_id))
    if not cursor.rowcount:
        raise FaceNotFound(NO_SUCH_FACE)
    templates.renew(cursor, collection_id, person_id)
    revision = grow_revision(cursor, collection_id)
    left = details(cursor, person_id, collection)
    audit.append(cursor, "face_removed", person_id=person_id, collection=collection_id, left=left.person.faces)
    return left, revision


def erase(cursor: Cursor, person_id: str, collection: str | None, only_if: Condition | None) -> Erasure:
    """Delete all that is held on a person; `Gallery.delete_person` says what it promises and raises."""
    person_id, collection_id = lock(cursor, person_id, collection, only_if)
    erasure = erase_locked(cursor, person_id, collection_id)
    tell_of_erasure(cursor, "erased", erasure, collection_id)
    return erasure


def erase_locked(cursor: Cursor, person_id: str, collection_id: int) -> Erasure:
    """The same, without an entry in the audit trail, for who holds the collection's lock."""
    deleted = erase_rows(cursor, person_id)
    cursor.execute(COUNT_LEFT, {"id": person_id})
    (left,) = cursor.fetchall()[0]
    return Erasure(person_id, deleted, left, grow_revision(cursor, collection_id))


def tell_of_erasure(cursor: Cursor, action: audit.Action, erasure: Erasure, collection_id: int) -> None:
    """Tell of it in the audit trail, as the last thing before the commit; the receipt is in the entry."""
    deleted = {**erasure.deleted}
    audit.append(
        cursor, action, person_id=erasure.person_id, collection=collection_id, deleted=deleted, left=erasure.left
    )


def erase_rows(cursor: Cursor, person_id: str) -> dict[str, int]:
    """Delete what is in the tables; returns how many rows it was, per table."""
    deleted = {}
    for table, statement in ERASE.items():
        cursor.execute(statement, {"person_id": person_id, "kept": []})
        deleted[table] = cursor.rowcount
    return deleted
