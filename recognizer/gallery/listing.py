"""Listing people: searched, filtered and sorted, page by page.

A page is read from an index at the place where the one before has ended, so that the last takes no longer than the
first. `query` alone looks at every name from there on until the page is full, for a part of a name has no place in an
index.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Composable, Identifier

from recognizer.errors import InvalidRequest
from recognizer.faces import Person
from recognizer.gallery import audit, collections, cursors
from recognizer.gallery.names import comparable, tidy

MAX_PAGE = 1000


class Order(NamedTuple):
    """What people are sorted by: columns that no two people have the same values of, and in which direction."""

    columns: tuple[str, ...]
    descending: bool = False


BY_NAME, BY_AGE = ("name_key",), ("created_at", "id")
ORDERS = {
    "name": Order(BY_NAME),
    "-name": Order(BY_NAME, descending=True),
    "created_at": Order(BY_AGE),
    "-created_at": Order(BY_AGE, descending=True),
}

PAGE = SQL("""
    SELECT id, name, external_id, metadata, created_at, name_key,
           (SELECT count(*) FROM faces WHERE faces.person_id = people.id)
    FROM people
    WHERE {conditions}
    ORDER BY {columns}
    LIMIT %s
""")


@dataclass(frozen=True, slots=True)
class PeopleQuery:
    """Whom to list: whose name contains `text`, or who has that `external_id`, and how they are sorted (`ORDERS`)."""

    collection: str
    text: str = ""
    external_id: str | None = None
    sort: str = "name"

    def digest(self) -> str:
        """What binds a cursor to this query."""
        external_id = None if self.external_id is None else tidy(self.external_id, "external_id")
        asked = [comparable(self.collection), comparable(self.text), external_id, self.sort]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def page(
    cursor: Cursor, query: PeopleQuery, limit: int, after: str | None, min_revision: int
) -> tuple[list[Person], str | None]:
    """One page of people and the cursor of the next; `Gallery.people` says what it promises and raises."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"`limit` must be from 1 to {MAX_PAGE}.")
    if query.sort not in ORDERS:
        raise InvalidRequest(f"`sort` must be one of {', '.join(ORDERS)}.")
    order = ORDERS[query.sort]
    place = None if after is None else _place(after, query, order)
    collection_id, found = collections.find_with_id(cursor, query.collection, min_revision)
    cursor.execute(*statement(query, collection_id, place, limit + 1))
    rows = cursor.fetchall()
    people = [
        Person(person_id, found.name, name, external_id, metadata, faces, created_at)
        for person_id, name, external_id, metadata, created_at, _, faces in rows[:limit]
    ]
    audit.append(cursor, "listed", collection=found.name, people=len(people))
    if len(rows) <= limit:
        return people, None
    person_id, *_, created_at, name_key, _ = rows[limit - 1]
    return people, cursors.written(
        query.digest(), [name_key] if order.columns == BY_NAME else [created_at.isoformat(), person_id]
    )


def statement(
    query: PeopleQuery, collection_id: int, place: list[str] | None, rows: int
) -> tuple[Composable, list[Any]]:
    """What reads that many rows beyond a place, a value for each column of the order, and its arguments."""
    order = ORDERS[query.sort]
    conditions: list[Composable] = [SQL("collection_id = %s")]
    arguments: list[Any] = [collection_id]
    if text := comparable(query.text):
        conditions.append(SQL("name_key LIKE %s"))
        arguments.append(f"%{_literally(text)}%")
    if query.external_id is not None:
        conditions.append(SQL("external_id = %s"))
        arguments.append(tidy(query.external_id, "external_id"))
    if place is not None:
        beyond = SQL("({}) < ({})" if order.descending else "({}) > ({})")
        values = SQL("%s::timestamptz, %s::uuid" if order.columns == BY_AGE else "%s")
        conditions.append(beyond.format(SQL(", ").join(map(Identifier, order.columns)), values))
        arguments += place
    direction = SQL(" DESC") if order.descending else SQL("")
    columns = SQL(", ").join(Identifier(column) + direction for column in order.columns)
    return PAGE.format(conditions=SQL(" AND ").join(conditions), columns=columns), [*arguments, rows]


def _literally(text: str) -> str:
    """`text` as a LIKE pattern that stands for nothing but itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _place(given: str, query: PeopleQuery, order: Order) -> list[str]:
    """After whom a cursor says to go on: a value for each column of the order.

    Raises:
        InvalidRequest: it is none of ours, or one of another query.
    """
    place = cursors.place(given, query.digest())
    try:
        if order.columns == BY_NAME:
            (name_key,) = place
            return [comparable(name_key)]
        created_at, person_id = place
        return [datetime.fromisoformat(created_at).astimezone(UTC).isoformat(), str(uuid.UUID(person_id))]
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InvalidRequest(cursors.NOT_OURS) from error
