"""API keys: who holds one may do what its scopes say, in its collection or in all, until it ends.

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
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound, Conflict, InvalidRequest, KeyNotFound
from recognizer.gallery import audit
from recognizer.gallery.names import comparable, tidy
from recognizer.gallery.pool import Pool
from recognizer.gallery.recent import Recent

SCOPES = ("recognize", "enroll", "admin")
"""What a key may allow; `admin` includes the others."""

MAX_DAYS = 3650
LONGEST_VALIDITY = timedelta(days=MAX_DAYS)

KEY = re.compile(r"rk_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
ID = re.compile(r"[0-9a-f]{16}", re.ASCII)

NOBODYS_SHA256 = hashlib.sha256(secrets.token_bytes(32)).digest()
"""Compared with where there is no key of that id, so that a refusal takes as long either way."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key; never its secret. `collection` is None for a key to all collections, and for a revoked
    one to a collection that has been deleted."""

    id: str
    label: str
    scopes: tuple[str, ...]
    collection: str | None
    created_at: datetime
    revoked_at: datetime | None
    expires_at: datetime | None
    rotated_at: datetime | None
    last_used_at: datetime | None

    def allows(self, scope: str) -> bool:
        """Whether the key's holder may do what needs `scope`."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def is_valid(self) -> bool:
        """Whether the key opens anything at this moment."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > datetime.now(UTC))


class Keys:
    """The API keys in the database; safe to use from many threads.

    Every method may raise `DatabaseUnavailable` and, where it takes a deadline, `DeadlineExceeded`. With
    `collection`, a method sees the keys of that collection alone.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._valid: Recent[KeyRecord] = Recent(pool.has_answered)
        self._none_created: Recent[Literal[True]] = Recent(pool.has_answered)

    def create(
        self,
        *,
        scopes: Iterable[str],
        collection: str | None = None,
        label: str = "",
        expires_at: datetime | None = None,
        deadline: Deadline | None = None,
    ) -> tuple[KeyRecord, str]:
        """Make a key; the second value is the key itself, which cannot be had again.

        Raises:
            InvalidRequest: a scope is unknown, there is none, the label is no plain text, or the end is impossible.
            CollectionNotFound
        """
        wanted = set(scopes)
        if not wanted or not wanted.issubset(SCOPES):
            raise InvalidRequest(f"The scopes of a key are one or more of {', '.join(SCOPES)}.")
        label = tidy(label, "label") if label else ""
        _check_end(expires_at)
        key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO api_keys (id, secret_sha256, label, scopes, collection_id, expires_at)
                VALUES (%s, %s, %s, %s, %s, %s)
                """,
                (
                    key_id,
                    _sha256(secret),
                    label,
                    [scope for scope in SCOPES if scope in wanted],
                    None if collection is None else _collection_id(cursor, collection),
                    expires_at,
                ),
            )
            record = _find(cursor, key_id)
            _tell(cursor, "key_created", record)
            return record, _written(key_id, secret)

    def list(self, deadline: Deadline | None = None, *, collection: str | None = None) -> list[KeyRecord]:
        """All keys, those that have ended too, oldest first."""
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"{SELECT} WHERE coalesce(%s, collection.name_key, '') = coalesce(collection.name_key, '') "
                "ORDER BY key.created_at, key.id",
                (None if collection is None else comparable(collection),),
            )
            return [_record(row) for row in cursor.fetchall()]

    def rotate(
        self,
        key_id: str,
        deadline: Deadline | None = None,
        *,
        expires_at: datetime | None = None,
        collection: str | None = None,
    ) -> tuple[KeyRecord, str]:
        """Give a key a new secret; the old one is not valid any more. The second value is the key as in `create`.

        `expires_at`: its new end; None leaves it as it is.

        Raises:
            KeyNotFound
            Conflict: the key is revoked, or has expired and gets no new end.
            InvalidRequest: the end is impossible.
        """
        _check_end(expires_at)
        secret = secrets.token_hex(32)
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            record = _find(cursor, key_id, collection, lock=True)
            if record.revoked_at is not None:
                raise Conflict("This key is revoked, which is for good; create another one.")
            if expires_at is None and not record.is_valid:
                raise Conflict("This key has expired; say how long it shall be valid from now on.")
            cursor.execute(
                """
                UPDATE api_keys SET secret_sha256 = %s, rotated_at = now(), expires_at = coalesce(%s, expires_at)
                WHERE id = %s
                """,
                (_sha256(secret), expires_at, record.id),
            )
            record = _find(cursor, record.id)
            _tell(cursor, "key_rotated", record)
            return record, _written(record.id, secret)

    def revoke(self, key_id: str, deadline: Deadline | None = None, *, collection: str | None = None) -> KeyRecord:
        """End a key's validity; a revoked key stays as it is.

        Raises:
            KeyNotFound
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            record = _find(cursor, key_id, collection, lock=True)
            if record.revoked_at is None:
                cursor.execute("UPDATE api_keys SET revoked_at = now() WHERE id = %s", (record.id,))
                record = _find(cursor, record.id)
                _tell(cursor, "key_revoked", record)
            return record

    def verify(self, presented: str, deadline: Deadline | None = None, *, may_recall: bool = False) -> KeyRecord | None:
        """The record of the key that somebody presents, or None when it is not valid.

        What is written like a key takes the same query and comparison, whether or not there is one of its id.
        With `may_recall`, a key that the database found valid within the last minute is so while it is away.
        """
        key = KEY.fullmatch(presented)
        if key is None:
            return None
        key_id, sha256 = key[1], _sha256(key[2])
        record = self._valid.ask(
            f"{key_id} {sha256.hex()}",
            lambda limit: self._look_up(key_id, sha256, limit),
            deadline,
            may_recall=may_recall,
        )
        return record if record and record.is_valid else None

    def _look_up(self, key_id: str, sha256: bytes, deadline: Deadline | None) -> KeyRecord | None:
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute(PRESENTED, (key_id, NOBODYS_SHA256))
            stored, *row = cursor.fetchall()[0]
        if not hmac.compare_digest(bytes(stored), sha256):
            return None
        record = _record(row)
        return record if record.id == key_id and record.is_valid else None

    def any_created(self, deadline: Deadline | None = None, *, may_recall: bool = False) -> bool:
        """Whether there has ever been a key; to revoke the last one opens the service to nobody.

        With `may_recall`, there is none while the database is away, if there was none within the last minute.
        """
        return not self._none_created.ask("", self._is_empty, deadline, may_recall=may_recall)

    def _is_empty(self, deadline: Deadline | None) -> Literal[True] | None:
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT NOT EXISTS (SELECT FROM api_keys)")
            return cursor.fetchall()[0][0] or None

    def any_active(self, deadline: Deadline | None = None) -> bool:
        """Whether there is a key that is valid."""
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT EXISTS (
                    SELECT FROM api_keys WHERE revoked_at IS NULL AND coalesce(expires_at > now(), true)
                )
                """
            )
            return bool(cursor.fetchall()[0][0])


SELECT = """
    SELECT key.id, key.label, key.scopes, collection.name, key.created_at, key.revoked_at, key.expires_at,
           key.rotated_at, key.last_used_at
    FROM api_keys AS key LEFT JOIN collections AS collection ON collection.id = key.collection_id
