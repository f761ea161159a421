"""Turns: writers to one collection wait for each other, and each counts one more revision of it."""

from __future__ import annotations

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL

from recognizer.errors import CollectionNotFound
from recognizer.gallery.names import comparable


def lock_collection(cursor: Cursor, name: str, *, to_delete: bool = False) -> int:
    """Wait for every other writer to this collection, and return the collection's internal id.

    All that a writer reads afterwards stays true until it commits, and revisions are committed in order. Of all locks
    this one is taken first, and nobody takes those of two collections; so no two writers wait for each other.

    Raises:
        CollectionNotFound
    """
    find = SQL("SELECT id FROM collections WHERE name_key = %s FOR {}")
    cursor.execute(find.format(SQL("UPDATE" if to_delete else "NO KEY UPDATE")), (comparable(name),))
    row = cursor.fetchone()
    if row is None:
        raise CollectionNotFound(f"There is no collection `{name[:100]}`.")
    return int(row[0])


def grow_revision(cursor: Cursor, collection_id: int) -> int:
    """Count one more change of the collection."""
    cursor.execute("UPDATE collections SET revision = revision + 1 WHERE id = %s RETURNING revision", (collection_id,))
    return int(cursor.fetchall()[0][0])
