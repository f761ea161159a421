"""The search for the nearest people: exact, and of one state of the gallery."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound
from recognizer.faces import Neighbourhood, NewFace
from recognizer.gallery.pool import Pool
from recognizer.gallery.search import nearest
from recognizer.gallery.store import Gallery

EITHER_FORM = pytest.mark.usefixtures("either_form")

NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[object, ...]]]


def enrol(gallery: Gallery, name: str, *faces: NewFace) -> str:
    return gallery.enrol("default", faces, name=name, deadline=Deadline(60)).person_id


@EITHER_FORM
def test_neighbours_and_distances_are_numpys(gallery: Gallery, new_face: NewFaces, deadline: Deadline) -> None:
    random = np.random.default_rng(7)
    people: dict[str, np.ndarray] = {}
    for number in range(30):
        vectors = random.normal(0, 0.12, (random.integers(1, 6), 128)).astype(np.float32)
        faces = [new_face(index, embedding=vector) for index, vector in enumerate(vectors)]
        people[enrol(gallery, f"person {number}", *faces)] = vectors
    probes = random.normal(0, 0.12, (9, 128)).astype(np.float32)
    found = gallery.nearest("default", probes, "model-1", 7, deadline)
    assert (found.revision, found.people) == (30, 30)
    assert len(found.of_probes) == len(probes)
    for probe, neighbours in zip(probes.astype(np.float64), found.of_probes, strict=True):
        truth = {person: np.linalg.norm(vectors - probe, axis=1).min() for person, vectors in people.items()}
        expected = sorted(truth, key=lambda person: (truth[person], person))
        assert [neighbour.person_id for neighbour in neighbours] == expected
        distances = [neighbour.distance for neighbour in neighbours]
        assert distances == pytest.approx([truth[person] for person in expected], abs=1e-5)
        for near in neighbours:
            vectors = people[near.person_id]
            nearest = vectors[np.linalg.norm(vectors - probe, axis=1).argmin()]
            assert near.face_radius == pytest.approx(evidence.radius(nearest), abs=1e-5)
            of_template = evidence.unit(probe) @ evidence.template(vectors)
            assert near.likeness == pytest.approx(of_template, abs=0.01)  # noise, half precision


def test_embeddings_come_through_exactly(gallery: Gallery, new_face: NewFaces, pool: Pool) -> None:
    random = np.random.default_rng(3)
    vectors = [
        random.normal(0, 0.1, 128).astype(np.float32),
        np.full(128, np.finfo(np.float32).tiny, np.float32),
        random.random(128).astype(np.float32)[::-1],
        random.random(256)[::2],
    ]
    for number, vector in enumerate(vectors):
        enrol(gallery, f"person {number}", new_face(embedding=vector))
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT embedding FROM faces JOIN people ON people.id = person_id ORDER BY name")
        stored = [row[0].to_numpy() for row in cursor.fetchall()]
    for vector, kept in zip(vectors, stored, strict=True):
        assert np.array_equal(kept, vector.astype(np.float32))


@EITHER_FORM
def test_the_nearest_face_speaks_for_a_person(gallery: Gallery, new_face: NewFaces, deadline: Deadline) -> None:
    near, far = np.full(128, 0.01, np.float32), np.full(128, 0.5, np.float32)
    done = gallery.enrol(
        "default", [new_face(0, embedding=far), new_face(1, embedding=near)], name="Ada", deadline=deadline
    )
    ((neighbour,),) = gallery.nearest("default", [np.zeros(128, np.float32)], "model-1", 5, deadline).of_probes
    assert (neighbour.name, neighbour.face_id) == ("Ada", done.enrolled[1].face_id)


@EITHER_FORM
def test_equal_distances_are_ordered_by_person(gallery: Gallery, new_face: NewFaces, deadline: Deadline) -> None:
    same = np.full(128, 0.1, np.float32)
    ids = [enrol(gallery, f"person {number}", new_face(embedding=same)) for number in range(8)]
    (found,) = gallery.nearest("default", [same], "model-1", 3, deadline).of_probes
    assert [neighbour.person_id for neighbour in found] == sorted(ids)
    assert found[0].distance == 0


@EITHER_FORM
def test_an_empty_collection_has_no_neighbours(gallery: Gallery, deadline: Deadline) -> None:
    probes = np.zeros((2, 128), np.float32)
    assert gallery.nearest("Default", probes, "model-1", 3, deadline) == Neighbourhood(0, 0, 0.0, ((), ()))


@EITHER_FORM
def test_no_probes_still_give_the_revision(gallery: Gallery, new_face: NewFaces, deadline: Deadline) -> None:
    enrol(gallery, "Ada", new_face())
    assert gallery.nearest("default", [], "model-1", 3, deadline) == Neighbourhood(1, 1, 0.0, ())
    assert gallery.nearest("default", np.empty((0, 128), np.float32), "model-1", 3, deadline) == Neighbourhood(
        1, 1, 0.0, ()
    )


@EITHER_FORM
def test_other_models_and_collections_are_not_compared(
    gallery: Gallery, new_face: NewFaces, sql: Sql, deadline: Deadline
) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    probe = np.zeros(128, np.float32)
    enrol(gallery, "Ada", new_face(model_id="model-2", embedding=probe))
    gallery.enrol("visitors", [new_face(embedding=probe)], name="Grace", deadline=deadline)
    assert gallery.nearest("default", [probe], "model-1", 3, deadline) == Neighbourhood(1, 0, 0.0, ((),))
    with pytest.raises(CollectionNotFound):
        gallery.nearest("nowhere", [probe], "model-1", 3, deadline)


@EITHER_FORM
def test_what_was_enrolled_is_found_from_every_pool_at_once(
    gallery: Gallery, open_pool: Callable[..., Pool], new_face: NewFaces, deadline: Deadline
) -> None:
    other = open_pool()
    for number in range(10):
        face = new_face()
        person_id = enrol(gallery, f"person {number}", face)
        found = nearest(other, "default", [face.embedding], "model-1", 1, deadline)
        assert (found.revision, found.of_probes[0][0].person_id) == (number + 1, person_id)


@EITHER_FORM
def test_the_revision_is_that_of_the_faces_searched(gallery: Gallery, new_face: NewFaces) -> None:
    probe = np.zeros(128, np.float32)
    faces = [new_face() for _ in range(30)]

    def search(_: object) -> None:
        found = gallery.nearest("default", [probe], "model-1", 100, Deadline(60))
        assert (
            len(found.of_probes[0]) == found.people == found.revision
        )  # each enrolment below adds one person and one revision

    with ThreadPoolExecutor(6) as threads:
        writing = [threads.submit(enrol, gallery, f"person {n}", face) for n, face in enumerate(faces)]
        list(threads.map(search, range(60)))
        for job in writing:
            job.result(60)


@EITHER_FORM
def test_searching_changes_nothing(gallery: Gallery, new_face: NewFaces, deadline: Deadline) -> None:
    enrol(gallery, "Ada", new_face())
    for _ in range(3):
        assert gallery.nearest("default", [new_face().embedding], "model-1", 1, deadline).revision == 1
