"""Brings what is known of each person's cohort up to date, some people at a time.

How much a person's template is like the people around it changes a little with everybody who comes and goes. So each
figure is reckoned anew when the people of its space have changed more often than a tenth of their number since: with
fewer than ten people at once, and among many the figure is never older than a growth by a tenth, which moves it by
less than 0.005. What it is of a new person until then, `templates` says.

Workers, of replicas too, take turns: whoever holds the lock does the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values
from psycopg2.sql import SQL

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.errors import EncryptionKeyMissing, SealBroken
from recognizer.gallery.opened import Opened
from recognizer.gallery.pool import Pool
from recognizer.gallery.sealed_cohorts import Shut, around
from recognizer.gallery.search import INDEX, INDEXED, Limits, Size, breadth
from recognizer.gallery.template_index import is_missing

LOCK_ID = 0x636F686F727473
BATCH = 50
BATCH_SECONDS = 10.0

MAX_SHIFT = 0.15
SHIFT_PEOPLE = 30
"""How many people it takes until their likeness to each other counts half in the rule."""
SHIFT_RATE = 0.25
"""The rate at which strangers' scores are compared with those that the gallery's own people reach among each other.
A quarter, because relatives and people who were enrolled twice are no strangers to each other."""

OLD = SQL("seen < greatest(0, space.changes - space.people / 10)")

STALE = SQL("""
    SELECT space.id, space.people, space.faces, ({indexed}), space.changes,
           (SELECT encrypt_embeddings FROM collections WHERE id = space.collection_id)
    FROM spaces AS space
    WHERE EXISTS (SELECT FROM cohorts WHERE space_id = space.id AND {old}) AND space.id <> ALL (%(shut)s::bigint[])
    ORDER BY EXISTS (SELECT FROM cohorts WHERE space_id = space.id AND seen < 0) DESC, random()
    LIMIT 1
""").format(old=OLD, indexed=INDEXED)
"""One that has somebody to be found: new people first, and no space waits for another to be done with."""

STALE_PEOPLE = SQL("""
    SELECT person_id, made FROM cohorts JOIN spaces AS space ON space.id = space_id
    WHERE space_id = %(space_id)s AND {old}
    ORDER BY seen LIMIT %(batch)s
""").format(old=OLD)

STILL_OLD = SQL("""
    SELECT person_id FROM cohorts JOIN spaces AS space ON space.id = space_id
    WHERE space_id = %s AND {old} AND person_id = ANY (%s::uuid[])
""").format(old=OLD)

COHORTS = "SELECT person_id, likeness FROM cohorts WHERE space_id = %s AND person_id = ANY (%s::uuid[])"

COUNT_STALE = SQL("""
    SELECT count(*) FROM cohorts JOIN spaces AS space ON space.id = space_id
    WHERE {old} AND coalesce(space_id = %s, true)
""").format(old=OLD)

NEAREST = SQL("""
    SELECT stale.person_id, stale.made, template.embedding::vector, near.likeness, cohort.likeness
    FROM (
        SELECT person_id, made FROM cohorts JOIN spaces AS space ON space.id = space_id
        WHERE space_id = %(space_id)s AND {old}
        ORDER BY seen LIMIT %(batch)s
    ) AS stale
    JOIN templates AS template ON template.person_id = stale.person_id AND template.space_id = %(space_id)s
    LEFT JOIN LATERAL (
        SELECT person_id, -(found.embedding <#> template.embedding) AS likeness
        FROM (
            SELECT person_id, embedding FROM templates WHERE space_id = %(space_id)s
            ORDER BY {order} LIMIT %(near)s
        ) AS found
        WHERE person_id <> stale.person_id
    ) AS near ON true
    LEFT JOIN cohorts AS cohort ON cohort.person_id = near.person_id AND cohort.space_id = %(space_id)s
    ORDER BY stale.person_id, near.likeness DESC
""")
BY_FUNCTION, BY_INDEX = SQL("l2_distance(embedding, template.embedding)"), SQL("embedding <-> template.embedding")

# Whoever is being changed is left out, for the next time: who never waits for a row brings nobody into a deadlock.
UPDATE = """
    WITH new (person_id, space_id, made, likeness, rival, seen) AS (VALUES %s), free AS (
        SELECT person_id, space_id FROM cohorts JOIN new USING (person_id, space_id, made)
        FOR UPDATE OF cohorts SKIP LOCKED
    )
    UPDATE cohorts SET likeness = new.likeness, rival = new.rival, seen = new.seen
    FROM free JOIN new USING (person_id, space_id)
    WHERE cohorts.person_id = free.person_id AND cohorts.space_id = free.space_id
"""

RIVALS = """
    SELECT count(rival), percentile_cont(%s) WITHIN GROUP (ORDER BY rival) FROM cohorts WHERE space_id = %s
"""


class Person(NamedTuple):
    """A person whose figures are reckoned: the template, (128,), and those who are most like it."""

    id: str
    made: int
    template: evidence.Vector
    likenesses: list[float]
    cohorts: list[float | None]


def stale(pool: Pool, deadline: Deadline, space_id: int | None = None) -> int:
    """How many people's figures are older than is promised, in all spaces or in one."""
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        cursor.execute(COUNT_STALE, (space_id,))
        return int(cursor.fetchall()[0][0])


def bring_up_to_date(
    pool: Pool,
    deadline: Deadline,
    limits: Limits = Limits(),  # noqa: B008 (immutable)
    opened: Opened | None = None,
    shut: Shut | None = None,
) -> int:
    """Reckon the figures of some people whose are too old, and return how many there were: 0 when all are current.

    It is also 0 while another process is at work.

    Args:
        opened: where the embeddings of encrypted collections are kept decrypted; without it, they are for this call.
        shut: where those are noted that cannot be decrypted.

    Raises:
        EncryptionKeyMissing, SealBroken, DatabaseUnavailable, DeadlineExceeded
    """
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        if (row := _next_space(cursor, limits, shut)) is None or not _my_turn(cursor):
            return 0
        space_id, people, faces, indexed, changes, encrypted = row
        if encrypted:
            cursor.execute(STALE_PEOPLE, {"space_id": space_id, "batch": BATCH})
            old: dict[str, int] = dict(cursor.fetchall())
        else:
            found = _people(cursor, space_id, Size(people, faces, indexed), limits)
            done = _write(cursor, space_id, found, people, changes)
    if encrypted:
        try:
            done = _bring_opened(pool, opened or Opened(pool), space_id, old, changes, deadline)
        except (EncryptionKeyMissing, SealBroken):
            if shut:
                shut.note(space_id)
            raise
    if not stale(pool, deadline, space_id):
        with pool.connection(deadline) as connection, connection.cursor() as cursor:
            _shift(cursor, space_id)
    return done


def _next_space(cursor: Cursor, limits: Limits, shut: Shut | None) -> tuple[Any, ...] | None:
    left_alone = shut.spaces() if shut else []
    while True:
        cursor.execute(STALE, {"shut": left_alone})
        row: tuple[Any, ...] | None = cursor.fetchone()
        if row is None or row[-1] or not limits.by_index(Size(*row[1:4])) or not is_missing(cursor):
            return row
        left_alone.append(row[0])  # without the index each person would take too long; it is being made


def _my_turn(cursor: Cursor) -> bool:
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK_ID,))
    return cursor.fetchone() == (True,)


