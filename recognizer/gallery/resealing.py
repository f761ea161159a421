"""What is stored encrypted, key by key, and its encryption anew with the key in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2 import Binary
from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import SealBroken
from recognizer.gallery import audit, photos, sealing
from recognizer.gallery.connection import keyring_of
from recognizer.gallery.pool import Pool

BATCH = 50
"""Rows in one transaction: few enough that nobody waits long for one of them."""

BATCH_SECONDS = 60.0

Identity = tuple[str, ...]


@dataclass(frozen=True)
class Sealed:
    """A table that holds something encrypted, with one key in each row.

    Attributes:
        key_id: an SQL expression, the id of a row's key; NULL where nothing is encrypted.
        identity: the columns that tell rows apart.
        places: by column, where it was sealed for, from the row's identity.
    """

    table: str
    what: str
    key_id: str
    identity: tuple[str, ...]
    places: Mapping[str, Callable[..., str]]


SEALED_WITH = "encode(substring(sealed FROM 2 FOR 8), 'hex')"
"""The id of the key in a column `sealed`; there are indexes on just that."""

SEALED = (
    Sealed(
        table="photos",
        what="photos",
        key_id="key_id",
        identity=("face_id",),
        places={
            "photo": lambda face_id: photos.place("photo", face_id),
            "chip": lambda face_id: photos.place("chip", face_id),
        },
    ),
    *(
        Sealed(table.name, table.what, SEALED_WITH, tuple(table.key), {"sealed": table.place})
        for table in sealing.TABLES
    ),
)
"""Whatever comes to be stored encrypted is added here."""


class Batch(NamedTuple):
    """What came of some rows: the last one, how many are done, and those that cannot be decrypted."""

    last: Identity
    done: int
    damaged: tuple[Identity, ...]


def by_key(pool: Pool) -> dict[str, Counter[str]]:
    """How many rows need each key, by what they hold: `{"photos": {"5f1d…": 12}}`."""
    found = {}
    with pool.connection(Deadline(BATCH_SECONDS), is_long=True) as connection, connection.cursor() as cursor:
        for each in SEALED:
            cursor.execute(
                f"SELECT {each.key_id}, count(*) FROM {each.table} WHERE {each.key_id} IS NOT NULL GROUP BY 1"  # noqa: S608
            )
            found[each.what] = Counter(dict(cursor.fetchall()))
    return found


def needs_key(pool: Pool) -> bool:
    """Whether any collection keeps photos, or has its embeddings encrypted."""
    with pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM collections WHERE keep_photos OR encrypt_embeddings)")
        return bool(cursor.fetchall()[0][0])


def begin(pool: Pool, rows: int) -> None:
    """Tell of it in the audit trail, before anything is changed."""
    with pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
        audit.append(cursor, "re_encrypted", rows=rows, key=pool.keyring.ids[0])


def reseal_some(pool: Pool, sealed: Sealed, old: str, after: Identity | None) -> Batch | None:
    """Encrypt some rows anew that need the key `old`, in one transaction; None where there are no more after `after`.

    Rows that somebody else is at work on are passed over: nobody waits for us who holds what we want.

    Raises:
        EncryptionKeyMissing: the key `old` is not here.
    """
    names = ", ".join(sealed.identity)
    behind = f"AND ({names}) > ({', '.join(['%s'] * len(sealed.identity))})" if after else ""
    find = (
        f"SELECT {names} FROM {sealed.table} WHERE {sealed.key_id} = %s {behind}"  # noqa: S608
        f" ORDER BY {names} LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
    )
    done, damaged = 0, []
    with pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
        cursor.execute(find, (old, *(after or ())))
        rows = [tuple(str(part) for part in row) for row in cursor.fetchall()]
        for row in rows:
            try:
                _reseal(cursor, sealed, row)
                done += 1
            except SealBroken:
                damaged.append(row)
    return Batch(rows[-1], done, tuple(damaged)) if rows else None


def _reseal(cursor: Cursor, sealed: Sealed, row: Identity) -> None:
    is_row = " AND ".join(f"{name} = %s" for name in sealed.identity)
    cursor.execute(f"SELECT {', '.join(sealed.places)} FROM {sealed.table} WHERE {is_row}", row)  # noqa: S608
    (stored,) = cursor.fetchall()
    keyring, anew = keyring_of(cursor), []
    for place_of, data in zip(sealed.places.values(), stored, strict=True):
        place = place_of(*row)
        anew.append(Binary(keyring.seal(keyring.open(bytes(data), place), place)))
    columns = ", ".join(f"{name} = %s" for name in sealed.places)
    cursor.execute(f"UPDATE {sealed.table} SET {columns} WHERE {is_row}", (*anew, *row))  # noqa: S608
