"""Embeddings that are stored encrypted only: found as the others are, and by nobody without the key."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import Conflict, EncryptionKeyMissing, SealBroken
from recognizer.faces import Neighbourhood, NewFace
from recognizer.gallery import cohorts, resealing, sealing, switching
from recognizer.gallery.pool import Pool
from recognizer.gallery.sealed_cohorts import Shut
from recognizer.gallery.search import Limits, nearest
from recognizer.gallery.store import Gallery
from recognizer.keyring import Key, Keyring, new_key

OpenPool = Callable[..., Pool]
NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]

ON, OFF = {"encrypt_embeddings": True}, {"encrypt_embeddings": False}
WAYS = {"all faces": Limits(), "all templates": Limits(compared_faces=0)}
PLAIN_LEFT = """
    SELECT (SELECT count(*) FROM faces WHERE embedding IS NOT NULL OR sealed IS NULL)
         + (SELECT count(*) FROM templates WHERE embedding IS NOT NULL OR sealed IS NULL)
         + (SELECT count(*) FROM rejections WHERE embedding IS NOT NULL OR sealed IS NULL)
"""


Enrol = Callable[..., str]


def names(found: Neighbourhood) -> list[str]:
    return [near.name for near in found.of_probes[0]]


@pytest.mark.parametrize("way", WAYS)
def test_the_answers_are_those_of_a_plain_collection(
    gallery: Gallery, pool: Pool, enrol: Enrol, new_face: NewFaces, deadline: Deadline, way: str
) -> None:
    random = np.random.default_rng(2)
    people = [enrol(f"person {n}", int(random.integers(1, 6))) for n in range(90)]
    for person_id in people[:30]:
        gallery.reject(person_id, new_face().embedding, "model-1", "local", deadline)
    while cohorts.bring_up_to_date(pool, deadline):
        pass
    probes = [*(new_face().embedding for _ in range(5)), np.zeros(128, np.float32)]

    def search() -> Neighbourhood:
        return nearest(pool, "default", probes, "model-1", 1, deadline, WAYS[way])

    plain = search()
    gallery.change_collection("default", ON, deadline)
    sealed = search()
    assert (sealed.revision, sealed.people, sealed.shift) == (plain.revision, plain.people, plain.shift)
    for before, after in zip(plain.of_probes, sealed.of_probes, strict=True):
        assert [(each.person_id, each.name, each.face_id, each.cohort) for each in after] == [
            (each.person_id, each.name, each.face_id, each.cohort) for each in before
        ]
        for member, apart in (("distance", 1e-6), ("likeness", 1e-3), ("face_radius", 1e-6)):
            expected = [getattr(each, member) for each in before]
            assert [getattr(each, member) for each in after] == pytest.approx(expected, abs=apart)
        for one, other in zip(before, after, strict=True):
            assert other.rejected_distance == pytest.approx(one.rejected_distance, abs=1e-6)
    gallery.change_collection("default", OFF, deadline)
    assert search() == plain


def test_nothing_stays_plain_and_back_again_everything_is_as_it_was(
    gallery: Gallery, enrol: Enrol, new_face: NewFaces, sql: Sql, deadline: Deadline
) -> None:
    gallery.reject(enrol("Ada", 3), new_face().embedding, "model-1", "local", deadline)
    stored = "SELECT id, embedding::text FROM {} ORDER BY id"
    tables = (stored.format("faces"), stored.format("rejections"), "SELECT person_id, embedding::text FROM templates")
    before = [sql(each) for each in tables]
    gallery.change_collection("default", ON, deadline)
    enrol("Grace")
    gallery.reject(enrol("Ada"), new_face().embedding, "model-1", "local", deadline)
    assert sql(PLAIN_LEFT) == [(0,)]
    assert sql("SELECT count(*) FROM faces") == [(5,)]
    gallery.change_collection("default", OFF, deadline)
    after = [dict(sql(each)) for each in tables[:2]]
    for rows, known in zip(before, after, strict=False):
        assert set(rows) <= set(known.items())
    assert sql("SELECT count(*) FROM templates WHERE sealed IS NOT NULL OR revision IS NOT NULL") == [(0,)]


def test_what_one_worker_enrols_or_erases_the_others_know_at_once(
    gallery: Gallery, pool: Pool, encrypted: None, enrol: Enrol, new_face: NewFaces, deadline: Deadline
) -> None:
    others = [Gallery(pool) for _ in range(2)]
    probe = new_face().embedding
    people: list[str] = []
    for number in range(12):
        people.append(enrol(f"person {number}", 1 + number % 3))
        if number % 4 == 3:
            gallery.delete_person(people.pop(0), deadline)
        for other in others[: 1 + number % 2]:  # the second one is behind now and then
            found = other.nearest("default", [probe], "model-1", 1, deadline)
            assert {near.person_id for near in found.of_probes[0]} == set(people)
            assert found.people == len(people)


def test_a_search_is_right_while_others_write_and_switch(
    gallery: Gallery, enrol: Enrol, new_face: NewFaces, deadline: Deadline
) -> None:
    face = new_face()
    gallery.enrol("default", [face], name="Ada", deadline=deadline)
    over = False

    def search() -> int:
        searched = 0
        while not over:
            found = gallery.nearest("default", [face.embedding], "model-1", 1, deadline)
            assert found.of_probes[0][0].name == "Ada"
            assert found.of_probes[0][0].distance == pytest.approx(0, abs=1e-6)
            assert len(found.of_probes[0]) == found.people
            searched += 1
        return searched

    with ThreadPoolExecutor(4) as threads:
        searching = [threads.submit(search) for _ in range(3)]
        try:
            for number in range(12):
                gallery.change_collection("default", OFF if number % 3 == 2 else ON, deadline)
                person_id = enrol(f"person {number}")
                if number % 2:
                    gallery.delete_person(person_id, deadline)
        finally:
            over = True
        assert all(each.result() > 3 for each in searching)


def test_without_the_key_this_collection_alone_is_shut(
    gallery: Gallery, open_pool: OpenPool, encrypted: None, enrol: Enrol, new_face: NewFaces, deadline: Deadline
) -> None:
    ada = enrol("Ada")
    gallery.create_collection("doors", {}, deadline)
    enrol("Grace", collection="doors")
    for keyring in (Keyring(), Keyring.of_text(new_key())):
        other = Gallery(open_pool(keyring=keyring))
        for call in (
            lambda other=other: other.nearest("default", [new_face().embedding], "model-1", 1, deadline),
            lambda other=other: other.enrol("default", [new_face()], name="Ada", deadline=deadline),
            lambda other=other: other.embeddings("default", "model-1", deadline),
            lambda other=other: other.person_faces(ada, "model-1", deadline),
            lambda other=other: other.change_collection("default", OFF, deadline),
        ):
            with pytest.raises(EncryptionKeyMissing):
                call()
        assert names(other.nearest("doors", [new_face().embedding], "model-1", 1, deadline)) == ["Grace"]
    assert gallery.person(ada, deadline).person.faces == 1
    assert Gallery(open_pool(keyring=Keyring())).delete_person(ada, deadline).left == 0


def test_without_any_key_nothing_can_be_switched_on(open_pool: OpenPool, deadline: Deadline) -> None:
    gallery = Gallery(open_pool(keyring=Keyring()))
    with pytest.raises(EncryptionKeyMissing, match="create-key"):
        gallery.change_collection("default", ON, deadline)
    with pytest.raises(EncryptionKeyMissing, match="create-key"):
        gallery.create_collection("doors", ON, deadline)
    assert [each.collection.name for each in gallery.collections(deadline)] == ["default"]


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE faces SET sealed = overlay(sealed PLACING '\\x00'::bytea FROM 100)",
        "UPDATE faces SET sealed = (SELECT other.sealed FROM faces AS other WHERE other.id <> faces.id)",
        "UPDATE templates SET sealed = (SELECT sealed FROM templates AS other"
        " WHERE other.person_id <> templates.person_id)",
        "UPDATE faces SET sealed = '\\x01'",
    ],
)
def test_what_was_tampered_with_is_never_answered_from(
    gallery: Gallery, encrypted: None, enrol: Enrol, new_face: NewFaces, sql: Sql, deadline: Deadline, tamper: str
) -> None:
    enrol("Ada")
    enrol("Grace")
    sql(tamper)
    for _ in range(2):
        with pytest.raises(SealBroken):
            gallery.nearest("default", [new_face().embedding], "model-1", 1, deadline)


def test_too_many_faces_are_refused_before_anything_is_stored(
    gallery: Gallery, encrypted: None, enrol: Enrol, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "MAX_FACES", 3)
    enrol("Ada", 2)
    with pytest.raises(Conflict, match="at most 3 faces"):
        enrol("Grace", 2)
    enrol("Grace")
    assert [each.name for each in gallery.people("default", deadline=deadline)[0]] == ["Ada", "Grace"]
    monkeypatch.setattr(switching, "MAX_FACES", 2)
    with pytest.raises(Conflict, match="recognizer export"):
        gallery.change_collection("default", OFF, deadline)
    assert gallery.collection("default", deadline).encrypt_embeddings
    assert gallery.change_collection("default", ON, deadline).collection.encrypt_embeddings  # nothing to convert


def test_with_a_new_key_the_old_one_is_soon_needed_no_more(
    gallery: Gallery,
    open_pool: OpenPool,
    key: Key,
    encrypted: None,
    enrol: Enrol,
    new_face: NewFaces,
    deadline: Deadline,
) -> None:
    gallery.reject(enrol("Ada", 3), new_face().embedding, "model-1", "local", deadline)
    enrol("Grace")
    probe = [new_face().embedding]
    before = gallery.nearest("default", probe, "model-1", 1, deadline)
    fresh = Key.of_text(new_key())
    pool = open_pool(keyring=Keyring([fresh, key]))
    for each in resealing.SEALED:
        last = None
        while (batch := resealing.reseal_some(pool, each, key.id, last)) is not None:
            assert not batch.damaged
            last = batch.last
    found = resealing.by_key(pool)
    assert {what: dict(counts) for what, counts in found.items() if counts} == {
        "embeddings": {fresh.id: 4}, "templates": {fresh.id: 2}, "rejected faces": {fresh.id: 1}
    }  # fmt: skip
    alone = Gallery(open_pool(keyring=Keyring([fresh])))
    assert alone.nearest("default", probe, "model-1", 1, deadline) == before


def test_a_collection_that_cannot_be_decrypted_keeps_no_other_from_its_figures(
    gallery: Gallery, open_pool: OpenPool, encrypted: None, enrol: Enrol, deadline: Deadline
) -> None:
    enrol("Ada")
    gallery.create_collection("doors", {}, deadline)
    for name in ("Grace", "Joan"):
        enrol(name, collection="doors")
    pool, shut = open_pool(keyring=Keyring()), Shut()
    done = failed = 0
    until = time.monotonic() + 30
    while done < 2 and time.monotonic() < until:
        try:
            done += cohorts.bring_up_to_date(pool, deadline, shut=shut)
        except EncryptionKeyMissing:
            failed += 1
    assert (done, failed <= 1) == (2, True)
