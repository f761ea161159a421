"""Collections: the people who are compared with each other, and the rule by which they are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Identifier

from recognizer.errors import CollectionNotFound, InvalidRequest
from recognizer.gallery.names import comparable

CHANGEABLE = {"target_fpir": 1.0, "threshold": 2.0}
"""What can be set for a collection, and what it has to stay below; above 0 it has to be."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection, what is set for it (None: as in the settings), and how often its people have changed."""

    name: str
    threshold: float | None
    target_fpir: float | None
    revision: int


@dataclass(frozen=True, slots=True)
class CollectionOverview:
    """A collection and how much it holds."""

    collection: Collection
    people: int
    faces: int
    created_at: datetime


def find(cursor: Cursor, name: str) -> Collection:
    """Look a collection up; raises CollectionNotFound."""
    cursor.execute(
        "SELECT name, threshold, target_fpir, revision FROM collections WHERE name_key = %s", (comparable(name),)
    )
    row = cursor.fetchone()
    if row is None:
        raise CollectionNotFound(f"There is no collection `{name[:100]}`.")
    return Collection(*row)


def overviews(cursor: Cursor, only: str | None) -> list[CollectionOverview]:
    """All collections, or just the one called `only`, by name."""
    cursor.execute(
        """
        SELECT name, threshold, target_fpir, revision,
               (SELECT count(*) FROM people WHERE collection_id = collection.id),
               (SELECT count(*) FROM faces WHERE collection_id = collection.id),
               created_at
        FROM collections AS collection
        WHERE coalesce(%s, name_key) = name_key
        ORDER BY name_key
        """,
        (None if only is None else comparable(only),),
    )
    return [CollectionOverview(Collection(*row[:4]), *row[4:]) for row in cursor.fetchall()]


def overview(cursor: Cursor, name: str) -> CollectionOverview:
    """The collection of that name; raises CollectionNotFound."""
    found = overviews(cursor, name)
    if not found:
        raise CollectionNotFound(f"There is no collection `{name[:100]}`.")
    return found[0]


def change(cursor: Cursor, name: str, values: Mapping[str, float | None]) -> CollectionOverview:
    """Set what `values` names, None for what the settings say; `Gallery.change_collection` says what it raises.

    The revision stays: it counts changes of the people.
    """
    if not values:
        raise InvalidRequest(f"There is nothing to change; give one or more of {', '.join(CHANGEABLE)}.")
    for member, value in values.items():
        _check(member, value)
    columns = SQL(", ").join(SQL("{} = %s").format(Identifier(member)) for member in values)
    cursor.execute(
        SQL("UPDATE collections SET {} WHERE name_key = %s").format(columns), (*values.values(), comparable(name))
    )
    return overview(cursor, name)


def _check(member: str, value: float | None) -> None:
    if member not in CHANGEABLE:
        raise InvalidRequest(f"A collection has no `{member[:50]}` to change; it has {', '.join(CHANGEABLE)}.")
    below = CHANGEABLE[member]
    if value is not None and (isinstance(value, bool) or not 0 < value < below):
        raise InvalidRequest(f"`{member}` must be a number above 0 and below {below:.0f}, or null for the default.")