def _write(cursor: Cursor, space_id: int, found: Sequence[Person], people: int, changes: int) -> int:
    rows = [(person.id, space_id, person.made, *_figures(person, people), changes) for person in found]
    if rows:
        template = "(%s::uuid, %s::bigint, %s::bigint, %s::real, %s::real, %s::bigint)"
        execute_values(cursor, UPDATE, rows, template, page_size=len(rows))
    return len(rows)


def _bring_opened(
    pool: Pool, opened: Opened, space_id: int, old: Mapping[str, int], changes: int, deadline: Deadline
) -> int:
    """The same in an encrypted space, for the people in `old` as of when their templates were `made`.

    What is in memory is of that moment or later, so that whoever was made anew meanwhile is not found by `made`.
    """
    with opened.current(space_id, deadline, only_if=_my_turn) as (_, snapshot):
        if snapshot is None:
            return 0
        found = around(snapshot, old)
    wanted = {other for near in found.values() for other in near.others}
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        if not _my_turn(cursor):
            return 0
        cursor.execute(STILL_OLD, (space_id, list(found)))
        left = {person_id for (person_id,) in cursor.fetchall()}  # somebody else may have had a turn
        cursor.execute(COHORTS, (space_id, list(wanted)))
        cohort = dict(cursor.fetchall())
        people = [
            Person(
                person_id, old[person_id], near.template, near.likenesses, [cohort.get(each) for each in near.others]
            )
            for person_id, near in found.items()
            if person_id in left
        ]
        return _write(cursor, space_id, people, snapshot.count, changes)


def _people(cursor: Cursor, space_id: int, size: Size, limits: Limits) -> list[Person]:
    arguments: dict[str, Any] = {
        "space_id": space_id,
        "batch": BATCH,
        "near": round(evidence.MAX_COHORT) + 2,
        "breadth": breadth(size),
    }
    order = BY_FUNCTION
    if limits.by_index(size):
        order = BY_INDEX
        cursor.execute(INDEX.settings, arguments)
    cursor.execute(NEAREST.format(old=OLD, order=order), arguments)
    people: dict[str, Person] = {}
    for person_id, made, template, likeness, cohort in cursor.fetchall():
        person = people.setdefault(person_id, Person(person_id, made, template.to_numpy(), [], []))
        if likeness is not None:
            person.likenesses.append(likeness)
            person.cohorts.append(cohort)
    return list(people.values())


def _figures(person: Person, people: int) -> tuple[float, float | None]:
    """The template's likeness to its cohort, and what the best other person scores as a candidate for it."""
    likeness = evidence.cohort_likeness(person.template, person.likenesses, max(0, people - 1))
    if not person.likenesses:
        return likeness, None
    alike = np.array(person.likenesses)
    of_probe = evidence.cohort_likenesses(person.template, alike, max(1, people - 1))
    of_people = np.array([likeness if cohort is None else cohort for cohort in person.cohorts])
    # this person is among the most alike of the others; a stranger would not be
    of_people -= np.maximum(0.0, alike - of_people) / evidence.cohort_size(people - 1)
    return likeness, float(evidence.scores(alike, of_probe, of_people).max())


def _shift(cursor: Cursor, space_id: int) -> None:
    """By how much the space's people are more alike than those that the rule's constants come from.

    In a transaction of its own, which locks as enrolling does: first the space, then its figures.
    """
    cursor.execute("SELECT people FROM spaces WHERE id = %s FOR NO KEY UPDATE", (space_id,))
    if (row := cursor.fetchone()) is None:
        return
    cursor.execute(RIVALS, (1 - SHIFT_RATE, space_id))
    ((known, rival),) = cursor.fetchall()
    shift = 0.0
    if known:
        expected = evidence.score_at(SHIFT_RATE, max(1, row[0] - 1))
        shift = float(np.clip(rival - expected, -MAX_SHIFT, MAX_SHIFT)) * known / (known + SHIFT_PEOPLE)
    cursor.execute("UPDATE spaces SET shift = %s WHERE id = %s", (shift, space_id))
