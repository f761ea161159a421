"""Bringing people into a collection, batch by batch of whole people: each batch is one transaction.

What is there already is recognised and left as it is, so that whatever was cut off is simply done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values
from psycopg2.sql import SQL, Identifier

from recognizer.faces import space_of
from recognizer.gallery import arriving_photos, audit, collections, sealing, templates
from recognizer.gallery.arrivals import Arrival, Tally, compare
from recognizer.gallery.enrolment import as_json
from recognizer.gallery.names import comparable
from recognizer.gallery.transfer import SETTINGS, CollectionRecord, Incoming
from recognizer.gallery.turns import grow_revision, lock_collection

TARGET = SQL("""
    SELECT id, keep_photos, (SELECT count(*) FROM people WHERE collection_id = collections.id), {settings}
    FROM collections WHERE name_key = %s
""").format(settings=SQL(", ").join(map(Identifier, SETTINGS)))

RESTORE_SHIFT = """
    UPDATE spaces SET shift = new.shift
    FROM (VALUES %s) AS new (collection_id, name, people, faces, shift)
    WHERE spaces.collection_id = new.collection_id AND spaces.name = new.name
      AND spaces.people = new.people AND spaces.faces = new.faces
"""

ADD_PEOPLE = """
    INSERT INTO people (id, collection_id, name, name_key, external_id, metadata, created_at) VALUES %s
"""

COMPLETE_PEOPLE = """
    UPDATE people SET external_id = coalesce(people.external_id, new.external_id),
                      metadata = CASE WHEN people.metadata = '{}' THEN new.metadata ELSE people.metadata END
    FROM (VALUES %s) AS new (id, external_id, metadata) WHERE people.id = new.id
"""
"""What is set already stays, as in a merger."""

ADD_FACES = """
    INSERT INTO faces (id, person_id, collection_id, embedding, sealed, model_id, box_left, box_top, box_right,
                       box_bottom, quality_score, quality_issues, photo_sha256, created_at) VALUES %s
"""

ADD_REJECTIONS = """
    INSERT INTO rejections (id, person_id, collection_id, embedding, sealed, model_id, space, created_at, created_by)
    VALUES %s
"""

RESTORE_COHORTS = """
    UPDATE cohorts SET likeness = new.likeness, rival = new.rival, seen = new.seen
    FROM (VALUES %s) AS new (person_id, collection_id, space, likeness, rival, seen)
    JOIN spaces ON spaces.collection_id = new.collection_id AND spaces.name = new.space
    WHERE cohorts.person_id = new.person_id AND cohorts.space_id = spaces.id
