"""The audit trail: who did what to whom, in a chain of hashes to which entries are only ever added.

An entry is written in the transaction of what it tells of, so there is neither without the other. It takes its turn
last, after all other locks, because everybody waits for the one before. A person is named by the SHA-256 of their id
alone: who knows the id finds their entries, and once it is erased everywhere the entries are nobody's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from psycopg2.extensions import cursor as Cursor

from recognizer.gallery.names import comparable

Action = Literal[
    "enrolled",
    "looked_up",
    "listed",
    "changed",
    "merged",
    "face_removed",
    "rejected",
    "rejection_undone",
    "exported",
    "imported",
    "re_embedded",
    "erased",
    "expired",
    "collection_created",
    "collection_changed",
    "collection_erased",
    "key_created",
    "key_rotated",
    "key_revoked",
    "re_encrypted",
    "backed_up",
    "restored",
    "scrubbed",
]
"""What is told of."""


class Actor(NamedTuple):
    """Who acts: an API key's id, "local", or a command; and in which request, if it is one."""

    name: str = "service"
    request_id: str | None = None


_SERVICE = Actor()
_ACTOR: ContextVar[Actor] = ContextVar("actor", default=_SERVICE)

# of the database's clock, which all workers share; to the microsecond, as it is stored
TAKE_TURN = """
    SELECT number, hash, clock_timestamp(), (SELECT name FROM collections WHERE name_key = %(key)s OR id = %(id)s)
    FROM audit_head FOR UPDATE
"""

APPEND = """
    WITH entry AS (
        INSERT INTO audit (number, at, actor, action, collection, subject, detail, request_id, hash)
        VALUES (%(number)s, %(at)s, %(actor)s, %(action)s, %(collection)s, %(subject)s, %(detail)s, %(request_id)s,
                %(hash)s)
    )
    UPDATE audit_head SET number = %(number)s, hash = %(hash)s
"""


class Entry(NamedTuple):
    """One entry of the trail; `subject` is the SHA-256 of a person's id, `detail` a JSON object as text."""

    number: int
    at: datetime
    actor: str
    action: str
    collection: str | None
    subject: bytes | None
    detail: str
    request_id: str | None

    def hash(self, before: bytes) -> bytes:
        """What ties the entry to the one before, whose hash is given: SHA-256 over that and all members."""
        members = (
            self.number,
            self.at.astimezone(UTC).isoformat(),
            self.actor,
            self.action,
            self.collection,
            None if self.subject is None else self.subject.hex(),
            self.detail,
            self.request_id,
        )
        return hashlib.sha256(before + json.dumps(members).encode()).digest()


@contextmanager
def acting(name: str, request_id: str | None = None) -> Iterator[None]:
    """Whatever is written to the trail inside of the block is by this actor."""
    token = _ACTOR.set(Actor(name, request_id))
    try:
        yield
    finally:
        _ACTOR.reset(token)


def append(
    cursor: Cursor,
    action: Action,
    *,
    person_id: str | None = None,
    collection: str | int | None = None,
    **detail: int | float | bool | str | list[str] | Mapping[str, int | float | bool | None] | None,
) -> None:
    """Add an entry, as the last thing before the commit.

    Args:
        person_id: whom it is about.
        collection: by its name in any spelling, or by its internal id as long as it is there.
        detail: numbers and words that help to understand it; never anything of a person.
    """
    name = None if collection is None or isinstance(collection, int) else collection
    internal_id = collection if isinstance(collection, int) else None
    cursor.execute(TAKE_TURN, {"key": None if name is None else comparable(name), "id": internal_id})
    ((number, before, at, known),) = cursor.fetchall()
    actor = _ACTOR.get()
    entry = Entry(
        number + 1,
        at,
        actor.name,
        action,
        name if known is None else known,
        None if person_id is None else subject_of(person_id),
        json.dumps(detail, sort_keys=True),
        actor.request_id,
    )
    cursor.execute(APPEND, {**entry._asdict(), "hash": entry.hash(bytes(before))})


def subject_of(person_id: str) -> bytes:
    """What stands in the trail for a person, of whose id the usual spelling is given."""
    return hashlib.sha256(person_id.encode()).digest()
