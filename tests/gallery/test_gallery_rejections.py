"""Rejections: which are kept, in what order, who may take them back, and what happens when many do it at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import Conflict, InvalidRequest, PersonNotFound, RejectionNotFound
from recognizer.faces import Embedding, NewFace, Rejection
from recognizer.gallery.rejections import MAX_OF_ONE_PERSON
from recognizer.gallery.store import Gallery

EITHER_FORM = pytest.mark.usefixtures("either_form")

Sql = Callable[[str], list[tuple[Any, ...]]]
NewFaces = Callable[..., NewFace]

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def add(gallery: Gallery, new_face: NewFaces) -> Callable[..., str]:
    """Enrols a name with one face; returns the person's id."""
    return lambda name, collection="default": (
        gallery.enrol(collection, [new_face()], name=name, deadline=Deadline(60)).person_id
    )


@pytest.fixture
def reject(gallery: Gallery, new_face: NewFaces) -> Callable[..., tuple[Rejection, int]]:
    """Rejects a new face for a person, unless another embedding is given."""

    def do(person_id: str, embedding: Embedding | None = None, **options: Any) -> tuple[Rejection, int]:
        embedding = new_face().embedding if embedding is None else embedding
        return gallery.reject(person_id, embedding, "model-1", "local", Deadline(60), **options)

    return do


Add = Callable[..., str]
Reject = Callable[..., tuple[Rejection, int]]


def ids(gallery: Gallery, person_id: str) -> list[str]:
    return [rejection.id for rejection in gallery.rejections(person_id, Deadline(60))]


def test_a_rejection_keeps_the_face_and_who_said_so(gallery: Gallery, add: Add, sql: Sql, deadline: Deadline) -> None:
    person_id = add("Ada")
    face = np.linspace(-0.5, 0.5, 128, dtype=np.float32)
    kept, _ = gallery.reject(person_id.upper(), face, "dlib/v1/1", "key-7", deadline)
    assert (kept.model_id, kept.created_by) == ("dlib/v1/1", "key-7")
    assert kept.created_at.tzinfo is not None
    assert gallery.rejections(person_id.upper(), deadline) == (kept,)
    ((stored, person, collection),) = sql("SELECT embedding::text, person_id, collection_id FROM rejections")
    assert np.allclose(np.fromstring(stored[1:-1], sep=","), face, atol=1e-6)
    assert (str(person), collection) == (person_id, sql("SELECT id FROM collections")[0][0])


def test_rejections_come_oldest_first_and_only_those_of_the_person(gallery: Gallery, add: Add, reject: Reject) -> None:
    ada, grace = add("Ada"), add("Grace")
    made = [reject(ada)[0].id for _ in range(5)]
    other = reject(grace)[0].id
    assert ids(gallery, ada) == made
    assert ids(gallery, grace) == [other]


def test_each_rejection_and_each_undoing_grows_the_revision(
    gallery: Gallery, add: Add, reject: Reject, deadline: Deadline
) -> None:
    person_id = add("Ada")
    kept, revision = reject(person_id)
    assert revision == 2 == gallery.collection("default", deadline).revision
    assert gallery.undo_rejection(person_id, kept.id, deadline) == 3
    assert gallery.collection("default", deadline).revision == 3


def test_an_undone_rejection_is_gone_and_cannot_be_undone_again(
    gallery: Gallery, add: Add, reject: Reject, deadline: Deadline
) -> None:
    person_id = add("Ada")
    first, second = reject(person_id)[0], reject(person_id)[0]
    gallery.undo_rejection(person_id, first.id.upper(), deadline)
    assert ids(gallery, person_id) == [second.id]
    with pytest.raises(RejectionNotFound):
        gallery.undo_rejection(person_id, first.id, deadline)
    assert gallery.collection("default", deadline).revision == 4, "a failed attempt changes nothing"


@pytest.mark.parametrize("rejection_id", ["none", "", NOBODY, "\x00", "1; DROP TABLE rejections"])
def test_unknown_and_malformed_rejections_are_not_found(
    gallery: Gallery, add: Add, reject: Reject, deadline: Deadline, rejection_id: str
) -> None:
    person_id = add("Ada")
    reject(person_id)
    with pytest.raises(RejectionNotFound):
        gallery.undo_rejection(person_id, rejection_id, deadline)
    assert len(ids(gallery, person_id)) == 1


def test_a_rejection_is_undone_only_with_its_own_person(
    gallery: Gallery, add: Add, reject: Reject, deadline: Deadline
) -> None:
    ada, grace = add("Ada"), add("Grace")
    kept, _ = reject(ada)
    with pytest.raises(RejectionNotFound):
        gallery.undo_rejection(grace, kept.id, deadline)
    assert ids(gallery, ada) == [kept.id]


@pytest.mark.parametrize("person_id", ["nobody", "", NOBODY, "\x00"])
def test_an_unknown_person_is_not_found(gallery: Gallery, reject: Reject, deadline: Deadline, person_id: str) -> None:
    with pytest.raises(PersonNotFound):
        reject(person_id)
    with pytest.raises(PersonNotFound):
        gallery.rejections(person_id, deadline)
    with pytest.raises(PersonNotFound):
        gallery.undo_rejection(person_id, NOBODY, deadline)


