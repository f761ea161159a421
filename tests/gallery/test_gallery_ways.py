"""The ways of the search: each finds the same people at the sizes of a test, and each is what it says it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.faces import Neighbour, NewFace
from recognizer.gallery import search
from recognizer.gallery.pool import Pool
from recognizer.gallery.search import ALL_FACES, ALL_TEMPLATES, INDEX, Limits, Size, Way, breadth
from recognizer.gallery.store import Gallery

NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]

FORCED = {
    "all faces": Limits(compared_faces=10**9),
    "all templates": Limits(compared_faces=0, compared_templates=10**9),
    "index": Limits(compared_faces=0, compared_templates=0, people_squared_per_indexed=0),
}

STRANGERS = """
    INSERT INTO collections (name, name_key) VALUES ('Crowd', 'crowd');
    INSERT INTO spaces (collection_id, name, model_ids, people) SELECT id, 'model-1', '{{model-1}}', {number}
        FROM collections WHERE name_key = 'crowd';
    INSERT INTO people (id, collection_id, name, name_key) SELECT gen_random_uuid(), id, n::text, n::text
        FROM collections, generate_series(1, {number}) AS n WHERE name_key = 'crowd';
    INSERT INTO templates (person_id, space_id, collection_id, embedding, faces)
        SELECT person.id, space.id, collection_id,
               l2_normalize((SELECT array_agg({direction} + (random() - 0.5) * 0.02)
                             FROM generate_series(1, 128 + 0 * length(person.name)))::vector)::halfvec(128), 1
        FROM people AS person JOIN spaces AS space USING (collection_id);
