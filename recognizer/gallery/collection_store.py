"""The gallery's collections themselves. Every write is one transaction."""

from __future__ import annotations

from collections.abc import Mapping

from recognizer.deadline import Deadline
from recognizer.gallery import collections
from recognizer.gallery.collections import Collection, CollectionErasure, CollectionOverview, Value
from recognizer.gallery.pool import Pool
from recognizer.gallery.versions import Condition


class CollectionStore:
    """Collections in PostgreSQL; what `store.Gallery` says of its methods holds for these."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def require_key(self) -> None:
        """See to it that something can be stored encrypted.

        Raises:
            EncryptionKeyMissing: there is no key to encrypt it with.
        """
        self._pool.keyring.require()

    def collection(self, name: str, deadline: Deadline, *, min_revision: int = 0) -> Collection:
        """Look a collection up.

        Raises:
            CollectionNotFound
            GalleryBehind: it is not at `min_revision` yet.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return collections.find(cursor, name, min_revision)

    def collections(self, deadline: Deadline, *, only: str | None = None) -> list[CollectionOverview]:
        """All collections by name, or just the one called `only`, each with how much it holds."""
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return collections.overviews(cursor, only)

    def collection_overview(self, name: str, deadline: Deadline, *, min_revision: int = 0) -> CollectionOverview:
        """A collection and how much it holds.

        Raises:
            CollectionNotFound
            GalleryBehind: it is not at `min_revision` yet.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return collections.overview(cursor, name, min_revision)

    def create_collection(self, name: str, values: Mapping[str, Value], deadline: Deadline) -> CollectionOverview:
        """Make a collection, with the `values` that `change_collection` sets.

        Raises:
            Conflict: there is one of that name.
            InvalidRequest: the name or a value is impossible.
            EncryptionKeyMissing: it shall keep photos or encrypt embeddings, and there is no key to encrypt with.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            return collections.create(cursor, name, values)

    def change_collection(
        self, name: str, values: Mapping[str, Value], deadline: Deadline, *, only_if: Condition | None = None
    ) -> CollectionOverview:
        """Set one or more of `collections.CHANGEABLE`; None: the default. Without `keep_photos` those kept are erased.

        With `encrypt_embeddings` all that is stored is converted, so long as nobody else writes to the collection.

        Raises:
            CollectionNotFound, PreconditionFailed
            InvalidRequest: there is nothing to change, or a value is impossible.
            Conflict: there is too much to convert.
            EncryptionKeyMissing: there is no key to encrypt with what is to be kept, or an embedding needs one that is
                not here.
            SealBroken: an embedding was changed since it was encrypted.
        """
        with self._pool.connection(deadline, is_long=True) as connection, connection.cursor() as cursor:
            return collections.change(cursor, name, values, only_if)

    def delete_collection(
        self, name: str, deadline: Deadline, *, only_if: Condition | None = None
    ) -> CollectionErasure:
        """Erase a collection with all in it and revoke the keys to it; `default` is only emptied.

        Raises:
            CollectionNotFound, PreconditionFailed
        """
        with self._pool.connection(deadline, is_long=True) as connection, connection.cursor() as cursor:
            return collections.erase(cursor, name, only_if)
