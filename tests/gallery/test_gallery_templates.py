"""Templates: the same faces have the same one, the same photo under two names has not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recognizer.deadline import Deadline
from recognizer.faces import NewFace
from recognizer.gallery import templates
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery

Sql = Callable[[str], list[tuple[object, ...]]]
ALL = "SELECT person_id, embedding::text FROM templates ORDER BY person_id"


def test_the_same_faces_have_the_same_template_whenever_it_is_made(
    gallery: Gallery, pool: Pool, new_face: Callable[..., NewFace], deadline: Deadline, sql: Sql
) -> None:
    for name in ("Anna", "Berta"):
        for _ in range(4):
            gallery.enrol("default", [new_face()], name=name, deadline=deadline)
    before = dict(sql(ALL))
    ids = {str(person_id): ["model-1"] for person_id in before}
    collection_id = sql("SELECT id FROM collections")[0][0]
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM templates")
        templates.refresh_people(cursor, collection_id, ids)
    assert dict(sql(ALL)) == before
    anna = next(iter(ids))
    added = gallery.enrol("default", [new_face()], person_id=anna, deadline=deadline)
    assert dict(sql(ALL)) != before
    gallery.remove_face(anna, added.enrolled[0].face_id, deadline)
    assert dict(sql(ALL)) == before


def test_one_photo_under_two_names_makes_two_templates(
    gallery: Gallery, new_face: Callable[..., NewFace], deadline: Deadline, sql: Sql
) -> None:
    face = new_face()
    for name in ("Anna", "Berta"):
        gallery.enrol("default", [face], name=name, deadline=deadline)
    (_, one), (_, other) = sql(ALL)
    assert one != other


def test_many_people_at_once_are_counted_as_one_by_one(
    gallery: Gallery, pool: Pool, new_face: Callable[..., NewFace], deadline: Deadline, sql: Sql
) -> None:
    people = [gallery.enrol("default", [new_face(), new_face(1)], name=name, deadline=deadline) for name in "abc"]
    sql(f"DELETE FROM templates WHERE person_id = '{people[0].person_id}' RETURNING 1")
    sql("UPDATE spaces SET people = 2, faces = 4, changes = 10 RETURNING 1")
    collection_id = sql("SELECT id FROM collections")[0][0]
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        templates.refresh_people(cursor, collection_id, {each.person_id: ["model-1"] for each in people})
    assert sql("SELECT people, faces, changes FROM spaces") == [(3, 6, 13)]
    assert sql("SELECT count(*), min(made), min(seen) FROM cohorts") == [(3, 13, -1)]


def test_other_ids_change_a_likeness_as_little_as_is_said() -> None:
    """As docs/moving.md says of an import whose ids had to be replaced."""
    random = np.random.default_rng(3)
    directions = random.normal(size=(1_000, 128))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    one, other = (np.stack([templates.noise([f"{name} {n}"]) for n in range(1_000)]) for name in ("one", "other"))
    differences = np.abs((one - other) @ directions.T)
    assert 0.001 < np.median(differences) < 0.002
    assert 0.006 < np.quantile(differences, 0.99) < 0.007
    assert (differences > 0.01).mean() < 1 / 10_000