"""
PRESENTED = """
    SELECT key.secret_sha256, key.id, key.label, key.scopes, collection.name, key.created_at, key.revoked_at,
           key.expires_at, key.rotated_at, key.last_used_at
    FROM api_keys AS key LEFT JOIN collections AS collection ON collection.id = key.collection_id
    WHERE key.id = %s
    UNION ALL SELECT %s, '', '', '{recognize}', NULL, now(), NULL, NULL, NULL, NULL
    ORDER BY id DESC LIMIT 1
"""
"""The key of that id, or nobody's, which is as much to fetch and to read."""


def _tell(cursor: Cursor, action: audit.Action, key: KeyRecord) -> None:
    """Tell of a key in the audit trail, without its label, which may be somebody's name."""
    expires = None if key.expires_at is None else key.expires_at.astimezone(UTC).isoformat()
    audit.append(cursor, action, collection=key.collection, key=key.id, scopes=list(key.scopes), expires_at=expires)


def _check_end(expires_at: datetime | None) -> None:
    now = datetime.now(UTC)
    if expires_at is not None and not now < expires_at <= now + LONGEST_VALIDITY:
        raise InvalidRequest(f"A key expires in the future, {MAX_DAYS} days from now at most.")


def _find(cursor: Cursor, key_id: str, collection: str | None = None, *, lock: bool = False) -> KeyRecord:
    if not ID.fullmatch(key_id):
        raise KeyNotFound(NO_SUCH_KEY)
    cursor.execute(
        f"{SELECT} WHERE key.id = %s AND coalesce(%s, collection.name_key, '') = coalesce(collection.name_key, '')"
        + (" FOR UPDATE OF key" if lock else ""),
        (key_id, None if collection is None else comparable(collection)),
    )
    row = cursor.fetchone()
    if row is None:
        raise KeyNotFound(NO_SUCH_KEY)
    return _record(row)


NO_SUCH_KEY = "There is no key with this id; the list of keys shows them all."


def _record(row: Sequence[Any]) -> KeyRecord:
    key_id, label, scopes, *rest = row
    return KeyRecord(key_id, label, tuple(scopes), *rest)


def _written(key_id: str, secret: str) -> str:
    return f"rk_{key_id}_{secret}"


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _collection_id(cursor: Cursor, name: str) -> int:
    cursor.execute("SELECT id FROM collections WHERE name_key = %s FOR KEY SHARE", (comparable(name),))
    row = cursor.fetchone()
    if row is None:
        raise CollectionNotFound(f"There is no collection `{name[:100]}`.")
    return int(row[0])
