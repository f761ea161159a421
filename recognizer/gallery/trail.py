"""The audit trail, read: page by page, by whoever wants to know what happened."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Composable

from recognizer.deadline import Deadline
from recognizer.errors import InvalidRequest
from recognizer.gallery import cursors
from recognizer.gallery.audit import Entry, subject_of
from recognizer.gallery.names import comparable
from recognizer.gallery.pool import Pool

MAX_PAGE = 1000

COLUMNS = SQL("number, at, actor, action, collection, subject, detail, request_id, hash")

PAGE = SQL("SELECT {columns} FROM audit WHERE {conditions} ORDER BY number {direction} LIMIT %s")

# A collection is found by any spelling of its name, and by its own when it is no more.
OF_COLLECTION = SQL("collection = coalesce((SELECT name FROM collections WHERE name_key = %s), %s)")

EVERYTHING = SQL("true")


class KeptEntry(NamedTuple):
    """An entry and the hash that is stored with it, (32) bytes."""

    entry: Entry
    hash: bytes


@dataclass(frozen=True, slots=True)
class TrailQuery:
    """Which entries: what happened in that collection, to that person, of that kind, by that actor, in that time.

    None: whichever. `until` is the first moment that is not meant any more.
    """

    collection: str | None = None
    person_id: str | None = None
    action: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def digest(self) -> str:
        """What binds a cursor to this query."""
        moments = [at and at.isoformat() for at in (self.since, self.until)]
        where = None if self.collection is None else comparable(self.collection)
        asked = [where, self.person_id and _subject(self.person_id).hex(), self.action, self.actor, *moments]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    def conditions(self) -> tuple[list[Composable], list[Any]]:
        """The same in SQL, with arguments."""
        conditions: list[Composable] = [EVERYTHING]
        arguments: list[Any] = []
        if self.collection is not None:
            conditions.append(OF_COLLECTION)
            arguments += [comparable(self.collection), self.collection]
        for condition, value in (
            (SQL("subject = %s"), None if self.person_id is None else _subject(self.person_id)),
            (SQL("action = %s"), self.action),
            (SQL("actor = %s"), self.actor),
            (SQL("at >= %s"), self.since),
            (SQL("at < %s"), self.until),
        ):
            if value is not None:
                conditions.append(condition)
                arguments.append(value)
        return conditions, arguments


class Trail:
    """The audit trail in the database; safe to use from many threads.

    Every method may raise `DatabaseUnavailable` and `DeadlineExceeded`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def page(
        self, query: TrailQuery, limit: int, cursor: str | None, deadline: Deadline
    ) -> tuple[list[KeptEntry], str | None]:
        """A page of entries, the newest first, and the cursor of the next page.

        Raises:
            InvalidRequest: the limit, the person's id or the cursor is impossible, or the cursor is of another query.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"`limit` must be from 1 to {MAX_PAGE}.")
        before = None if cursor is None else _place(cursor, query)
        with self._pool.connection(deadline) as connection, connection.cursor() as database:
            found = _read(database, query, limit + 1, before=before)
        if len(found) <= limit:
            return found, None
        return found[:limit], cursors.written(query.digest(), [found[limit - 1].entry.number])

    def entries(self, query: TrailQuery, page_seconds: float) -> Iterator[KeptEntry]:
        """All entries, the oldest first, read a page at a time, each within `page_seconds`."""
        after = 0
        while True:
            with self._pool.connection(Deadline(page_seconds)) as connection, connection.cursor() as database:
                page = _read(database, query, MAX_PAGE, after=after)
            yield from page
            if len(page) < MAX_PAGE:
                return
            after = page[-1].entry.number


def _read(
    cursor: Cursor, query: TrailQuery, rows: int, *, before: int | None = None, after: int | None = None
) -> list[KeptEntry]:
    """So many entries before a number, the newest first, or after one, the oldest first."""
    conditions, arguments = query.conditions()
    for condition, number in ((SQL("number < %s"), before), (SQL("number > %s"), after)):
        if number is not None:
            conditions.append(condition)
            arguments.append(number)
    direction = SQL("DESC" if after is None else "ASC")
    page = PAGE.format(columns=COLUMNS, conditions=SQL(" AND ").join(conditions), direction=direction)
    cursor.execute(page, [*arguments, rows])
    return [kept(row) for row in cursor.fetchall()]


def kept(row: tuple[Any, ...]) -> KeptEntry:
    """The entry of a row with `COLUMNS`."""
    *members, stored = row
    entry = Entry(*members)
    subject = None if entry.subject is None else bytes(entry.subject)
    return KeptEntry(entry._replace(subject=subject), bytes(stored))


def _subject(person_id: str) -> bytes:
    try:
        return subject_of(str(uuid.UUID(person_id)))
    except ValueError as error:
        raise InvalidRequest("`person_id` must be the id of a person, as this service gives it.") from error


def _place(given: str, query: TrailQuery) -> int:
    place = cursors.place(given, query.digest())
    if len(place) != 1 or type(place[0]) is not int or not 0 < place[0] < 2**63:
        raise InvalidRequest(cursors.NOT_OURS)
    return int(place[0])
