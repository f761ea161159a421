"""API keys: who holds one may do what its scopes say, in its collection or in all.

A key reads `rk_<id>_<secret>`. The id is public; of the secret (256 random bits) only the SHA-256 is
kept, which is enough for a secret that nobody can guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound, InvalidRequest, NotFound
from recognizer.gallery.names import comparable, tidy
from recognizer.gallery.pool import Pool

SCOPES = ("recognize", "enroll", "admin")
"""What a key may allow; `admin` includes the others."""

KEY = re.compile(r"rk_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key; never its secret. `collection` is None for a key to all collections."""

    id: str
    label: str
    scopes: tuple[str, ...]
    collection: str | None
    created_at: datetime
    revoked_at: datetime | None

    def allows(self, scope: str) -> bool:
        """Whether the key's holder may do what needs `scope`."""
        return scope in self.scopes or "admin" in self.scopes


class Keys:
    """The API keys in the database; safe to use from many threads.

    Every method may raise `DatabaseUnavailable` and, where it takes a deadline, `DeadlineExceeded`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def create(
        self,
        *,
        scopes: Iterable[str],
        collection: str | None = None,
        label: str = "",
        deadline: Deadline | None = None,
    ) -> tuple[KeyRecord, str]:
        """Make a key; the second value is the key itself, which cannot be had again.

        Raises:
            InvalidRequest: a scope is unknown, there is none, or the label is no plain text.
            CollectionNotFound
        """
        wanted = set(scopes)
        if not wanted or not wanted.issubset(SCOPES):
            raise InvalidRequest(f"The scopes of a key are one or more of {', '.join(SCOPES)}.")
        label = tidy(label, "label") if label else ""
        key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            collection_id = None if collection is None else _collection_id(cursor, collection)
            cursor.execute(
                "INSERT INTO api_keys (id, secret_sha256, label, scopes, collection_id) VALUES (%s, %s, %s, %s, %s)",
                (key_id, _sha256(secret), label, [scope for scope in SCOPES if scope in wanted], collection_id),
            )
            cursor.execute(SELECT_ONE, (key_id,))
            _, *record = cursor.fetchall()[0]
        return _record(record), f"rk_{key_id}_{secret}"

    def list(self, deadline: Deadline | None = None) -> list[KeyRecord]:
        """All keys, the revoked ones too, oldest first."""
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute(SELECT_ALL)
            return [_record(record) for _, *record in cursor.fetchall()]

    def revoke(self, key_id: str, deadline: Deadline | None = None) -> None:
        """End a key's validity; a revoked key stays as it is.

        Raises:
            NotFound: there is no such key.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s", (comparable(key_id),)
            )
            if not cursor.rowcount:
                raise NotFound("There is no key with this id; `keys list` shows them all.")

    def verify(self, presented: str, deadline: Deadline | None = None) -> KeyRecord | None:
        """The record of the key that somebody presents, or None when it is not valid."""
        key = KEY.fullmatch(presented)
        if key is None:
            return None
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute(SELECT_ONE, (key[1],))
            row = cursor.fetchone()
        if row is None:
            return None
        stored, *record = row
        found = _record(record)
        is_right = hmac.compare_digest(bytes(stored), _sha256(key[2]))
        return found if is_right and found.revoked_at is None else None

    def any_created(self, deadline: Deadline | None = None) -> bool:
        """Whether there has ever been a key; to revoke the last one opens the service to nobody."""
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM api_keys)")
            return bool(cursor.fetchall()[0][0])

    def any_active(self, deadline: Deadline | None = None) -> bool:
        """Whether there is a key that is not revoked."""
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM api_keys WHERE revoked_at IS NULL)")
            return bool(cursor.fetchall()[0][0])


SELECT_ALL = """
    SELECT key.secret_sha256, key.id, key.label, key.scopes, collection.name, key.created_at, key.revoked_at
    FROM api_keys AS key LEFT JOIN collections AS collection ON collection.id = key.collection_id
    ORDER BY key.created_at, key.id
"""
SELECT_ONE = """
    SELECT key.secret_sha256, key.id, key.label, key.scopes, collection.name, key.created_at, key.revoked_at
    FROM api_keys AS key LEFT JOIN collections AS collection ON collection.id = key.collection_id
    WHERE key.id = %s
"""


def _record(row: Sequence[Any]) -> KeyRecord:
    key_id, label, scopes, collection, created_at, revoked_at = row
    return KeyRecord(key_id, label, tuple(scopes), collection, created_at, revoked_at)


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _collection_id(cursor: Cursor, name: str) -> int:
    cursor.execute("SELECT id FROM collections WHERE name_key = %s", (comparable(name),))
    row = cursor.fetchone()
    if row is None:
        raise CollectionNotFound(f"There is no collection `{name}`.")
    return int(row[0])
