"""Templates: the mean of a person's faces in one space, which is what the search's index holds.

A template changes in the transaction that changes the faces, so what was enrolled is found at once. To the mean comes
a little noise (0.01 of distance): HNSW loses people behind a crowd of templates that are exactly the same, such as of
one photo that was enrolled and erased a hundred times. docs/adr/0005-search.md has the numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from psycopg2.extensions import cursor as Cursor

from recognizer.faces import space_of

# A new space takes in the models of faces that were stored before it, by a replica of the version before.
SPACE = """
    INSERT INTO spaces AS known (collection_id, name, model_ids)
    SELECT %(collection_id)s, %(space)s, ARRAY(
        SELECT unnest(%(model_ids)s) UNION
        SELECT model_id FROM faces
        WHERE collection_id = %(collection_id)s AND regexp_replace(model_id, '/[^/]*$', '') = %(space)s
          AND NOT EXISTS (SELECT FROM spaces WHERE collection_id = %(collection_id)s AND name = %(space)s)
    )
    ON CONFLICT (collection_id, name) DO UPDATE
        SET model_ids = ARRAY(SELECT unnest(known.model_ids) UNION SELECT unnest(excluded.model_ids))
    RETURNING id
"""

# Every part sees the state before the statement: `before` is the template as it was, if it was. The model is compared
# in a way that no index has: without statistics the planner would read all faces of the model.
TEMPLATE = """
    WITH before AS (
        SELECT faces FROM templates WHERE person_id = %(person_id)s AND space_id = %(space_id)s
    ), template AS (
        INSERT INTO templates (person_id, space_id, collection_id, embedding, faces)
        SELECT face.person_id, space.id, space.collection_id,
               (avg(face.embedding)
                + (SELECT array_agg((random() - 0.5) * 0.0035) FROM generate_series(1, 128))::vector)::halfvec(128),
               count(*)
        FROM spaces AS space
        JOIN faces AS face ON face.person_id = %(person_id)s AND ARRAY[face.model_id] <@ space.model_ids
        WHERE space.id = %(space_id)s
        GROUP BY 1, 2, 3
        ON CONFLICT (person_id, space_id) DO UPDATE SET embedding = excluded.embedding, faces = excluded.faces
        RETURNING faces
    )
    UPDATE spaces
    SET people = people + (SELECT count(*) FROM template) - (SELECT count(*) FROM before),
        faces = spaces.faces + (SELECT sum(faces) FROM template) - (SELECT coalesce(sum(faces), 0) FROM before)
    WHERE id = %(space_id)s
"""

ERASE = """
    WITH gone AS (DELETE FROM templates WHERE person_id = %s RETURNING space_id, faces)
    UPDATE spaces SET people = people - 1, faces = spaces.faces - gone.faces FROM gone WHERE id = gone.space_id
"""
"""Deletes a person's templates, one in each space, and so touches as many rows as it deletes."""


def refresh(cursor: Cursor, collection_id: int, person_id: str, model_ids: Iterable[str]) -> None:
    """Bring a person's templates up to date with the faces stored, in the spaces of `model_ids`.

    The caller holds the collection's lock and has stored at least one face of each of the models.
    """
    spaces: dict[str, list[str]] = defaultdict(list)
    for model_id in model_ids:
        spaces[space_of(model_id)].append(model_id)
    for space, ids in spaces.items():
        cursor.execute(SPACE, {"collection_id": collection_id, "space": space, "model_ids": ids})
        (space_id,) = cursor.fetchall()[0]
        cursor.execute(TEMPLATE, {"person_id": person_id, "space_id": space_id})
