"""The nearest people: every person once, by the nearest of the person's faces, in one statement for all probes.

The people who may be nearest are found in one of three ways, by the size of what is searched; their faces
are then ranked exactly. docs/adr/0005-search.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Composable

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound
from recognizer.faces import Embedding, Neighbour, Neighbourhood, space_of
from recognizer.gallery import sealed_search
from recognizer.gallery.names import comparable
from recognizer.gallery.opened import Opened
from recognizer.gallery.pool import Pool
from recognizer.gallery.sealed_search import Ask


class Limits(NamedTuple):
    """Up to which size a space is searched in which way, chosen where the next way becomes quicker."""

    compared_faces: int = 5_000
    """A space with no more faces has all of them compared: the answer is exact."""
    compared_templates: int = 10_000
    """A space with no more people has all their templates compared, without the index."""
    people_squared_per_indexed: int = 5_000
    """So has one that is a small part of the index, where the index would mostly find people of others: the
    index looks at about candidates x indexed / people templates, comparing all of them at as many as people."""

    def way(self, size: Size | None) -> Way:
        """The way that is quickest for a space of that size."""
        if size is None or size.faces <= self.compared_faces:
            return ALL_FACES
        return INDEX if self.by_index(size) else ALL_TEMPLATES

    def by_index(self, size: Size) -> bool:
        """Whether the index finds the nearest templates quicker than comparing all of them does."""
        small_part = size.people**2 <= self.people_squared_per_indexed * size.indexed
        return size.people > self.compared_templates and not small_part


class Size(NamedTuple):
    """How much a space holds, and how many templates the index has over all spaces."""

    people: int
    faces: int
    indexed: int


INDEXED = SQL("""
    SELECT coalesce(sum(people), 0)::bigint FROM spaces JOIN collections ON collections.id = collection_id
    WHERE NOT encrypt_embeddings
""")
"""How many templates the index has."""

SIZE = SQL("""
    SELECT collection.encrypt_embeddings, collection.revision, space.id, space.people, space.faces, ({indexed})
    FROM collections AS collection
    LEFT JOIN spaces AS space ON space.collection_id = collection.id AND space.name = %(space)s
    WHERE collection.name_key = %(collection)s
""").format(indexed=INDEXED)

MIN_CANDIDATES = 64
"""How many people are found at least: those with the nearest templates. A person's nearest face may be somewhat nearer
than the template says; and they are the probe's cohort (`evidence.MAX_COHORT` and a candidate)."""

CANDIDATES_PER_NEIGHBOUR = 1.25

MIN_BREADTH, MAX_BREADTH = 200, 1000
"""How many templates the index keeps in view (hnsw.ef_search): what 100,000 people need, and pgvector's largest."""


def breadth(size: Size | None) -> int:
    """What keeps the index's recall@1 about 0.995 as it grows: 200 for 100,000 people, 800 for a million."""
    indexed = size.indexed if size else 0
    return min(MAX_BREADTH, max(MIN_BREADTH, round(MIN_BREADTH * math.pow(indexed / 100_000, 0.6))))


class Way(NamedTuple):
    """How the candidates for one probe are found, and what the planner is told before."""

    candidates: Composable
    settings: Composable = SQL("")

    @property
    def statement(self) -> Composable:
        """The whole search."""
        return self.settings + NEAREST.format(candidates=self.candidates)


# One statement sees one state of the database: the revision is that of the faces that were searched.
# The probe IS NOT NULL keeps an empty list of probes from scanning anything. The model of a candidate's face is
# compared in a way that no index has: without statistics the planner would read all faces of the model each time.
NEAREST = SQL("""
    SELECT collection.revision, coalesce(space.people, 0), coalesce(space.shift, 0),
           collection.encrypt_embeddings AND space.id IS NOT NULL, probe.position,
           person.id, person.name, near.face_id, near.distance, near.likeness, near.radius, near.cohort, near.rejected
    FROM collections AS collection
    LEFT JOIN spaces AS space ON space.collection_id = collection.id AND space.name = %(space)s
    LEFT JOIN LATERAL (
        SELECT embedding, position, l2_normalize(embedding - %(centre)s)::halfvec(128) AS direction
        FROM unnest(%(probes)s::vector[]) WITH ORDINALITY AS sent (embedding, position)
        OFFSET 0  -- reckoned once for each probe
    ) AS probe ON true
    LEFT JOIN LATERAL (
        SELECT candidate.person_id, face.id AS face_id, face.distance, face.radius, candidate.likeness, (
            SELECT likeness FROM cohorts WHERE person_id = candidate.person_id AND space_id = space.id
        ) AS cohort, (
            SELECT min(embedding <-> probe.embedding)
            FROM rejections
            WHERE person_id = candidate.person_id AND rejections.space = space.name
        ) AS rejected
        FROM ({candidates}) AS candidate
        CROSS JOIN LATERAL (
            SELECT id, embedding <-> probe.embedding AS distance, embedding <-> %(centre)s AS radius
            FROM faces
            WHERE person_id = candidate.person_id AND ARRAY[model_id] <@ space.model_ids
            ORDER BY distance, id
            LIMIT 1
        ) AS face
    ) AS near ON true
    LEFT JOIN people AS person ON person.id = near.person_id
    WHERE collection.name_key = %(collection)s
    ORDER BY probe.position, near.distance, near.person_id
""")

ALL_FACES = Way(
    SQL("""
            SELECT person_id, template.likeness
            FROM (
                SELECT DISTINCT ON (person_id) person_id, embedding <-> probe.embedding AS distance
                FROM faces
                WHERE collection_id = space.collection_id AND model_id = ANY (space.model_ids)
                  AND probe.embedding IS NOT NULL
                ORDER BY person_id, distance
            ) AS nearest_face_of_each
            CROSS JOIN LATERAL (
                SELECT -(embedding <#> probe.direction) AS likeness
                FROM templates
                WHERE person_id = nearest_face_of_each.person_id AND space_id = space.id
                LIMIT 1
            ) AS template
            ORDER BY distance, person_id
            LIMIT %(candidates)s
    """)
)

