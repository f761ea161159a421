"""The enrolled faces themselves: of a whole collection for calibration, of one person for comparing one to one."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound
from recognizer.faces import Embedding, PersonRef, space_of
from recognizer.gallery import people, sealing, templates
from recognizer.gallery.collections import Collection
from recognizer.gallery.names import comparable
from recognizer.gallery.pool import Pool


class ReadingLimits(NamedTuple):
    """How much is read at most. What is left out is drawn by a hash of its id: always the same, and no first ones."""

    people: int = 5_000
    faces: int = 20_000
    faces_per_person: int = 100


@dataclass(frozen=True, slots=True)
class EnrolledPerson:
    """A person's faces in one space."""

    id: str
    name: str
    face_ids: tuple[str, ...]
    embeddings: NDArray[np.float32] = field(repr=False, compare=False)
    """(n, 128) float32, in the order of `face_ids`; n is at least 1."""


@dataclass(frozen=True, slots=True)
class EnrolledPeople:
    """The people of a collection, as far as they were read, and how many there are in all.

    `threshold` and `target_fpir` are the collection's own (None: it has none), `shift` what `evidence.score_at` wants
    to know of the space, `faces_elsewhere` how many faces lie in other spaces and cannot be compared with these.
    """

    collection: str
    revision: int
    threshold: float | None
    target_fpir: float | None
    shift: float
    people_enrolled: int
    faces_enrolled: int
    faces_elsewhere: int
    people: tuple[EnrolledPerson, ...]


COLLECTION = """
    SELECT collection.name, collection.revision, collection.threshold, collection.target_fpir,
           space.id, coalesce(space.shift, 0), coalesce(space.people, 0), coalesce(space.faces, 0),
           (SELECT coalesce(sum(faces), 0) FROM spaces
            WHERE collection_id = collection.id AND name <> %(space)s)::bigint
    FROM collections AS collection
    LEFT JOIN spaces AS space ON space.collection_id = collection.id AND space.name = %(space)s
    WHERE collection.name_key = %(collection)s
"""

# Those with many photos lose some before anybody loses all. The templates say who has a face in the space, without a
# look at the faces.
FACES = """
    WITH asked AS (SELECT id, model_ids FROM spaces WHERE id = %(space_id)s),
    drawn AS (
        SELECT template.person_id
        FROM templates AS template
        WHERE template.space_id = %(space_id)s
        ORDER BY hashtextextended(template.person_id::text, 0), template.person_id
        LIMIT %(people)s
    ), ranked AS (
        SELECT face.id,
               row_number() OVER (
                   PARTITION BY face.person_id ORDER BY hashtextextended(face.id::text, 0), face.id
               ) AS place
        FROM drawn CROSS JOIN asked
        JOIN faces AS face ON face.person_id = drawn.person_id AND ARRAY[face.model_id] <@ asked.model_ids
    ), kept AS (
        SELECT id FROM ranked WHERE place <= %(faces_per_person)s ORDER BY place, id LIMIT %(faces)s
    )
    SELECT person.id, person.name, face.id, face.embedding, face.sealed
    FROM kept JOIN faces AS face ON face.id = kept.id JOIN people AS person ON person.id = face.person_id
    ORDER BY person.id, face.created_at, face.id
"""


def embeddings(
    pool: Pool,
    collection: str,
    model_id: str,
    deadline: Deadline,
    limits: ReadingLimits = ReadingLimits(),  # noqa: B008 (immutable)
) -> EnrolledPeople:
    """Read the faces of a collection that lie in the space of `model_id`, ordered by person.

    Raises:
        CollectionNotFound, DatabaseUnavailable, DeadlineExceeded
        EncryptionKeyMissing, SealBroken: as `sealing.read`.
    """
    asked = {"collection": comparable(collection), "space": space_of(model_id)}
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        # both statements see one state: nobody is half erased
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute(COLLECTION, asked)
        row = cursor.fetchone()
        if row is None:
            raise CollectionNotFound(f"There is no collection `{collection}`.")
        name, revision, threshold, target, space_id, shift, people_count, faces_count, elsewhere = row
        cursor.execute(FACES, {"space_id": space_id, **limits._asdict()})
        rows = cursor.fetchall()
        people = tuple(_person(cursor, list(faces)) for _, faces in groupby(rows, itemgetter(0)))
    return EnrolledPeople(name, revision, threshold, target, shift, people_count, faces_count, elsewhere, people)


def _person(cursor: Cursor, rows: list[tuple[Any, ...]]) -> EnrolledPerson:
    person_id, name = rows[0][:2]
    return EnrolledPerson(person_id, name, tuple(row[2] for row in rows), _faces(cursor, [row[2:] for row in rows]))


@dataclass(frozen=True, slots=True)
class PersonFaces:
    """One person's faces in one space, and the faces in it that were said not to be theirs."""

    person: PersonRef
    collection: Collection
    face_ids: tuple[str, ...]
    embeddings: NDArray[np.float32] = field(repr=False, compare=False)
    """(n, 128), in the order of `face_ids`."""
    rejected: NDArray[np.float32] = field(repr=False, compare=False)
    """(m, 128)"""


PERSON = """
    SELECT person.name, collection.name, collection.threshold, collection.target_fpir, collection.revision,
           collection.keep_photos, collection.retention_days, collection.encrypt_embeddings
    FROM people AS person JOIN collections AS collection ON collection.id = person.collection_id
    WHERE person.id = %s
"""

# The model is compared in a way that no index has: without statistics the planner would read all faces of the model.
FACES_OF_PERSON = """
    SELECT face.id, face.embedding, face.sealed
    FROM faces AS face
    JOIN spaces AS space ON space.collection_id = face.collection_id AND ARRAY[face.model_id] <@ space.model_ids
    WHERE face.person_id = %s AND space.name = %s
    ORDER BY face.created_at DESC, face.id
    LIMIT %s
"""


def person_faces(
    cursor: Cursor, person_id: str, model_id: str, collection: str | None, min_revision: int = 0
) -> PersonFaces:
    """Read a person's latest faces, as many as make a template; `Gallery.person_faces` says what it raises."""
    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    person_id = people.require(cursor, person_id, collection, min_revision)
    cursor.execute(PERSON, (person_id,))
    name, *of_collection = cursor.fetchall()[0]
    space = space_of(model_id)
    cursor.execute(FACES_OF_PERSON, (person_id, space, templates.MAX_FACES))
    faces = cursor.fetchall()
    cursor.execute(
        "SELECT id, embedding, sealed FROM rejections WHERE person_id = %s AND space = %s", (person_id, space)
    )
    rejected = cursor.fetchall()
    return PersonFaces(
        PersonRef(person_id, name),
        Collection(*of_collection),
        tuple(face_id for face_id, *_ in faces),
        _faces(cursor, faces),
        _matrix([sealing.read(cursor, sealing.rejection_place(each), *kept) for each, *kept in rejected]),
    )


def _faces(cursor: Cursor, rows: list[tuple[Any, ...]]) -> NDArray[np.float32]:
    """(n, 128) from rows of a face's id and the two forms of its embedding."""
    return _matrix([sealing.read(cursor, sealing.face_place(face_id), *kept) for face_id, *kept in rows])


def _matrix(vectors: list[Embedding]) -> NDArray[np.float32]:
    """(n, 128), also where n is 0."""
    return np.array(vectors, np.float32).reshape(-1, 128)
