"""Merging two people, and what becomes of all that is held on either."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.errors import Conflict, InvalidRequest, PersonNotFound, PreconditionFailed, RecognizerError
from recognizer.faces import Embedding, NewFace
from recognizer.gallery import cohorts
from recognizer.gallery.pool import Pool
from recognizer.gallery.rejections import MAX_OF_ONE_PERSON
from recognizer.gallery.store import Enrolment, Gallery, Idempotency

EITHER_FORM = pytest.mark.usefixtures("either_form")

Sql = Callable[[str], list[tuple[Any, ...]]]
NewFaces = Callable[..., NewFace]

NOBODY = "00000000-0000-4000-8000-000000000000"
SOUND = """
    SELECT space.people = (SELECT count(*) FROM templates WHERE space_id = space.id)
       AND space.faces = (SELECT coalesce(sum(faces), 0) FROM templates WHERE space_id = space.id)
       AND space.faces = (SELECT count(*) FROM faces WHERE model_id = ANY (space.model_ids)
                          AND faces.collection_id = space.collection_id)
    FROM spaces AS space
"""
"""True of each space whose figures are right."""


@pytest.fixture
def enrol(gallery: Gallery, new_face: NewFaces) -> Callable[..., Enrolment]:
    """Enrols faces of a name, one new one unless others are given."""
    return lambda name, *faces, **options: gallery.enrol(
        options.pop("collection", "default"), faces or [new_face()], name=name, deadline=Deadline(60), **options
    )


Enrol = Callable[..., Enrolment]


def merge(gallery: Gallery, gone: Enrolment, into: Enrolment, **options: Any) -> Any:
    return gallery.merge_people(gone.person_id, into.person_id, Deadline(60), **options)


def near(gallery: Gallery, embedding: Embedding) -> list[tuple[str, float]]:
    around = gallery.nearest("default", [embedding], "model-1", 1, Deadline(60))
    return [(each.name, round(each.distance, 4)) for each in around.of_probes[0]]


@EITHER_FORM
def test_the_faces_of_both_are_one_persons(gallery: Gallery, enrol: Enrol, new_face: NewFaces, sql: Sql) -> None:
    first, second = new_face(), new_face()
    ada, wrong = enrol("Ada", first), enrol("Aida", second)
    enrol("Grace")
    merged = merge(gallery, wrong, ada)
    assert (merged.merged_id, merged.revision) == (wrong.person_id, 4)
    assert merged.moved == {"faces": 1, "photos": 0, "rejections": 0, "idempotency_keys": 0}
    assert merged.dropped == {"faces": 0, "rejections": 0}
    person, faces = merged.into
    assert (person.id, person.name, person.faces) == (ada.person_id, "Ada", 2)
    assert [face.id for face in faces] == [ada.enrolled[0].face_id, wrong.enrolled[0].face_id]
    assert gallery.person(ada.person_id, Deadline(60)) == merged.into
    for face in (first, second):
        assert near(gallery, face.embedding)[0] == ("Ada", 0.0)
    with pytest.raises(PersonNotFound):
        gallery.person(wrong.person_id, Deadline(60))
    assert enrol("Aida").person_id != wrong.person_id, "the name is free again"
    assert sql(SOUND) == [(True,)]


def test_the_template_is_made_of_the_faces_of_both(
    gallery: Gallery, enrol: Enrol, new_face: NewFaces, sql: Sql
) -> None:
    faces = [new_face() for _ in range(4)]
    ada, wrong = enrol("Ada", *faces[:3]), enrol("Aida", faces[3])
    merge(gallery, wrong, ada)
    ((stored, count),) = sql("SELECT embedding::text, faces FROM templates")
    expected = evidence.template(np.array([face.embedding for face in reversed(faces)]))
    assert np.abs(np.fromstring(stored[1:-1], sep=",") - expected).max() < 0.004, "but for the noise"
    assert count == 4


def test_cohort_figures_are_reckoned_anew(gallery: Gallery, enrol: Enrol, pool: Pool, sql: Sql) -> None:
    people = [enrol(name) for name in ("Ada", "Aida", "Grace")]
    while cohorts.bring_up_to_date(pool, Deadline(60)):
        pass
    assert gallery.stale_cohorts(Deadline(60)) == 0
    merge(gallery, people[1], people[0])
    assert gallery.stale_cohorts(Deadline(60)) == 2
    while cohorts.bring_up_to_date(pool, Deadline(60)):
        pass
    assert gallery.stale_cohorts(Deadline(60)) == 0
    assert sql("SELECT count(*) FROM cohorts") == [(2,)]


@EITHER_FORM
def test_faces_of_other_models_keep_their_spaces(gallery: Gallery, enrol: Enrol, new_face: NewFaces, sql: Sql) -> None:
    ada = enrol("Ada", new_face(model_id="old/1"))
    wrong = enrol("Aida", new_face(model_id="new/1"), new_face(model_id="new/2"))
    merge(gallery, wrong, ada)
    assert sql(
        "SELECT name, people, spaces.faces, templates.person_id FROM spaces"
        " JOIN templates ON space_id = spaces.id ORDER BY name"
    ) == [("new", 1, 2, ada.person_id), ("old", 1, 1, ada.person_id)]
    assert sql(SOUND) == [(True,), (True,)]


@EITHER_FORM
def test_a_photo_that_both_have_is_kept_once(gallery: Gallery, enrol: Enrol, new_face: NewFaces, sql: Sql) -> None:
    old, new = new_face(photo="same", model_id="old/1"), new_face(photo="same", model_id="new/1")
    ada, wrong = enrol("Ada", old), enrol("Aida", new, new_face(model_id="new/1"))
    merged = merge(gallery, wrong, ada)
    assert (merged.moved["faces"], merged.dropped["faces"]) == (2, 1)
    assert {face.model_id for face in merged.into.faces} == {"new/1"}, "the later one: its model is in use"
    assert sql("SELECT name, people, faces FROM spaces ORDER BY name") == [("new", 1, 2), ("old", 0, 0)]
    assert sql(SOUND) == [(True,), (True,)]


@EITHER_FORM
def test_rejections_go_along_unless_the_merger_refutes_them(gallery: Gallery, enrol: Enrol, new_face: NewFaces) -> None:
    hers, elsewhere = new_face(), new_face()
    ada, wrong = enrol("Ada", new_face()), enrol("Aida", hers)

    def reject(whose: Enrolment, embedding: Embedding, model_id: str = "model-1") -> str:
        return gallery.reject(whose.person_id, embedding, model_id, "local", Deadline(60))[0].id

    reject(ada, hers.embedding + np.float32(0.001))  # "not Ada": it was Aida, who is Ada
    kept = [
        reject(ada, elsewhere.embedding),
        reject(wrong, elsewhere.embedding),
        reject(wrong, hers.embedding),  # of her own face; nothing that the merger is about
        reject(ada, hers.embedding, "another/1"),  # in another space; nothing is known
    ]
    merged = merge(gallery, wrong, ada)
    assert (merged.moved["rejections"], merged.dropped["rejections"]) == (2, 1)
    assert sorted(r.id for r in gallery.rejections(ada.person_id, Deadline(60))) == sorted(kept)


def test_too_many_rejections_together_are_refused(gallery: Gallery, enrol: Enrol, sql: Sql) -> None:
    ada, wrong = enrol("Ada"), enrol("Aida")
    sql(
        "INSERT INTO rejections (id, person_id, collection_id, embedding, model_id, space, created_by)"
        " SELECT gen_random_uuid(), people.id, collection_id, array_fill(0, ARRAY[128])::vector, 'm/1', 'm', 'local'"
        f" FROM people, generate_series(1, {MAX_OF_ONE_PERSON // 2 + 1})"
    )
    with pytest.raises(Conflict, match="rejections"):
        merge(gallery, wrong, ada)
    assert gallery.person(wrong.person_id, Deadline(60)).person.faces == 1
    assert gallery.collection("default", Deadline(60)).revision == 2


def test_a_repeated_enrolment_names_who_has_the_photos_now(
    gallery: Gallery, enrol: Enrol, new_face: NewFaces, sql: Sql
) -> None:
    face, once = new_face(), Idempotency("key", b"request")
    ada, wrong = enrol("Ada"), enrol("Aida", face, idempotency=once)
    assert merge(gallery, wrong, ada).moved["idempotency_keys"] == 1
    again = enrol("Aida", face, idempotency=once)
    assert (again.person_id, again.name, again.enrolled) == (ada.person_id, "Ada", wrong.enrolled)
    assert sql("SELECT count(*) FROM people") == [(1,)]


@pytest.mark.parametrize(
    ("of_gone", "of_into", "expected"),
    [
        ({"external_id": "7", "metadata": {"a": 1}}, {}, ("7", {"a": 1})),
        ({"metadata": {"a": 1}}, {"external_id": "8", "metadata": {"b": 2}}, ("8", {"b": 2})),
        ({"external_id": "7"}, {"metadata": {"b": 2}}, ("7", {"b": 2})),
    ],
)
def test_what_is_lacking_is_taken_over(
    gallery: Gallery, enrol: Enrol, of_gone: dict[str, Any], of_into: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    merged = merge(gallery, enrol("Aida", **of_gone), enrol("Ada", **of_into))
    assert (merged.into.person.external_id, merged.into.person.metadata) == expected


def test_two_external_ids_are_two_people(gallery: Gallery, enrol: Enrol) -> None:
    ada, wrong = enrol("Ada", external_id="7"), enrol("Aida", external_id="8")
    with pytest.raises(Conflict, match="external_id"):
        merge(gallery, wrong, ada)
    gallery.change_person(wrong.person_id, {"external_id": None}, Deadline(60))
    assert merge(gallery, wrong, ada).into.person.external_id == "7"


def test_what_cannot_be_merged_is_refused_and_changes_nothing(gallery: Gallery, enrol: Enrol, sql: Sql) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    ada, visitor = enrol("Ada"), enrol("Ada", collection="visitors")
    everything = sql("SELECT * FROM people ORDER BY id"), sql("SELECT * FROM faces ORDER BY id")

    def merge_ids(gone: str, into: str, **options: Any) -> None:
        gallery.merge_people(gone, into, Deadline(60), **options)

    with pytest.raises(InvalidRequest, match="themselves"):
        merge_ids(ada.person_id, ada.person_id.upper())
    for gone, into in ((ada, visitor), (visitor, ada)):
        with pytest.raises(Conflict, match="different collections"):
            merge_ids(gone.person_id, into.person_id)
        with pytest.raises(PersonNotFound):
            merge_ids(gone.person_id, into.person_id, collection="default")
    for gone, into in ((ada.person_id, NOBODY), (NOBODY, ada.person_id), (ada.person_id, "1; DROP TABLE people")):
        with pytest.raises(PersonNotFound):
            merge_ids(gone, into)
    with pytest.raises(PreconditionFailed):
        merge_ids(ada.person_id, enrol("Aida").person_id, only_if=lambda version: False)
    sql("DELETE FROM people WHERE name = 'Aida'")
    assert (sql("SELECT * FROM people ORDER BY id"), sql("SELECT * FROM faces ORDER BY id")) == everything


@EITHER_FORM
def test_merging_enrolling_and_erasing_at_once_leave_a_sound_gallery(
    gallery: Gallery, pool: Pool, enrol: Enrol, new_face: NewFaces, sql: Sql
) -> None:
    """Everybody works on the same few people in every order; nobody waits for ever and nothing is left half done."""
    names = ("a", "b", "c")
    faces = [new_face() for _ in range(24)]
    over = threading.Event()
    counted: list[str] = []

    def ids() -> list[str]:
        return [person.id for person in gallery.people("default", deadline=Deadline(60))[0]]

    def work(number: int) -> None:
        enrol(names[number % 3], faces[number])
        known = ids()
        with contextlib.suppress(PersonNotFound, InvalidRequest):
            gallery.merge_people(known[number % len(known)], known[(number + 1) % len(known)], Deadline(60))
            counted.append("merged")
        if number % 5 == 0:
            with contextlib.suppress(PersonNotFound):
                gallery.delete_person(ids()[-1], Deadline(60))
        if number % 4 == 0:
            gallery.change_person(enrol(names[number % 3]).person_id, {"metadata": {"n": number}}, Deadline(60))

    def keep_cohorts() -> None:
        while not over.is_set():
            cohorts.bring_up_to_date(pool, Deadline(60))

    with ThreadPoolExecutor(7) as threads:
        keeping = threads.submit(keep_cohorts)
        jobs = [threads.submit(work, number) for number in range(len(faces))]
        failures = [job.exception(60) for job in jobs]
        over.set()
        assert keeping.exception(60) is None
    real = [f for f in failures if f is not None and not isinstance(f, PersonNotFound | IndexError | ZeroDivisionError)]
    assert not real
    assert len(counted) >= 3, "else this has tested nothing"
    assert sql(SOUND) == [(True,)]
    assert sql("SELECT count(*) FROM faces WHERE NOT EXISTS (SELECT FROM people WHERE id = person_id)") == [(0,)]
    assert sql("SELECT count(*) FROM people") == sql("SELECT count(*) FROM templates")


def test_who_keeps_the_cohorts_waits_for_nobody(gallery: Gallery, enrol: Enrol, pool: Pool) -> None:
    """Else it would hold rows of some people and wait for others that somebody who merges holds, and the other way."""
    ada, _, _ = enrol("Ada"), enrol("Aida"), enrol("Grace")
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM cohorts WHERE person_id = %s FOR UPDATE", (ada.person_id,))
        assert cohorts.bring_up_to_date(pool, Deadline(5)) == 3
        assert gallery.stale_cohorts(Deadline(60)) == 1
    while cohorts.bring_up_to_date(pool, Deadline(60)):
        pass
    assert gallery.stale_cohorts(Deadline(60)) == 0


def test_two_who_merge_each_other_get_one_person(gallery: Gallery, enrol: Enrol, sql: Sql) -> None:
    for _ in range(5):
        ada, wrong = enrol("Ada"), enrol("Aida")
        start = threading.Barrier(2)

        def run(gone: Enrolment, into: Enrolment, start: threading.Barrier = start) -> object:
            start.wait(30)
            try:
                return merge(gallery, gone, into)
            except RecognizerError as error:
                return error

        with ThreadPoolExecutor(2) as threads:
            answers = [job.result(60) for job in (threads.submit(run, ada, wrong), threads.submit(run, wrong, ada))]
        assert sum(isinstance(answer, PersonNotFound) for answer in answers) == 1, answers
        assert sql("SELECT count(*) FROM people") == [(1,)]
        assert sql("SELECT count(*) FROM faces") == [(2,)]
        sql("DELETE FROM people; DELETE FROM spaces")
