"""Merging: two people who turned out to be one become one, with all that is held on either."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from psycopg2.extensions import cursor as Cursor

from recognizer.errors import Conflict, InvalidRequest
from recognizer.faces import Embedding, Person, space_of
from recognizer.gallery import audit, people, sealing, templates
from recognizer.gallery.people import PersonDetails
from recognizer.gallery.rejections import MAX_OF_ONE_PERSON
from recognizer.gallery.turns import grow_revision
from recognizer.gallery.versions import Condition

SAME_FACE = 0.2
"""Up to this distance two embeddings are taken to be of one photo, saved anew perhaps. Of 300 photos of LFW 98 % are as
near to themselves at JPEG quality 50 or 0.6 of their size; of 600 pairs of two photos of one person none is."""

# Of a photo that both have, the later is kept: it comes from the model that is in use now.
DROP_DUPLICATES = """
    DELETE FROM faces AS older USING faces AS later
    WHERE older.person_id IN (%(gone)s, %(into)s) AND later.person_id IN (%(gone)s, %(into)s)
      AND older.person_id <> later.person_id AND older.photo_sha256 = later.photo_sha256
      AND (older.created_at, older.id) < (later.created_at, later.id)
"""

# "This face is not that person's", and it is a face of the other: that they are one says that it was not so.
DROP_REFUTED = """
    WITH face AS MATERIALIZED (
        SELECT person_id, regexp_replace(model_id, '/[^/]*$', '') COLLATE "C" AS space, embedding
        FROM faces WHERE person_id IN (%(gone)s, %(into)s)
    )
    DELETE FROM rejections AS said
    WHERE said.person_id IN (%(gone)s, %(into)s) AND EXISTS (
        SELECT FROM face
        WHERE face.person_id <> said.person_id AND face.space = said.space
          AND face.embedding <-> said.embedding < %(same)s
    )
"""

SEALED_REJECTIONS = """
    SELECT id, person_id, space, embedding, sealed FROM rejections
    WHERE person_id = ANY (%s::uuid[]) AND sealed IS NOT NULL
"""
SEALED_FACES = "SELECT id, person_id, model_id, embedding, sealed FROM faces WHERE person_id = ANY (%s::uuid[])"

MOVE = {
    "faces": "UPDATE faces SET person_id = %(into)s WHERE person_id = %(gone)s",
    "photos": "UPDATE photos SET person_id = %(into)s WHERE person_id = %(gone)s",
    "rejections": "UPDATE rejections SET person_id = %(into)s WHERE person_id = %(gone)s",
    "idempotency_keys": """
        UPDATE idempotency_keys
        SET person_id = %(into)s, response = response || jsonb_build_object('person_id', %(into)s, 'name', %(name)s)
        WHERE person_id = %(gone)s
    """,  # whoever sends the request again learns whose the photos are now, and enrols nobody anew
}

TAKE_OVER = """
    UPDATE people AS kept
    SET external_id = coalesce(kept.external_id, %(external_id)s),
        metadata = CASE WHEN kept.metadata = '{}' THEN gone.metadata ELSE kept.metadata END
    FROM people AS gone
    WHERE kept.id = %(into)s AND gone.id = %(gone)s
"""


@dataclass(frozen=True, slots=True)
class Merger:
    """Who there is after merging `merged_id` into them, and how many rows were moved and dropped, per table."""

    merged_id: str
    into: PersonDetails
    moved: dict[str, int]
    dropped: dict[str, int]
    revision: int


def merge(cursor: Cursor, person_id: str, into: str, collection: str | None, only_if: Condition | None) -> Merger:
    """Make two people one; `Gallery.merge_people` says what it promises and raises."""
    person_id, collection_id = people.lock(cursor, person_id, collection, only_if)
    gone = people.details(cursor, person_id, collection).person
    kept = people.details(cursor, into, collection).person
    _check(gone, kept)
    whose = {"gone": gone.id, "into": kept.id, "name": kept.name, "same": SAME_FACE}
    dropped = {}
    for table, statement in (("faces", DROP_DUPLICATES), ("rejections", DROP_REFUTED)):
        cursor.execute(statement, whose)
        dropped[table] = cursor.rowcount
    dropped["rejections"] += _drop_sealed_refuted(cursor, gone.id, kept.id)
    moved = {}
    for table, statement in MOVE.items():
        cursor.execute(statement, whose)
        moved[table] = cursor.rowcount
    _check_rejections(cursor, kept.id)
    cursor.execute("UPDATE people SET external_id = NULL WHERE id = %s", (gone.id,))  # nobody may have it twice
    cursor.execute(TAKE_OVER, {**whose, "external_id": gone.external_id})
    people.erase_rows(cursor, gone.id)
    templates.renew(cursor, collection_id, kept.id)
    revision = grow_revision(cursor, collection_id)
    merger = Merger(gone.id, people.details(cursor, kept.id, collection), moved, dropped, revision)
    _tell(cursor, merger, collection_id)
    return merger


def _tell(cursor: Cursor, merger: Merger, collection_id: int) -> None:
    """Tell of it in the audit trail of either, each with the subject of the other, for whoever knows but one id."""
    gone, kept = merger.merged_id, merger.into.person.id
    other = audit.subject_of(kept).hex()
    audit.append(cursor, "merged", person_id=gone, collection=collection_id, into=other, moved=merger.moved)
    other = audit.subject_of(gone).hex()
    audit.append(cursor, "merged", person_id=kept, collection=collection_id, gone=other, moved=merger.moved)


def _drop_sealed_refuted(cursor: Cursor, *people_ids: str) -> int:
    """As DROP_REFUTED does, where the embeddings are encrypted; returns how many were dropped."""
    cursor.execute(SEALED_REJECTIONS, (list(people_ids),))
    if not (rejections := cursor.fetchall()):
        return 0
    cursor.execute(SEALED_FACES, (list(people_ids),))
    faces: dict[tuple[str, str], list[Embedding]] = defaultdict(list)
    for face_id, person_id, model_id, *kept in cursor.fetchall():
        faces[person_id, space_of(model_id)].append(sealing.read(cursor, sealing.face_place(face_id), *kept))
    refuted = []
    for rejection_id, person_id, space, *kept in rejections:
        (other,) = set(people_ids) - {person_id}
        said = sealing.read(cursor, sealing.rejection_place(rejection_id), *kept)
        if any(np.linalg.norm(face - said) < SAME_FACE for face in faces[other, space]):
            refuted.append(rejection_id)
    cursor.execute("DELETE FROM rejections WHERE id = ANY (%s::uuid[])", (refuted,))
    return cursor.rowcount


def _check(gone: Person, kept: Person) -> None:
    if gone.id == kept.id:
        raise InvalidRequest("A person cannot be merged into themselves; say into which other person.")
    if gone.collection != kept.collection:
        raise Conflict("These two people are in different collections; only people of one collection can be merged.")
    if gone.external_id is not None and kept.external_id is not None:
        raise Conflict("Both people have an external_id, so they count as two; take it from one of them first.")


def _check_rejections(cursor: Cursor, person_id: str) -> None:
    cursor.execute("SELECT count(*) FROM rejections WHERE person_id = %s", (person_id,))
    if cursor.fetchall()[0][0] > MAX_OF_ONE_PERSON:
        raise Conflict(
            f"Together these two people have more than {MAX_OF_ONE_PERSON:,} rejections, the most there may be; "
            "undo old ones first."
        )
