"""Turns all that is stored of a collection's embeddings into the other form, when the collection is switched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values
from psycopg2.sql import SQL, Composed, Identifier

from recognizer.errors import Conflict
from recognizer.gallery import sealing
from recognizer.gallery.connection import keyring_of
from recognizer.gallery.sealing import Table

MAX_FACES = 20_000
"""So many faces are converted by one request: some seconds' work, in which nobody else writes to the collection."""

MAX_PEOPLE_TO_INDEX = 3_000
"""And when they become plain, those of so many people, of whom each takes milliseconds to get into the index."""

BATCH = 1_000

NEW_REVISION = SQL(
    ", revision = (SELECT revision FROM collections WHERE id = collection_id AND new.sealed IS NOT NULL)"
)
"""A template has it where it is encrypted."""


def switch(cursor: Cursor, collection_id: int, *, encrypt: bool) -> None:
    """Convert all that a collection holds; the caller has its lock, and sets what is said of it.

    Raises:
        Conflict: it is too much.
        EncryptionKeyMissing, SealBroken
    """
    if sealing.is_encrypted(cursor, collection_id) == encrypt:
        return
    if encrypt:
        keyring_of(cursor).require()
    _require_few(cursor, collection_id, MAX_FACES if encrypt else MAX_PEOPLE_TO_INDEX)
    for table in sealing.TABLES:
        for rows in _batches(cursor, table, collection_id):
            _write(cursor, table, [_converted(cursor, table, row, encrypt) for row in rows])


def _require_few(cursor: Cursor, collection_id: int, max_people: int) -> None:
    cursor.execute(
        "SELECT (SELECT count(*) FROM faces WHERE collection_id = %(id)s),"
        " (SELECT count(*) FROM templates WHERE collection_id = %(id)s)",
        {"id": collection_id},
    )
    ((faces, people),) = cursor.fetchall()
    if faces > MAX_FACES or people > max_people:
        raise Conflict(
            f"This collection has {faces:,} faces of {people:,} people; in one go at most {MAX_FACES:,} faces are "
            f"encrypted, or decrypted those of {MAX_PEOPLE_TO_INDEX:,} people. Make a new collection with "
            "encrypt_embeddings as wanted, and `recognizer export` and `recognizer import` into it."
        )


def _batches(cursor: Cursor, table: Table, collection_id: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a collection: key, embedding, sealed."""
    names = {"table": Identifier(table.name), "key": _key(table), "first": Identifier(next(iter(table.key)))}
    list_all = SQL("SELECT DISTINCT {first} FROM {table} WHERE collection_id = %s").format(**names)
    cursor.execute(list_all, (collection_id,))
    ids = [row[0] for row in cursor.fetchall()]
    find = SQL("SELECT {key}, embedding, sealed FROM {table} WHERE {first} = ANY (%s::uuid[])").format(**names)
    for start in range(0, len(ids), BATCH):
        cursor.execute(find, (ids[start : start + BATCH],))
        yield cursor.fetchall()


def _converted(cursor: Cursor, table: Table, row: tuple[Any, ...], encrypt: bool) -> tuple[Any, ...]:
    *key, embedding, sealed = row
    place = table.place(*key)
    vector = sealing.read(cursor, place, embedding, sealed)
    return (*key, *sealing.stored(cursor, place, vector, encrypt))


def _write(cursor: Cursor, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Give rows, each with its key, new values of `embedding` and `sealed`."""
    same = SQL(" AND ").join(SQL("stored.{0} = new.{0}").format(Identifier(column)) for column in table.key)
    update = SQL("""
        UPDATE {table} AS stored SET embedding = new.embedding, sealed = new.sealed {also}
        FROM (VALUES %s) AS new ({key}, embedding, sealed) WHERE {same}
    """).format(
        table=Identifier(table.name),
        key=_key(table),
        same=same,
        also=NEW_REVISION if table.name == "templates" else SQL(""),
    )
    types = ", ".join(f"%s::{each}" for each in (*table.key.values(), table.plain, "bytea"))
    execute_values(cursor, update, rows, f"({types})", page_size=len(rows))


def _key(table: Table) -> Composed:
    return SQL(", ").join(Identifier(column) for column in table.key)