"""
"""A crowd in another collection of the same space, all of them in one direction."""


@pytest.fixture(params=FORCED)
def limits(request: pytest.FixtureRequest) -> Limits:
    return FORCED[request.param]


@pytest.fixture
def look(pool: Pool, limits: Limits) -> Callable[..., list[Neighbour]]:
    """The neighbours of one probe, found in the way that the test is run with."""

    def do(probe: np.ndarray, k: int, model_id: str = "model-1", limits: Limits = limits) -> list[Neighbour]:
        (found,) = search.nearest(pool, "default", [probe], model_id, k, Deadline(60), limits).of_probes
        return list(found[:k])

    return do


Look = Callable[..., list[Neighbour]]


def enrol(gallery: Gallery, name: str, *faces: NewFace) -> str:
    return gallery.enrol("default", faces, name=name, deadline=Deadline(60)).person_id


def at(distance: float) -> np.ndarray:
    """An embedding so far from the origin."""
    return np.full(128, distance / np.sqrt(128), np.float32)


def plan(pool: Pool, way: Way) -> str:
    arguments = {
        "collection": "default",
        "space": "model-1",
        "probes": [at(0)],
        "directions": [evidence.unit(at(0))],
        "centre": evidence.learned().centre,
        "candidates": 64,
        "breadth": 200,
    }
    with pool.connection() as connection, connection.cursor() as cursor:
        statement = cursor.mogrify(way.statement, arguments).decode()
        settings, select, rest = statement.partition("SELECT collection.revision")
        cursor.execute(f"{settings} EXPLAIN {select}{rest}")
        return "\n".join(line for (line,) in cursor.fetchall())


def test_every_way_finds_the_people_that_numpy_finds(gallery: Gallery, new_face: NewFaces, look: Look) -> None:
    random = np.random.default_rng(7)
    people: dict[str, np.ndarray] = {}
    for number in range(40):
        vectors = random.normal(0, 0.12, (random.integers(1, 5), 128)).astype(np.float32)
        faces = [new_face(index, embedding=vector) for index, vector in enumerate(vectors)]
        people[enrol(gallery, f"person {number}", *faces)] = vectors
    for probe in random.normal(0, 0.12, (5, 128)).astype(np.float32):
        truth = {person: np.linalg.norm(vectors - probe, axis=1).min() for person, vectors in people.items()}
        expected = sorted(truth, key=lambda person: (truth[person], person))
        for k in (1, 7, 100):
            found = look(probe, k)
            assert [neighbour.person_id for neighbour in found] == expected[:k]
            assert [n.distance for n in found] == pytest.approx([truth[p] for p in expected[:k]], abs=1e-5)


def test_the_nearest_face_ranks_and_not_the_template(gallery: Gallery, new_face: NewFaces, look: Look) -> None:
    far_on_the_whole = enrol(gallery, "Ada", new_face(0, embedding=at(0.1)), new_face(1, embedding=at(0.9)))
    enrol(gallery, "Grace", new_face(embedding=at(0.3)))
    [nearest, _] = look(at(0), 2)
    assert (nearest.person_id, nearest.distance) == (far_on_the_whole, pytest.approx(0.1, abs=1e-5))


def test_faces_of_one_space_are_compared_whatever_the_number_of_crops(
    gallery: Gallery, new_face: NewFaces, look: Look
) -> None:
    ada = enrol(gallery, "Ada", new_face(embedding=at(0.1), model_id="net-1/5pt/1crop"))
    enrol(gallery, "Eve", new_face(embedding=at(0), model_id="net-2/5pt/1crop"))
    enrol(gallery, "Mallory", new_face(embedding=at(0), model_id="net-1/5pt/more/1crop"))
    for crops in ("1crop", "6crop"):
        assert [neighbour.person_id for neighbour in look(at(0), 5, f"net-1/5pt/{crops}")] == [ada]
    with_more_crops = new_face(embedding=at(0.05), model_id="net-1/5pt/6crop")
    enrol(gallery, "Ada", with_more_crops)
    for crops in ("1crop", "6crop"):
        [neighbour] = look(at(0), 5, f"net-1/5pt/{crops}")
        assert neighbour.distance == pytest.approx(0.05, abs=1e-5)
    _, faces = gallery.person(ada, Deadline(60))
    assert [face.model_id for face in faces] == ["net-1/5pt/1crop", "net-1/5pt/6crop"]
    assert look(at(0), 5, "net-3/5pt/1crop") == []


def test_a_new_enrolment_is_found_at_once_and_an_erased_person_never(
    gallery: Gallery, new_face: NewFaces, look: Look
) -> None:
    ids = [enrol(gallery, f"person {n}", new_face(embedding=at(0.1 * n))) for n in (3, 2, 1)]
    for n, person_id in zip((1, 2, 3), reversed(ids), strict=True):
        [neighbour] = look(at(0), 1)
        assert (neighbour.person_id, neighbour.distance) == (person_id, pytest.approx(0.1 * n, abs=1e-5))
        gallery.delete_person(person_id, Deadline(60))
    assert look(at(0), 1) == []


def test_a_crowd_in_another_collection_starves_nobody(
    gallery: Gallery, new_face: NewFaces, look: Look, sql: Sql
) -> None:
    sql(STRANGERS.format(number=500, direction=0.1))  # more than the index gives at first
    ids = [enrol(gallery, f"person {n}", new_face(embedding=at(0.5 + n / 10))) for n in range(3)]
    assert [neighbour.person_id for neighbour in look(at(0), 5)] == ids


def test_when_the_index_finds_too_few_all_templates_are_compared(
    gallery: Gallery, new_face: NewFaces, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [enrol(gallery, f"person {n}", new_face(embedding=at(0.1 + n / 10))) for n in range(3)]
    blind = INDEX._replace(candidates=search.SQL("SELECT person_id, 0.0 AS likeness FROM templates LIMIT 0"))
    monkeypatch.setattr(search, "INDEX", blind)
    assert [neighbour.person_id for neighbour in look(at(0), 2, limits=FORCED["index"])] == ids[:2]


@pytest.mark.parametrize("with_statistics", [False, True])
def test_only_the_last_way_uses_the_index_whatever_the_statistics_say(
    gallery: Gallery, new_face: NewFaces, pool: Pool, sql: Sql, with_statistics: bool
) -> None:
    for number in range(3):
        enrol(gallery, f"person {number}", new_face())
    if with_statistics:
        sql("ANALYZE")
    assert "Index Scan using templates_embedding" in plan(pool, INDEX)
    for way in (ALL_FACES, ALL_TEMPLATES):
        assert "templates_embedding" not in plan(pool, way)


def test_the_settings_for_one_search_end_with_it(gallery: Gallery, pool: Pool) -> None:
    search.nearest(pool, "default", [at(0)], "model-1", 1, Deadline(60), FORCED["index"])
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('enable_sort')")
        assert cursor.fetchall() == [("on",)]


def test_the_way_follows_the_size() -> None:
    limits = Limits(compared_faces=100, compared_templates=50, people_squared_per_indexed=10)
    assert limits.way(None) is ALL_FACES
    assert limits.way(Size(people=10, faces=100, indexed=10**6)) is ALL_FACES
    assert limits.way(Size(people=10, faces=101, indexed=10)) is ALL_TEMPLATES
    assert limits.way(Size(people=51, faces=101, indexed=51)) is INDEX
    assert limits.way(Size(people=1000, faces=1000, indexed=10**6)) is ALL_TEMPLATES
    assert limits.way(Size(people=10_000, faces=10_000, indexed=10**6)) is INDEX


def test_the_index_is_searched_more_broadly_as_it_grows() -> None:
    breadths = [breadth(Size(n, n, n)) for n in (0, 10_000, 100_000, 300_000, 1_000_000, 10_000_000)]
    assert breadths == sorted(breadths)
    assert (breadth(None), breadths[2], breadths[-1]) == (200, 200, 1000)


# -- templates and sizes --


def test_a_template_is_made_of_the_persons_faces_in_its_space(gallery: Gallery, new_face: NewFaces, sql: Sql) -> None:
    faces = [new_face(n, model_id=model) for n, model in enumerate(("a/1crop", "b/1crop", "a/6crop", "a/1crop"))]
    person_id = enrol(gallery, "Ada", *faces[:2])
    enrol(gallery, "Ada", *faces[2:])
    enrol(gallery, "Grace", new_face(model_id="a/1crop"))
    assert sql("SELECT name, people, faces, model_ids FROM spaces ORDER BY name") == [
        ("a", 2, 4, ["a/1crop", "a/6crop"]),
        ("b", 1, 1, ["b/1crop"]),
    ]
    templates = dict(
        sql(
            "SELECT spaces.name, embedding::real[] FROM templates JOIN spaces ON spaces.id = space_id"
            f" WHERE person_id = '{person_id}'"
        )
    )
    in_a = np.array([face.embedding for face in faces if face.model_id.startswith("a/")])
    assert templates["a"] == pytest.approx(evidence.template(in_a), abs=0.0035)
    assert templates["b"] == pytest.approx(evidence.unit(faces[1].embedding), abs=0.0035)


def test_people_with_the_same_face_have_different_templates(gallery: Gallery, new_face: NewFaces, sql: Sql) -> None:
    for number in range(3):  # in a crowd of equal templates the index loses others
        enrol(gallery, f"person {number}", new_face(embedding=at(0.5)))
    assert sql("SELECT count(DISTINCT embedding::text) FROM templates") == [(3,)]


def test_a_photo_that_comes_and_goes_hides_nobody(gallery: Gallery, new_face: NewFaces, pool: Pool, sql: Sql) -> None:
    sql("TRUNCATE templates CASCADE")  # the dead of other tests would connect what is to be found
    random = np.random.default_rng(0)
    photos = random.normal(0, 0.1, (5, 128)).astype(np.float32)
    for number in range(200):
        person_id = enrol(gallery, "Ada", new_face(embedding=photos[number % 5]))
        gallery.delete_person(person_id, Deadline(60))
    faces = [new_face(embedding=random.normal(0, 0.12, 128).astype(np.float32)) for _ in range(40)]
    ids = [enrol(gallery, f"person {n}", face) for n, face in enumerate(faces)]
    probes = [face.embedding for face in faces]
    found = search.nearest(pool, "default", probes, "model-1", 1, Deadline(60), FORCED["index"]).of_probes
    assert [near[0].person_id for near in found] == ids


def test_the_sizes_of_spaces_follow_those_who_are_erased(gallery: Gallery, new_face: NewFaces, sql: Sql) -> None:
    ada = enrol(gallery, "Ada", new_face(0), new_face(1), new_face(2, model_id="other/1crop"))
    enrol(gallery, "Grace", new_face())
    receipt = gallery.delete_person(ada, Deadline(60))
    assert (receipt.deleted["templates"], receipt.left) == (2, 0)
    assert sql("SELECT name, people, faces FROM spaces ORDER BY name") == [("model-1", 1, 1), ("other", 0, 0)]
