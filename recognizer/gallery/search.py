"""The nearest people: exact, every person once, in one round trip for all probes."""

from __future__ import annotations

from collections.abc import Iterable

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound
from recognizer.faces import Embedding, Neighbour
from recognizer.gallery.names import comparable
from recognizer.gallery.pool import Pool

# One statement sees one state of the database: the revision is that of the faces that were searched.
# The probe IS NOT NULL keeps an empty list of probes from scanning the faces.
NEAREST = """
    SELECT collection.revision, probe.position, person.id, person.name, nearest.face_id, nearest.distance
    FROM collections AS collection
    LEFT JOIN LATERAL unnest(%(probes)s::vector[]) WITH ORDINALITY AS probe (embedding, position) ON true
    LEFT JOIN LATERAL (
        SELECT * FROM (
            SELECT DISTINCT ON (person_id) person_id, id AS face_id, embedding <-> probe.embedding AS distance
            FROM faces
            WHERE collection_id = collection.id AND model_id = %(model_id)s AND probe.embedding IS NOT NULL
            ORDER BY person_id, distance, face_id
        ) AS nearest_face_of_each
        ORDER BY distance, person_id
        LIMIT %(k)s
    ) AS nearest ON true
    LEFT JOIN people AS person ON person.id = nearest.person_id
    WHERE collection.name_key = %(collection)s
    ORDER BY probe.position, nearest.distance, nearest.person_id
"""


def nearest(
    pool: Pool, collection: str, embeddings: Iterable[Embedding], model_id: str, k: int, deadline: Deadline
) -> tuple[int, list[list[Neighbour]]]:
    """Find the `k` nearest people of each probe, by the L2 distance to the nearest of the person's faces.

    Args:
        embeddings: the probes, (n, 128) float32; n may be 0.
        model_id: only faces of this model are compared.

    Returns:
        The collection's revision that was searched, and for each probe its neighbours, nearest first
        (the person's id decides between equals).

    Raises:
        CollectionNotFound, DatabaseUnavailable, DeadlineExceeded
    """
    probes = list(embeddings)
    arguments = {"probes": probes, "model_id": model_id, "k": k, "collection": comparable(collection)}
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        cursor.execute(NEAREST, arguments)
        rows = cursor.fetchall()
    if not rows:
        raise CollectionNotFound(f"There is no collection `{collection}`.")
    found: list[list[Neighbour]] = [[] for _ in probes]
    for _, position, person_id, name, face_id, distance in rows:
        if person_id is not None:
            found[position - 1].append(Neighbour(person_id, name, face_id, distance))
    return rows[0][0], found
