"""The gallery: collections of people and their faces. Every write is one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recognizer.deadline import Deadline
from recognizer.errors import InvalidRequest
from recognizer.faces import Embedding, Neighbourhood, NewFace, Person, Rejection, Remark
from recognizer.gallery import cohorts, enrolment, listing, merging, people, reading, rejections, search
from recognizer.gallery.collection_store import CollectionStore
from recognizer.gallery.collections import Collection, CollectionErasure, CollectionOverview
from recognizer.gallery.enrolment import EnrolledFace, Enrolment, Idempotency, Who
from recognizer.gallery.listing import PeopleQuery
from recognizer.gallery.merging import Merger
from recognizer.gallery.opened import Opened
from recognizer.gallery.people import Erasure, PersonDetails
from recognizer.gallery.pool import Pool
from recognizer.gallery.reading import EnrolledPeople, PersonFaces
from recognizer.gallery.versions import Condition

__all__ = [
    "Collection",
    "CollectionErasure",
    "CollectionOverview",
    "EnrolledFace",
    "Enrolment",
    "Erasure",
    "Gallery",
    "Idempotency",
    "Merger",
    "PersonDetails",
    "PersonFaces",
]


class Gallery(CollectionStore):
    """People and faces in PostgreSQL; safe to use from many threads.

    Every method may raise `DatabaseUnavailable` and `DeadlineExceeded`. Writers to one collection take
    turns; each grows its `revision`. Collections and people are named without regard to case. `collection` beside a
    person's id is the one that the caller may see, all by default; `only_if` looks at the version of what is changed.
    What reads or writes embeddings of a collection that has them encrypted may raise `EncryptionKeyMissing` and
    `SealBroken`.
    """

    def __init__(self, pool: Pool, opened: Opened | None = None) -> None:
        super().__init__(pool)
        self._opened = opened or Opened(pool)

    def nearest(
        self, collection: str, embeddings: Sequence[Embedding], model_id: str, k: int, deadline: Deadline
    ) -> Neighbourhood:
        """The people near each probe, at least `k` where there are so many; see `search.nearest`."""
        return search.nearest(self._pool, collection, embeddings, model_id, k, deadline, opened=self._opened)

    def embeddings(self, collection: str, model_id: str, deadline: Deadline) -> EnrolledPeople:
        """The faces of a collection themselves, or a sample of very many; see `reading.embeddings`."""
        return reading.embeddings(self._pool, collection, model_id, deadline)

    def person_faces(
        self,
        person_id: str,
        model_id: str,
        deadline: Deadline,
        *,
        collection: str | None = None,
        min_revision: int = 0,
    ) -> PersonFaces:
        """A person's faces that can be compared with those of a model, and what was said not to be theirs.

        Raises:
            PersonNotFound, GalleryBehind: as `person` does.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return reading.person_faces(cursor, person_id, model_id, collection, min_revision)

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
        left to store, nothing is changed at all. Photos are stored, encrypted, where the collection keeps them.
        `external_id` is set where there is none; `metadata`, when given, replaces what there is.
        With `idempotency`, the same request gets its first answer again for 24 hours.

        Raises:
            CollectionNotFound, PersonNotFound
            Conflict: the external_id is another person's, the person has another one, or the idempotency
                key came with another request.
            EnrolmentRefused: there is nothing to store.
            InvalidRequest: the name, the external_id or the metadata cannot be stored.
            EncryptionKeyMissing: the collection keeps photos, and there is no key to encrypt them with.
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
        self,
        collection: str,
        *,
        query: str = "",
        external_id: str | None = None,
        sort: str = "name",
        limit: int = 100,
        cursor: str | None = None,
        min_revision: int = 0,
        deadline: Deadline,
    ) -> tuple[list[Person], str | None]:
        """A page of the people whose name contains `query`, and the cursor of the next page.

        The pages stay in step whoever is added or deleted meanwhile: a cursor says after whom to go on.

        Args:
            external_id: only who has this one.
            sort: `name`, `created_at`, or with a minus for the other direction.
            cursor: what came with a page of the same query; the limit may be another.

        Raises:
            CollectionNotFound, GalleryBehind
            InvalidRequest: the limit, the sort or the cursor is impossible, or the cursor is of another query.
        """
        wanted = PeopleQuery(collection, query, external_id, sort)
        with self._pool.connection(deadline) as connection, connection.cursor() as database:
            return listing.page(database, wanted, limit, cursor, min_revision)

    def person(
        self, person_id: str, deadline: Deadline, *, collection: str | None = None, min_revision: int = 0
    ) -> PersonDetails:
        """A person and the faces stored, oldest first; with `collection`, only if the person is in it.

        Raises:
            PersonNotFound
            GalleryBehind: the person's collection is not at `min_revision` yet; or, where nobody of that id is found,
                a collection that the person may be in (any, without `collection`).
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return people.look_up(cursor, person_id, collection, min_revision)

    def change_person(
        self,
        person_id: str,
        values: Mapping[str, Any],
        deadline: Deadline,
        *,
        collection: str | None = None,
        only_if: Condition | None = None,
    ) -> tuple[PersonDetails, int]:
        """Set a person's `name`, `external_id` (None: none) or `metadata`, all that is given; with the new revision.

        Raises:
            PersonNotFound, PreconditionFailed
            Conflict: the name or the external id is another person's.
            InvalidRequest: there is nothing to change, or a value cannot be stored.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return people.change(cursor, person_id, values, collection, only_if)

    def merge_people(
        self,
        person_id: str,
        into: str,
        deadline: Deadline,
        *,
        collection: str | None = None,
        only_if: Condition | None = None,
    ) -> Merger:
        """Give all that is held on a person to the person `into`; the former is no more.

        Of a photo that both have, the later face is kept. Rejections that contradict a face of the other are dropped.
        Where `into` has no external_id or no metadata, the other's is taken over.

        Raises:
            PersonNotFound, PreconditionFailed
            InvalidRequest: both are the same person.
            Conflict: they are in different collections, both have an external id, or too many rejections together.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return merging.merge(cursor, person_id, into, collection, only_if)

    def remove_face(
        self,
        person_id: str,
        face_id: str,
        deadline: Deadline,
        *,
        collection: str | None = None,
        only_if: Condition | None = None,
    ) -> tuple[PersonDetails, int]:
        """Delete a face, the last one too: the person stays, unknown to recognition. With the new revision.

        Raises:
            PersonNotFound, FaceNotFound, PreconditionFailed
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return people.remove_face(cursor, person_id, face_id, collection, only_if)

    def require_person(self, person_id: str, deadline: Deadline, *, collection: str | None = None) -> str:
        """The person's id in its usual spelling; with `collection`, only if the person is in it.

        Raises:
            PersonNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return people.require(cursor, person_id, collection)

    def home(self, person_id: str, idempotency: Idempotency | None, deadline: Deadline) -> str:
        """The collection of a person, even of one who was merged into another after this very request was answered.

        Raises:
            PersonNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return people.home(cursor, person_id, idempotency)

    def delete_person(
        self, person_id: str, deadline: Deadline, *, collection: str | None = None, only_if: Condition | None = None
    ) -> Erasure:
        """Erase all that is held on a person; with `collection`, only if the person is in it.

        Raises:
            PersonNotFound, PreconditionFailed
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return people.erase(cursor, person_id, collection, only_if)

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

    def rejections(
        self, person_id: str, deadline: Deadline, *, collection: str | None = None, min_revision: int = 0
    ) -> tuple[Rejection, ...]:
        """A person's rejections, oldest first; with `collection`, only if the person is in it.

        Raises:
            PersonNotFound, GalleryBehind
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return rejections.of_person(cursor, person_id, collection, min_revision)

    def undo_rejection(
        self, person_id: str, rejection_id: str, deadline: Deadline, *, collection: str | None = None
    ) -> int:
        """Take a rejection back; returns the collection's revision.

        Raises:
            PersonNotFound, RejectionNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return rejections.undo(cursor, person_id, rejection_id, collection)
