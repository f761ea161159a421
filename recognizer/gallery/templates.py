"""Templates: what a person's faces have in common in one space, which is what the search's index holds.

A template changes in the transaction that changes the faces, so what was enrolled is found at once. To it comes a
little noise (0.02 of distance, a fiftieth of that between two photos of a person): HNSW loses people behind a crowd of
templates that are exactly the same, such as of one photo that was enrolled and erased a hundred times. docs/adr/0005
has the numbers. The noise follows from the faces' ids, which differ each time a photo is enrolled: the same faces have
the same template, bit for bit, in whatever database they are stored. Beside each template stands its likeness to its
cohort, which `cohorts` keeps up to date.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from recognizer import evidence
from recognizer.evidence import Vector
from recognizer.faces import space_of
from recognizer.gallery import sealing

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
    SELECT face.person_id, face.id, face.embedding, face.sealed
    FROM spaces AS space
    JOIN faces AS face ON face.person_id = ANY (%(people)s::uuid[]) AND ARRAY[face.model_id] <@ space.model_ids
    WHERE space.id = %(space_id)s
    ORDER BY face.person_id, face.created_at DESC, face.id
"""

# Every part sees the state before the statement: `before` are the templates as they were, if they were.
TEMPLATES = """
    WITH new (person_id, space_id, collection_id, embedding, sealed, faces) AS (VALUES %s), before AS (
        SELECT templates.faces FROM templates JOIN new USING (person_id, space_id)
    ), template AS (
        INSERT INTO templates (person_id, space_id, collection_id, embedding, sealed, faces, revision)
        SELECT new.*, CASE WHEN sealed IS NOT NULL  -- that of the collection when this is committed
                           THEN (SELECT revision + 1 FROM collections WHERE id = collection_id) END
        FROM new
        ON CONFLICT (person_id, space_id) DO UPDATE SET embedding = excluded.embedding, sealed = excluded.sealed,
                                                        faces = excluded.faces, revision = excluded.revision
    ), total AS (
        SELECT space_id, count(*) AS people, sum(faces) AS faces FROM new GROUP BY space_id
    )
    UPDATE spaces
    SET people = spaces.people + total.people - (SELECT count(*) FROM before),
        faces = spaces.faces + total.faces - (SELECT coalesce(sum(faces), 0) FROM before),
        changes = changes + total.people
    FROM total WHERE id = total.space_id
    RETURNING changes, spaces.people
"""

COHORTS = """
    INSERT INTO cohorts (person_id, space_id, likeness, made, seen) VALUES %s
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
    return refresh_people(cursor, collection_id, {person_id: model_ids})


def refresh_people(cursor: Cursor, collection_id: int, people: Mapping[str, Iterable[str]]) -> list[int]:
    """The same for many people at once, each with their models; by id, as the database writes it."""
    refreshed: list[int] = []
    whose: dict[str, set[str]] = defaultdict(set)
    models: dict[str, set[str]] = defaultdict(set)
    for person_id, model_ids in people.items():
        for model_id in model_ids:
            whose[space_of(model_id)].add(person_id)
            models[space_of(model_id)].add(model_id)
    for space in sorted(whose):
        cursor.execute(SPACE, {"collection_id": collection_id, "space": space, "model_ids": sorted(models[space])})
        (space_id,) = cursor.fetchall()[0]
        _make(cursor, collection_id, space_id, sorted(whose[space]))
        refreshed.append(space_id)
    return refreshed


def noise(face_ids: Sequence[str]) -> Vector:
    """What is added to the template of these faces, (128,): always the same for the same ids in the same order."""
    digest = hashlib.shake_256("".join(face_ids).encode()).digest(2 * 128)
    steps = np.frombuffer(digest, "<u2").astype(np.float32)
    spread: Vector = (steps / np.float32(32767.5) - 1) * np.float32(NOISE)
    return spread


def _make(cursor: Cursor, collection_id: int, space_id: int, people: list[str]) -> None:
    cursor.execute(FACES, {"people": people, "space_id": space_id})
    made, rows = [], []
    for person_id, found in groupby(cursor.fetchall(), itemgetter(0)):
        faces = list(found)
        latest = faces[:MAX_FACES]
        template = evidence.template(
            np.array([sealing.read(cursor, sealing.face_place(face_id), *kept) for _, face_id, *kept in latest])
        )
        made.append((person_id, template))
        noisy = template + noise([face_id for _, face_id, *_ in latest])
        place, encrypted = sealing.template_place(person_id, space_id), latest[0][3] is not None
        stored = sealing.stored_template(cursor, place, noisy, encrypted)
        rows.append((person_id, space_id, collection_id, *stored, len(faces)))
    columns = "(%s::uuid, %s::bigint, %s::bigint, %s::vector::halfvec(128), %s::bytea, %s::integer)"
    execute_values(cursor, TEMPLATES, rows, columns, page_size=len(rows))
    ((changes, enrolled),) = cursor.fetchall()
    figures = [(person_id, space_id, _first_likeness(template, enrolled), changes, -1) for person_id, template in made]
    execute_values(cursor, COHORTS, figures, page_size=len(figures))


def _first_likeness(template: Vector, enrolled: int) -> float | None:
    """Of a new person, until `cohorts` comes by: as if nobody else were enrolled. Among many that would be too low,
    and the person too easily found; then it is not known."""
    return evidence.cohort_likeness(template, [], 0) if enrolled <= MOSTLY_IMAGINARY else None
