"""Retention: who has had no new photo for longer than their collection keeps people is erased, as by a request.

The clock is the database's. Somebody without any photo counts from when they were made. A keeper in each worker, of
replicas too, looks every hour; whoever holds the lock does the work.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple, Self

from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound, RecognizerError
from recognizer.gallery import audit, collections, people
from recognizer.gallery.names import comparable
from recognizer.gallery.pool import Pool
from recognizer.gallery.turns import lock_collection

LOGGER = logging.getLogger(__name__)

LOCK_ID = 0x726574656E74696F
BATCH = 20
"""So many people are erased in one transaction, in which nobody else can write to their collection."""

BATCH_SECONDS = 60.0
REST = 1.0
"""For each second of work so many of rest: the work may take half of one core of the database."""

FIRST_SECONDS = 30.0
EVERY_SECONDS = 3600.0

STOP_SECONDS = 5.0
"""So long an end waits for the batch under way; what it does is done altogether or not at all."""

PAGE = 1000

FIRST_ID = "00000000-0000-0000-0000-000000000000"

WITH_RETENTION = """
    SELECT name FROM collections
    WHERE coalesce(%(days)s, retention_days) IS NOT NULL AND coalesce(%(key)s, name_key) = name_key
    ORDER BY name_key
"""

# By id, so that one sweep looks at everybody once; `only` are those who are looked at again.
DUE = """
    SELECT person.id, person.name, latest.at,
           extract(day FROM now() - latest.at)::integer - coalesce(%(days)s, collection.retention_days)
    FROM people AS person
    JOIN collections AS collection ON collection.id = person.collection_id
    CROSS JOIN LATERAL (
        SELECT coalesce(max(created_at), person.created_at) AS at FROM faces WHERE person_id = person.id
    ) AS latest
    WHERE collection.name_key = %(key)s AND person.id > %(after)s
      AND coalesce(person.id = ANY (%(only)s::uuid[]), true)
      AND latest.at < now() - make_interval(days => coalesce(%(days)s, collection.retention_days))
    ORDER BY person.id LIMIT %(rows)s
"""


class Due(NamedTuple):
    """A person whose time is over: when their latest photo was enrolled, and for how many whole days it is over."""

    person_id: str
    name: str
    latest: datetime
    days_over: int


def collections_with_retention(
    pool: Pool, deadline: Deadline, only: str | None = None, days: int | None = None
) -> list[str]:
    """The names of the collections that keep people for a time, or just `only`; with `days`, as if all did.

    Raises:
        CollectionNotFound: there is none that is called `only`.
    """
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        if only is not None:
            collections.find(cursor, only)
        cursor.execute(WITH_RETENTION, {"days": days, "key": None if only is None else comparable(only)})
        return [name for (name,) in cursor.fetchall()]


def due(pool: Pool, collection: str, days: int | None = None) -> Iterator[Due]:
    """Whose time is over in a collection, or would be with so many `days`; of which the audit trail tells."""
    found, after = 0, FIRST_ID
    while True:
        with pool.connection(Deadline(BATCH_SECONDS), is_long=True) as connection, connection.cursor() as cursor:
            page = _due(cursor, collection, days=days, after=after, rows=PAGE)
            found += len(page)
            if len(page) < PAGE:
                audit.append(cursor, "listed", collection=collection, people=found)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].person_id


def erase_due(pool: Pool, collection: str, stop: threading.Event) -> int | None:
    """Erase whose time is over in a collection, and return how many they were; None: somebody else is at it."""
    erased, after = 0, FIRST_ID
    while not stop.is_set():
        deadline = Deadline(BATCH_SECONDS)
        with pool.connection(deadline, is_long=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK_ID,))
            if cursor.fetchone() == (False,):
                return None
            page = _due(cursor, collection, after=after)
            if page:
                erased += _erase(cursor, collection, [each.person_id for each in page])
        if len(page) < BATCH:
            return erased
        after = page[-1].person_id
        stop.wait((BATCH_SECONDS - deadline.remaining_seconds()) * REST)
    return erased


def _erase(cursor: Cursor, collection: str, ids: list[str]) -> int:
    """Erase those of these people whose time is over still, now that nobody can enrol them."""
    collection_id = lock_collection(cursor, collection)
    still = _due(cursor, collection, only=ids)
    erasures = [people.erase_locked(cursor, each.person_id, collection_id) for each in still]
    for erasure in erasures:
        people.tell_of_erasure(cursor, "expired", erasure, collection_id)
    return len(erasures)


def _due(
    cursor: Cursor,
    collection: str,
    *,
    days: int | None = None,
    after: str = FIRST_ID,
    only: list[str] | None = None,
    rows: int = BATCH,
) -> list[Due]:
    asked = {"key": comparable(collection), "days": days, "after": after, "only": only, "rows": rows}
    cursor.execute(DUE, asked)
    return [Due(*row) for row in cursor.fetchall()]


class RetentionKeeper:
    """Does that from a thread of its own while entered."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        pause = FIRST_SECONDS
        with audit.acting("retention"):
            while not self._stop.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311 (not all workers at once)
                self.sweep()
                pause = EVERY_SECONDS

    def sweep(self) -> None:
        """Look at all collections once; one that fails keeps none of the others."""
        names: list[str] = []
        with _going_on():
            names = collections_with_retention(self._pool, Deadline(BATCH_SECONDS))
        for collection in names:
            with _going_on(), suppress(CollectionNotFound):  # deleted meanwhile, with all in it
                if erased := erase_due(self._pool, collection, self._stop):
                    LOGGER.info("retention", extra={"collection": collection, "erased": erased})


@contextmanager
def _going_on() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever it is, it passes or somebody reads this; we go on
        LOGGER.warning(
            "People whose time is over cannot be erased; trying again within the hour: %s",
            error,
            exc_info=not isinstance(error, RecognizerError),  # what nobody has thought of
        )