"""


class Target(NamedTuple):
    """The collection that people are brought into, as it is before; `id` is None where there is none yet."""

    id: int | None
    people: int
    settings: dict[str, Any]
    changes: dict[str, int]
    """How often each space has changed, by its name."""
    keeps_photos: bool


def target(cursor: Cursor, name: str) -> Target:
    """Look at a collection."""
    cursor.execute(TARGET, (comparable(name),))
    if (row := cursor.fetchone()) is None:
        return Target(None, 0, dict.fromkeys(SETTINGS), {}, keeps_photos=False)
    collection_id, keeps_photos, people, *settings = row
    cursor.execute("SELECT name, changes FROM spaces WHERE collection_id = %s", (collection_id,))
    known = dict(zip(SETTINGS, settings, strict=True))
    return Target(collection_id, people, known, dict(cursor.fetchall()), keeps_photos)


def prepare(cursor: Cursor, name: str, settings: Mapping[str, Any]) -> bool:
    """Make the collection, or give one that is empty the settings that it has not; returns whether it was made.

    Raises:
        InvalidRequest: no collection can have such a name or such settings.
    """
    known = {member: value for member, value in settings.items() if member in SETTINGS}
    found = target(cursor, name)
    if found.id is None:
        collections.create(cursor, name, known)
        return True
    missing = {member: value for member, value in known.items() if value is not None and found.settings[member] is None}
    if missing and not found.people:
        collections.change(cursor, name, missing, None)
    return False


def finish(cursor: Cursor, name: str, record: CollectionRecord) -> None:
    """Of a collection that holds what the file holds and nothing else: take over what is known of the whole.

    That is by how much the people of a space are alike, and the revision, which only ever grows.
    """
    collection_id = lock_collection(cursor, name)
    of_spaces = [
        (collection_id, space.name, space.people, space.faces, space.shift) for space in record.spaces if space.people
    ]
    if of_spaces:
        columns = "(%s::bigint, %s, %s::bigint, %s::bigint, %s::double precision)"
        execute_values(cursor, RESTORE_SHIFT, of_spaces, columns, page_size=len(of_spaces))
        if cursor.rowcount < len(of_spaces):
            return
    cursor.execute(
        "UPDATE collections SET revision = greatest(revision, %s) WHERE id = %s", (record.revision, collection_id)
    )


def write(cursor: Cursor, collection: str, batch: Sequence[Incoming], figures_from: Mapping[str, int] | None) -> Tally:
    """Bring a batch in; the caller commits.

    Args:
        figures_from: for each space of the file what is to be added to `seen` of its figures, so that they are as old
            as they were when all people are in; None where they do not hold, because there are other people, too.

    Raises:
        CollectionNotFound, EncryptionKeyMissing
        FileRefused: as `compare`.
    """
    collection_id = lock_collection(cursor, collection)
    arrivals, tally = compare(cursor, collection_id, batch)
    if not tally.changes:
        return tally
    _write_people(cursor, collection_id, arrivals)
    if tally.faces:
        _write_faces(cursor, collection_id, arrivals)
        changed = {each.id: {face.model_id for _, face, _ in each.faces} for each in arrivals if each.faces}
        templates.refresh_people(cursor, collection_id, changed)
    if tally.rejections:
        _write_rejections(cursor, collection_id, arrivals)
    for each in arrivals:
        arriving_photos.write(cursor, collection_id, each.id, each.photos)
    if figures_from is not None:
        _restore_cohorts(cursor, collection_id, arrivals, figures_from)
    grow_revision(cursor, collection_id)
    audit.append(
        cursor,
        "imported",
        collection=collection_id,
        people=tally.people,
        people_completed=tally.people_completed,
        faces=tally.faces,
        rejections=tally.rejections,
        photos=tally.photos,
    )
    return tally


def _write_people(cursor: Cursor, collection_id: int, arrivals: Sequence[Arrival]) -> None:
    new = [
        (
            each.id, collection_id, person.name, person.name_key, person.external_id,
            as_json(person.metadata), person.created_at,
        )
        for each in arrivals if each.is_new
        for person in [each.incoming.person]
    ]  # fmt: skip
    if new:
        columns = "(%s::uuid, %s, %s, %s, %s, %s::jsonb, %s)"
        execute_values(cursor, ADD_PEOPLE, new, columns, page_size=len(new))
    completed = [
        (each.id, each.incoming.person.external_id, as_json(each.incoming.person.metadata))
        for each in arrivals
        if each.is_completed
    ]
    if completed:
        columns = "(%s::uuid, %s::text, %s::jsonb)"
        execute_values(cursor, COMPLETE_PEOPLE, completed, columns, page_size=len(completed))


def _write_faces(cursor: Cursor, collection_id: int, arrivals: Sequence[Arrival]) -> None:
    if encrypted := sealing.is_encrypted(cursor, collection_id):
        sealing.require_room(cursor, collection_id, sum(len(each.faces) for each in arrivals))
    rows = [
        (
            face_id, each.id, collection_id,
            *sealing.stored(cursor, sealing.face_place(face_id), embedding, encrypted), face.model_id,
            face.box.left, face.box.top, face.box.right, face.box.bottom,
            face.quality.score, list(face.quality.issues), bytes.fromhex(face.photo_sha256), face.created_at,
        )
        for each in arrivals
        for face_id, face, embedding in each.faces
    ]  # fmt: skip
    columns = "(%s::uuid, %s::uuid, %s, %s::vector, %s::bytea, %s, %s, %s, %s, %s, %s, %s::text[], %s, %s)"
    execute_values(cursor, ADD_FACES, rows, columns, page_size=len(rows))


def _write_rejections(cursor: Cursor, collection_id: int, arrivals: Sequence[Arrival]) -> None:
    encrypted = sealing.is_encrypted(cursor, collection_id)
    rows = [
        (
            own_id, each.id, collection_id,
            *sealing.stored(cursor, sealing.rejection_place(own_id), embedding, encrypted),
            said.model_id, space_of(said.model_id),
            said.created_at, said.created_by,
        )
        for each in arrivals
        for own_id, said, embedding in each.rejections
    ]  # fmt: skip
    columns = "(%s::uuid, %s::uuid, %s, %s::vector, %s::bytea, %s, %s, %s, %s)"
    execute_values(cursor, ADD_REJECTIONS, rows, columns, page_size=len(rows))


def _restore_cohorts(
    cursor: Cursor, collection_id: int, arrivals: Sequence[Arrival], figures_from: Mapping[str, int]
) -> None:
    rows = [
        (
            each.id, collection_id, figures.space, figures.likeness, figures.rival,
            figures.seen if figures.seen < 0 else max(0, figures.seen + figures_from[figures.space]),
        )
        for each in arrivals if each.is_new
        for figures in each.incoming.person.cohorts if figures.space in figures_from
    ]  # fmt: skip
    if rows:
        columns = "(%s::uuid, %s::bigint, %s, %s::real, %s::real, %s::bigint)"
        execute_values(cursor, RESTORE_COHORTS, rows, columns, page_size=len(rows))
