"""The search in a space whose embeddings are encrypted: over what a worker has of it in memory.

The answer is of one state of the database, as that of a plain search is: what the database says of the people found, in
one statement, counts only if its revision is that of what was searched. Probes are never sent to the database.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.evidence import Vector
from recognizer.faces import Embedding, Neighbour, Neighbourhood
from recognizer.gallery import sealing
from recognizer.gallery.connection import keyring_of
from recognizer.gallery.opened import Opened
from recognizer.gallery.snapshot import Near, Snapshot


class Ask(NamedTuple):
    """What is asked of a space: the people near each of the probes, (n, 128)."""

    space_id: int
    probes: Vector
    candidates: int
    by_faces: bool
    """Whether those are candidates whose faces are the nearest, or those whose templates are."""


ABOUT = """
    SELECT pg_postmaster_start_time(), collection.revision, space.people, space.shift,
           person.id, person.name, cohort.likeness, rejection.id, rejection.sealed
    FROM spaces AS space
    JOIN collections AS collection ON collection.id = space.collection_id
    LEFT JOIN people AS person ON person.id = ANY (%(people)s::uuid[])
    LEFT JOIN cohorts AS cohort ON cohort.person_id = person.id AND cohort.space_id = space.id
    LEFT JOIN rejections AS rejection ON rejection.person_id = person.id AND rejection.space = space.name
                                      AND rejection.sealed IS NOT NULL
    WHERE space.id = %(space_id)s AND collection.encrypt_embeddings
"""


class _Person:
    """What the database says of somebody."""

    def __init__(self, name: str, cohort: float | None) -> None:
        self.name, self.cohort = name, cohort
        self.rejected: list[Embedding] = []

    def neighbour(self, near: Near, probe: Embedding) -> Neighbour:
        """The same person as near a probe."""
        rejected = float(np.linalg.norm(np.array(self.rejected) - probe, axis=1).min()) if self.rejected else None
        return Neighbour(
            near.person_id,
            self.name,
            near.face_id,
            near.distance,
            near.likeness,
            near.radius,
            self.cohort,
            rejected,
        )


def at_once(cursor: Cursor, opened: Opened, ask: Ask, revision: int) -> Neighbourhood | None:
    """Answer from what is in memory already; None: it is not there, or not of this moment.

    Args:
        revision: the collection's; another one in memory is not even tried.
    """
    snapshot = opened.at_hand(ask.space_id)
    return None if snapshot is None or snapshot.revision != revision else _answer(cursor, snapshot, ask)


def nearest(opened: Opened, ask: Ask, deadline: Deadline) -> Neighbourhood | None:
    """Answer after bringing the memory up to date; None: the space is gone, or not encrypted any more.

    Raises:
        EncryptionKeyMissing, SealBroken, DatabaseUnavailable, DeadlineExceeded
    """
    with opened.current(ask.space_id, deadline) as (cursor, snapshot):
        return None if snapshot is None else _answer(cursor, snapshot, ask)


def _answer(cursor: Cursor, snapshot: Snapshot, ask: Ask) -> Neighbourhood | None:
    found = snapshot.nearest(ask.probes, ask.candidates, by_faces=ask.by_faces)
    wanted = list({near.person_id for of_probe in found for near in of_probe})
    cursor.execute(ABOUT, {"space_id": ask.space_id, "people": wanted})
    rows = cursor.fetchall()
    if not rows or rows[0][:2] != (snapshot.server, snapshot.revision):
        return None
    _, revision, count, shift = rows[0][:4]
    keyring = keyring_of(cursor)
    people: dict[str, _Person] = {}
    for _, _, _, _, person_id, name, cohort, rejection_id, sealed in rows:
        person = people.setdefault(person_id, _Person(name, cohort))
        if sealed is not None:
            person.rejected.append(sealing.opened(keyring, sealing.rejection_place(rejection_id), sealed))
    of_probes = tuple(
        tuple(people[near.person_id].neighbour(near, probe) for near in of_probe)
        for probe, of_probe in zip(ask.probes, found, strict=True)
    )
    return Neighbourhood(revision, count, shift, of_probes)
