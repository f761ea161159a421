"""The gallery: collections of people and their faces. Every write is one transaction."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import InvalidRequest, PersonNotFound
from recognizer.faces import Box, Embedding, Neighbourhood, NewFace, Person, Quality, Rejection, Remark, StoredFace
from recognizer.gallery import cohorts, collections, enrolment, people, reading, rejections, search
from recognizer.gallery.collections import Collection, CollectionOverview
from recognizer.gallery.enrolment import EnrolledFace, Enrolment, Idempotency, Who, valid_id
from recognizer.gallery.names import comparable
from recognizer.gallery.people import Erasure
from recognizer.gallery.pool import Pool
from recognizer.gallery.reading import EnrolledPeople

__all__ = ["Collection", "CollectionOverview", "EnrolledFace", "Enrolment", "Erasure", "Gallery", "Idempotency"]

MAX_PAGE = 1000


class Gallery:
    """People and faces in PostgreSQL; safe to use from many threads.

    Every method may raise `DatabaseUnavailable` and `DeadlineExceeded`. Writers to one collection take
    turns; each grows its `revision`. Collections and people are named without regard to case.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collection(self, name: str, deadline: Deadline) -> Collection:
        """Look a collection up.

        Raises:
            CollectionNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return collections.find(cursor, name)

    def collections(self, deadline: Deadline, *, only: str | None = None) -> list[CollectionOverview]:
        """All collections by name, or just the one called `only`, each with how much it holds."""
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return collections.overviews(cursor, only)

    def collection_overview(self, name: str, deadline: Deadline) -> CollectionOverview:
        """A collection and how much it holds.

        Raises:
            CollectionNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return collections.overview(cursor, name)

    def change_collection(
        self, name: str, values: Mapping[str, float | None], deadline: Deadline
    ) -> CollectionOverview:
        """Set a collection's `target_fpir` or `threshold`, or both; None: as in the settings.

        Raises:
            CollectionNotFound
            InvalidRequest: there is nothing to change, or a value is impossible.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return collections.change(cursor, name, values)

    def nearest(
        self, collection: str, embeddings: Sequence[Embedding], model_id: str, k: int, deadline: Deadline
    ) -> Neighbourhood:
        """The people near each probe, at least `k` where there are so many; see `search.nearest`."""
        return search.nearest(self._pool, collection, embeddings, model_id, k, deadline)

    def embeddings(self, collection: str, model_id: str, deadline: Deadline) -> EnrolledPeople:
        """The faces of a collection themselves, or a sample of very many; see `reading.embeddings`."""
        return reading.embeddings(self._pool, collection, model_id, deadline)

    def stale_cohorts(self, deadline: Deadline) -> int:
        """How many people's cohort figures wait to be brought up to date; see `cohorts`."""
        return cohorts.stale(self._pool, deadline)

    def enrol(
        self,
        collection: str,
        faces: Sequence[NewFace],
        *,
        name: str | None = None,
        person_id: str | None = None,
        external_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        refused: Sequence[Remark] = (),
        warnings: Sequence[Remark] = (),
        idempotency: Idempotency | None = None,
        deadline: Deadline,
    ) -> Enrolment:
        """Add faces to a person, given by `person_id` or by `name`; a new name makes a new person.

        Photos that the person has already are refused as duplicates; they join `refused`, the photos
        that the caller has refused before; `warnings` are told of the photos that are stored. When no face is
        left to store, nothing is changed at all.
        `external_id` is set where there is none; `metadata`, when given, replaces what there is.
        With `idempotency`, the same request gets its first answer again for 24 hours.

        Raises:
            CollectionNotFound, PersonNotFound
            Conflict: the external_id is another person's, the person has another one, or the idempotency
                key came with another request.
            EnrolmentRefused: there is nothing to store.
            InvalidRequest: the name, the external_id or the metadata cannot be stored.
        """
        if (name is None) == (person_id is None):
            raise InvalidRequest("Say who this is: give either `name` or `person_id`.")
        who = Who(name, person_id, external_id, metadata)
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return enrolment.enrol(cursor, collection, who, faces, refused, warnings, idempotency)

    def earlier_answer(self, collection: str, idempotency: Idempotency, deadline: Deadline) -> Enrolment | None:
        """What this request was answered before, so that its photos need not be looked at again.

        Raises:
            Conflict: the key came with another request.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return enrolment.earlier_answer(cursor, collection, idempotency)

    def people(
        self, collection: str, *, query: str = "", limit: int = 100, cursor: str | None = None, deadline: Deadline
    ) -> tuple[list[Person], str | None]:
        """A page of the people whose name contains `query`, ordered by name, and the cursor of the next page.

        The pages stay in step whoever is added or deleted meanwhile: a cursor says after which name to go on.

        Raises:
            CollectionNotFound
            InvalidRequest: the limit or the cursor is impossible.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"`limit` must be from 1 to {MAX_PAGE}.")
        after = _name_after(cursor)
        with self._pool.connection(deadline) as connection, connection.cursor() as database:
            found = collections.find(database, collection)
            database.execute(
                """
                SELECT id, name, external_id, metadata, created_at, name_key,
                       (SELECT count(*) FROM faces WHERE faces.person_id = people.id)
                FROM people
                WHERE collection_id = (SELECT id FROM collections WHERE name_key = %s)
                  AND name_key > %s AND name_key LIKE %s
                ORDER BY name_key
                LIMIT %s
                """,
                (comparable(collection), after, f"%{_literally(comparable(query))}%", limit + 1),
            )
            rows = database.fetchall()
        people = [
            Person(person_id, found.name, name, external_id, metadata, faces, created_at)
            for person_id, name, external_id, metadata, created_at, _, faces in rows[:limit]
        ]
        return people, _cursor_after(rows[limit - 1][5]) if len(rows) > limit else None

    def person(
        self, person_id: str, deadline: Deadline, *, collection: str | None = None
    ) -> tuple[Person, tuple[StoredFace, ...]]:
        """A person and the faces stored, oldest first; with `collection`, only if the person is in it.

        Raises:
            PersonNotFound
        """
        person_id = valid_id(person_id)
        allowed = None if collection is None else comparable(collection)
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT collection.name, person.name, external_id, metadata, person.created_at
                FROM people AS person JOIN collections AS collection ON collection.id = person.collection_id
                WHERE person.id = %s AND coalesce(%s, collection.name_key) = collection.name_key
                """,
                (person_id, allowed),
            )
            row = cursor.fetchone()
            if row is None:
                raise PersonNotFound(people.NO_SUCH_PERSON)
            faces = _faces(cursor, person_id)
        where, name, external_id, metadata, created_at = row
        return Person(person_id, where, name, external_id, metadata, len(faces), created_at), faces

    def require_person(self, person_id: str, deadline: Deadline, *, collection: str | None = None) -> str:
        """The person's id in its usual spelling; with `collection`, only if the person is in it.

        Raises:
            PersonNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return people.require(cursor, person_id, collection)

    def delete_person(self, person_id: str, deadline: Deadline, *, collection: str | None = None) -> Erasure:
        """Erase all that is held on a person; with `collection`, only if the person is in it.

        Raises:
            PersonNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return people.erase(cursor, person_id, collection)

    def reject(
        self,
        person_id: str,
        embedding: Embedding,
        model_id: str,
        by: str,
        deadline: Deadline,
        *,
        collection: str | None = None,
    ) -> tuple[Rejection, int]:
        """Keep that a face is not this person's; returns also the collection's revision.

        Args:
            embedding: the face, (128,) float32, as the model `model_id` gives it.
            by: the id of the API key, or who else said so.
            collection: when given, only if the person is in it.

        Raises:
            PersonNotFound
            InvalidRequest: that is no embedding.
            Conflict: the person has as many rejections as there may be.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return rejections.add(cursor, person_id, embedding, model_id, by, collection)

    def rejections(self, person_id: str, deadline: Deadline, *, collection: str | None = None) -> tuple[Rejection, ...]:
        """A person's rejections, oldest first; with `collection`, only if the person is in it.

        Raises:
            PersonNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return rejections.of_person(cursor, person_id, collection)

    def undo_rejection(
        self, person_id: str, rejection_id: str, deadline: Deadline, *, collection: str | None = None
    ) -> int:
        """Take a rejection back; returns the collection's revision.

        Raises:
            PersonNotFound, RejectionNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return rejections.undo(cursor, person_id, rejection_id, collection)


def _faces(cursor: Cursor, person_id: str) -> tuple[StoredFace, ...]:
    cursor.execute(
        "SELECT id, box_left, box_top, box_right, box_bottom, quality_score, quality_issues, model_id, created_at"
        " FROM faces WHERE person_id = %s ORDER BY created_at, id",
        (person_id,),
    )
    return tuple(
        StoredFace(face_id, Box(left, top, right, bottom), Quality(score, tuple(issues)), model_id, created_at)
        for face_id, left, top, right, bottom, score, issues, model_id, created_at in cursor.fetchall()
    )


def _literally(text: str) -> str:
    """`text` as a LIKE pattern that stands for nothing but itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _cursor_after(name_key: str) -> str:
    return base64.urlsafe_b64encode(name_key.encode()).decode()


def _name_after(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        return comparable(base64.b64decode(cursor, altchars=b"-_", validate=True).decode())
    except ValueError as error:
        raise InvalidRequest("The `cursor` is not one that this service has given out.") from error