def test_a_key_to_one_collection_does_not_reach_the_rejections_of_another(
    gallery: Gallery, add: Add, reject: Reject, sql: Sql, deadline: Deadline
) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    person_id = add("Ada", "visitors")
    kept, revision = reject(person_id, collection="VISITORS")
    assert revision == 2
    with pytest.raises(PersonNotFound):
        reject(person_id, collection="default")
    with pytest.raises(PersonNotFound):
        gallery.rejections(person_id, deadline, collection="default")
    with pytest.raises(PersonNotFound):
        gallery.undo_rejection(person_id, kept.id, deadline, collection="default")
    assert ids(gallery, person_id) == [kept.id]
    assert gallery.collection("default", deadline).revision == 0


@pytest.mark.parametrize(
    "embedding",
    [
        np.zeros(127, np.float32),
        np.zeros(129, np.float32),
        np.zeros((1, 128), np.float32),
        np.full(128, np.nan, np.float32),
        np.r_[np.zeros(127), -np.inf].astype(np.float32),
        np.full(128, 1e30, np.float32),
        np.full(128, 1e300),
        np.full(128, True),
        np.full(128, "0.1"),
    ],
    ids=["127", "129", "a matrix", "NaN", "infinity", "too large", "no float32", "truth values", "text"],
)
@EITHER_FORM
def test_what_is_no_embedding_is_refused(
    gallery: Gallery, add: Add, reject: Reject, deadline: Deadline, embedding: Embedding
) -> None:
    person_id = add("Ada")
    with pytest.raises(InvalidRequest, match="128 finite numbers"):
        reject(person_id, embedding)
    assert ids(gallery, person_id) == []
    assert gallery.collection("default", deadline).revision == 1


def test_a_person_has_a_thousand_rejections_at_most(gallery: Gallery, add: Add, reject: Reject, sql: Sql) -> None:
    person_id, other = add("Ada"), add("Grace")
    first, _ = reject(person_id)
    sql(
        "INSERT INTO rejections SELECT gen_random_uuid(), person_id, collection_id, embedding, model_id, space,"
        f" created_at, created_by FROM rejections, generate_series(2, {MAX_OF_ONE_PERSON})"
    )
    with pytest.raises(Conflict, match="undo old ones"):
        reject(person_id)
    reject(other)
    gallery.undo_rejection(person_id, first.id, Deadline(60))
    reject(person_id)
    assert len(ids(gallery, person_id)) == MAX_OF_ONE_PERSON


def test_many_at_once_are_all_kept_in_the_order_of_their_revisions(gallery: Gallery, add: Add, reject: Reject) -> None:
    person_id = add("Ada")
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: reject(person_id), range(24)))
    assert sorted(revision for _, revision in made) == list(range(2, 26))
    in_order = sorted(made, key=lambda each: each[1])
    assert ids(gallery, person_id) == [rejection.id for rejection, _ in in_order]


def test_undoing_from_many_threads_happens_once(gallery: Gallery, add: Add, reject: Reject) -> None:
    person_id = add("Ada")
    kept, _ = reject(person_id)

    def attempt(_: int) -> bool:
        with contextlib.suppress(RejectionNotFound):
            gallery.undo_rejection(person_id, kept.id, Deadline(60))
            return True
        return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(8))) == 1
    assert gallery.collection("default", Deadline(60)).revision == 3


def test_erasing_a_person_erases_and_counts_the_rejections(
    gallery: Gallery, add: Add, reject: Reject, sql: Sql, deadline: Deadline
) -> None:
    ada, grace = add("Ada"), add("Grace")
    for person_id in (ada, ada, grace):
        reject(person_id)
    receipt = gallery.delete_person(ada, deadline)
    assert (receipt.deleted["rejections"], receipt.left) == (2, 0)
    assert sql("SELECT person_id::text FROM rejections") == [(grace,)]


@EITHER_FORM
def test_rejecting_and_erasing_at_once_never_fails_halfway(
    gallery: Gallery, add: Add, reject: Reject, sql: Sql
) -> None:
    for _ in range(10):
        person_id = add("Ada")

        def attempt(number: int, person_id: str = person_id) -> None:
            with contextlib.suppress(PersonNotFound):
                if number == 3:
                    gallery.delete_person(person_id, Deadline(60))
                reject(person_id)

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(attempt, range(6)))
        assert sql("SELECT count(*) FROM rejections") == sql("SELECT count(*) FROM people") == [(0,)]


@EITHER_FORM
def test_a_rejection_counts_whatever_the_number_of_crops(
    gallery: Gallery, new_face: NewFaces, deadline: Deadline
) -> None:
    """Nobody was enrolled with the model that the rejected face was seen by, only with one of its space."""
    face = new_face(model_id="net/1crop")
    person_id = gallery.enrol("default", [face], name="Ada", deadline=deadline).person_id
    other = face.embedding + np.float32(0.01)
    gallery.reject(person_id, other, "net/6crop-cnn", "local", deadline)
    gallery.reject(person_id, face.embedding, "net/other/1crop", "local", deadline)  # of another space
    for model_id in ("net/1crop", "net/6crop-cnn"):
        ((near,),) = gallery.nearest("default", [other], model_id, 1, deadline).of_probes
        assert near.rejected_distance == pytest.approx(0, abs=1e-6)
    ((near,),) = gallery.nearest("default", [face.embedding], "net/1crop", 1, deadline).of_probes
    assert near.rejected_distance == pytest.approx(np.sqrt(128) * 0.01, abs=1e-4)
