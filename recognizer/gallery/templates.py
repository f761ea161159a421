"""Templates: what a person's faces have in common in one space, which is what the search's index holds.

A template changes in the transaction that changes the faces, so what was enrolled is found at once. To it comes a
little noise (0.02 of distance, a fiftieth of that between two photos of a person): HNSW loses people behind a crowd of
templates that are exactly the same, such as of one photo that was enrolled and erased a hundred times. docs/adr/0005
has the numbers. Beside each template stands its likeness to its cohort, which `cohorts` keeps up to date.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from psycopg2.extensions import cursor as Cursor

from recognizer import evidence
from recognizer.faces import space_of

MAX_FACES = 500
"""A template is made of no more of a person's faces, the latest ones."""

MOSTLY_IMAGINARY = 3_000
"""Up to so many people a cohort of imaginary ones is as alike as one of real ones, on the average."""

NOISE = 0.003
"""Half the width of what is added to each of the 128 numbers."""

SPACE = """
    INSERT INTO spaces AS known (collection_id, name, model_ids)
    VALUES (%(collection_id)s, %(space)s, %(model_ids)s)
    ON CONFLICT (collection_id, name) DO UPDATE
        SET model_ids = ARRAY(SELECT unnest(known.model_ids) UNION SELECT unnest(excluded.model_ids))
    RETURNING id
"""

# The model is compared in a way that no index has: without statistics the planner would read all faces of the model.
FACES = """
    SELECT face.embedding
    FROM spaces AS space
    JOIN faces AS face ON face.person_id = %(person_id)s AND ARRAY[face.model_id] <@ space.model_ids
    WHERE space.id = %(space_id)s
    ORDER BY face.created_at DESC, face.id
"""

# Every part sees the state before the statement: `before` is the template as it was, if it was.
TEMPLATE = """
    WITH before AS (
        SELECT faces FROM templates WHERE person_id = %(person_id)s AND space_id = %(space_id)s
    ), template AS (
        INSERT INTO templates (person_id, space_id, collection_id, embedding, faces)
        VALUES (%(person_id)s, %(space_id)s, %(collection_id)s, %(template)s::vector::halfvec(128), %(faces)s)
        ON CONFLICT (person_id, space_id) DO UPDATE SET embedding = excluded.embedding, faces = excluded.faces
    )
    UPDATE spaces
    SET people = people + 1 - (SELECT count(*) FROM before),
        faces = spaces.faces + %(faces)s - (SELECT coalesce(sum(faces), 0) FROM before),
        changes = changes + 1
    WHERE id = %(space_id)s
    RETURNING changes, people
"""

COHORT = """
    INSERT INTO cohorts (person_id, space_id, likeness, made, seen) VALUES (%s, %s, %s, %s, -1)
    ON CONFLICT (person_id, space_id) DO UPDATE SET made = excluded.made, seen = excluded.seen
"""

ERASE = """
    WITH gone AS (
        DELETE FROM templates WHERE person_id = %(person_id)s AND space_id <> ALL (%(kept)s::bigint[])
        RETURNING space_id, faces
    )
    UPDATE spaces SET people = people - 1, faces = spaces.faces - gone.faces, changes = changes + 1,
                      shift = CASE WHEN people > 2 THEN shift ELSE 0 END
    FROM gone WHERE id = gone.space_id
"""
"""Deletes a person's templates, one in each space but those kept, and so touches as many rows as it deletes."""


def renew(cursor: Cursor, collection_id: int, person_id: str) -> None:
    """Bring all of a person's templates up to date with the faces stored, of which some have gone.

    The caller holds the collection's lock.
    """
    cursor.execute("SELECT DISTINCT model_id FROM faces WHERE person_id = %s", (person_id,))
    kept = refresh(cursor, collection_id, person_id, [model_id for (model_id,) in cursor.fetchall()])
    erase(cursor, person_id, kept)


def erase(cursor: Cursor, person_id: str, kept: Sequence[int] = ()) -> int:
    """Delete a person's templates, except in the spaces `kept`, and return how many there were."""
    cursor.execute(ERASE, {"person_id": person_id, "kept": list(kept)})
    return cursor.rowcount


def refresh(cursor: Cursor, collection_id: int, person_id: str, model_ids: Iterable[str]) -> list[int]:
    """Bring a person's templates up to date with the faces stored, in the spaces of `model_ids`; return those.

    The caller holds the collection's lock and has stored at least one face of each of the models.
    """
    refreshed: list[int] = []
    spaces: dict[str, list[str]] = defaultdict(list)
    for model_id in model_ids:
        spaces[space_of(model_id)].append(model_id)
    for space, ids in spaces.items():
        cursor.execute(SPACE, {"collection_id": collection_id, "space": space, "model_ids": ids})
        (space_id,) = cursor.fetchall()[0]
        _make(cursor, {"collection_id": collection_id, "person_id": person_id, "space_id": space_id})
        refreshed.append(space_id)
    return refreshed


def _make(cursor: Cursor, whose: dict[str, object]) -> None:
    cursor.execute(FACES, whose)
    faces = [face.to_numpy() for (face,) in cursor.fetchall()]
    made = evidence.template(np.array(faces[:MAX_FACES]))
    noise = np.random.default_rng().uniform(-NOISE, NOISE, made.shape).astype(np.float32)
    cursor.execute(TEMPLATE, {**whose, "template": made + noise, "faces": len(faces)})
    ((changes, people),) = cursor.fetchall()
    # Of a new person, until `cohorts` comes by: as if nobody else were enrolled. Among many that would be too low, and
    # the person too easily found; then it is not known.
    likeness = evidence.cohort_likeness(made, [], 0) if people <= MOSTLY_IMAGINARY else None
    cursor.execute(COHORT, (whose["person_id"], whose["space_id"], likeness, changes))