# the function, where the index is of no use; the operator, where it is
ALL_TEMPLATES = Way(
    SQL("""
            SELECT person_id, -(embedding <#> probe.direction) AS likeness
            FROM templates
            WHERE space_id = space.id AND probe.direction IS NOT NULL
            ORDER BY l2_distance(embedding, probe.direction), person_id
            LIMIT %(candidates)s
    """)
)

INDEX = Way(
    SQL("""
            SELECT person_id, -(embedding <#> probe.direction) AS likeness
            FROM templates
            WHERE space_id = space.id AND probe.direction IS NOT NULL
            ORDER BY embedding <-> probe.direction
            LIMIT %(candidates)s
    """),
    # The iterative scan goes on until there are enough people of this space. Without sorting, only the HNSW index
    # gives the order: whatever the statistics say (there are none right after a restore), it is used. While it is away
    # (template_index), all templates are sorted, and nobody is missed.
    SQL("""
        SET LOCAL hnsw.ef_search = %(breadth)s;
        SET LOCAL hnsw.iterative_scan = relaxed_order;
        SET LOCAL enable_sort = off;
    """),
)


def nearest(
    pool: Pool,
    collection: str,
    embeddings: Sequence[Embedding],
    model_id: str,
    k: int,
    deadline: Deadline,
    limits: Limits = Limits(),  # noqa: B008 (immutable)
    opened: Opened | None = None,
) -> Neighbourhood:
    """Find the people near each probe, by the L2 distance to the nearest of the person's faces.

    Args:
        embeddings: the probes, (n, 128) float32; n may be 0.
        model_id: only faces of this model's space are compared.
        k: how many people are wanted at least; a cohort's worth is found anyway.
        limits: up to which size what is done.
        opened: where the embeddings of encrypted collections are kept decrypted; without it, they are for this call.

    Returns:
        The collection as it was searched, and for each probe its neighbours, nearest first (the person's id
        decides between equals). Distances and order are exact; beyond `limits.compared_faces` faces somebody
        who belongs among them may be missing: hardly ever the person shown, but a stranger's nearest people
        more often, the more faces each person has.

    Raises:
        CollectionNotFound, DatabaseUnavailable, DeadlineExceeded
        EncryptionKeyMissing, SealBroken: the collection's embeddings are encrypted, and cannot be decrypted.
    """
    arguments: dict[str, Any] = {
        "collection": comparable(collection),
        "space": space_of(model_id),
        "probes": [np.asarray(embedding, np.float32) for embedding in embeddings],
        "centre": evidence.learned().centre,
        "candidates": max(MIN_CANDIDATES, round(k * CANDIDATES_PER_NEIGHBOUR)),
    }
    opened = opened or Opened(pool)
    found = None
    while found is None:  # once; and again where the collection is switched meanwhile
        with pool.connection(deadline) as connection, connection.cursor() as cursor:
            found, ask = _at_once(cursor, arguments, k, limits, opened)
        if ask is not None and found is None:
            found = sealed_search.nearest(opened, ask, deadline)
    return found


def _at_once(
    cursor: Cursor, arguments: dict[str, Any], k: int, limits: Limits, opened: Opened
) -> tuple[Neighbourhood | None, Ask | None]:
    """What can be answered now, and what is to be asked of the embeddings in memory where they are encrypted."""
    cursor.execute(SIZE, arguments)
    if (row := cursor.fetchone()) is None:
        raise _no_collection(arguments)
    encrypted, revision, space_id, *of_space = row
    size = Size(*of_space) if space_id is not None else None
    if not encrypted:
        return _plain(cursor, size, limits, k, arguments), None
    probes = np.array(arguments["probes"], np.float32).reshape(-1, 128)
    if size is None:  # nobody is there, and no probe is sent to the database
        return Neighbourhood(revision, 0, 0.0, tuple(() for _ in probes)), None
    ask = Ask(space_id, probes, arguments["candidates"], limits.way(size) is ALL_FACES)
    return sealed_search.at_once(cursor, opened, ask, revision), ask


def _plain(
    cursor: Cursor, size: Size | None, limits: Limits, k: int, arguments: dict[str, Any]
) -> Neighbourhood | None:
    """Search the embeddings that are not encrypted; None: since the size was asked for, they all are."""
    arguments["breadth"] = breadth(size)
    way = limits.way(size)
    found = _search(cursor, way, arguments)
    if way is INDEX and found and any(len(near) < min(k, found.people) for near in found.of_probes):
        found = _search(cursor, ALL_TEMPLATES, arguments)
    return found


def _search(cursor: Cursor, way: Way, arguments: dict[str, Any]) -> Neighbourhood | None:
    cursor.execute(way.statement, arguments)
    rows = cursor.fetchall()
    if not rows:
        raise _no_collection(arguments)  # it is gone meanwhile
    revision, people, shift, encrypted = rows[0][:4]
    if encrypted:
        return None
    of_probes: list[list[Neighbour]] = [[] for _ in arguments["probes"]]
    for _, _, _, _, position, person_id, *of_person in rows:
        if person_id is not None:
            of_probes[position - 1].append(Neighbour(person_id, *of_person))
    return Neighbourhood(revision, people, shift, tuple(tuple(near) for near in of_probes))


def _no_collection(arguments: dict[str, Any]) -> CollectionNotFound:
    return CollectionNotFound(f"There is no collection `{arguments['collection']}`.")
