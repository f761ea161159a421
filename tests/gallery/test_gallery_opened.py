"""What a worker has open of encrypted collections: read once, brought up to date, let go."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recognizer.deadline import Deadline
from recognizer.errors import DeadlineExceeded, SealBroken
from recognizer.faces import Neighbourhood, NewFace
from recognizer.gallery import opened, sealed_search, search
from recognizer.gallery.opened import Opened
from recognizer.gallery.pool import Pool
from recognizer.gallery.search import nearest
from recognizer.gallery.snapshot import Snapshot
from recognizer.gallery.store import Gallery

Enrol = Callable[..., str]
NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]

ON = {"encrypt_embeddings": True}


@pytest.fixture
def look(gallery: Gallery, new_face: NewFaces) -> Callable[..., Neighbourhood]:
    """Searches for somebody new."""
    probe = new_face().embedding

    def search_for(seconds: float = 60.0, collection: str = "default") -> Neighbourhood:
        return gallery.nearest(collection, [probe], "model-1", 1, Deadline(seconds))

    return search_for


Look = Callable[..., Neighbourhood]


def names(found: Neighbourhood) -> list[str]:
    return [near.name for near in found.of_probes[0]]


def held(memory: Opened, sql: Sql) -> set[str]:
    """The ids of the people of `default` who are in memory."""
    ((space_id,),) = sql("SELECT space.id FROM spaces AS space JOIN collections ON collections.id = collection_id"
                         " WHERE name_key = 'default'")  # fmt: skip
    known = memory.at_hand(space_id)
    return set(known.people) if known is not None else set()


def test_only_who_has_changed_is_decrypted_again(
    gallery: Gallery, encrypted: None, enrol: Enrol, new_face: NewFaces, deadline: Deadline, decryptions: list[str]
) -> None:
    for number in range(20):
        enrol(f"person {number}", 2)
    probe = new_face().embedding
    assert len(names(gallery.nearest("default", [probe], "model-1", 1, deadline))) == 20
    assert len(decryptions) >= 60
    decryptions.clear()
    gallery.nearest("default", [probe], "model-1", 1, deadline)
    assert decryptions == []
    ada = enrol("Ada")
    decryptions.clear()
    assert "Ada" in names(gallery.nearest("default", [probe], "model-1", 1, deadline))
    assert [place.split(":")[0] for place in decryptions] == ["template", "embedding"]
    assert any(ada in place for place in decryptions)


def test_the_erased_leave_the_memory_with_the_next_search_of_anybody(
    gallery: Gallery, memory: Opened, encrypted: None, enrol: Enrol, new_face: NewFaces, sql: Sql, deadline: Deadline
) -> None:
    ada, grace, joan = enrol("Ada", 2), enrol("Grace"), enrol("Joan")
    probe = new_face().embedding
    gallery.nearest("default", [probe], "model-1", 1, deadline)
    assert held(memory, sql) == {ada, grace, joan}
    gallery.delete_person(ada, deadline)
    assert sorted(names(gallery.nearest("default", [probe], "model-1", 1, deadline))) == ["Grace", "Joan"]
    assert held(memory, sql) == {grace, joan}
    gallery.delete_person(grace, deadline)  # one went and one came: their number is as it was
    kay = enrol("Kay")
    gallery.nearest("default", [probe], "model-1", 1, deadline)
    assert held(memory, sql) == {joan, kay}


def test_the_erased_leave_the_memory_though_nobody_searches(
    gallery: Gallery, encrypted: None, enrol: Enrol, new_face: NewFaces, sql: Sql, pool: Pool, deadline: Deadline,
    eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(opened, "LOOK_SECONDS", 0.05)
    ada, grace = enrol("Ada"), enrol("Grace")
    with Opened(pool) as memory:
        nearest(pool, "default", [new_face().embedding], "model-1", 1, deadline, opened=memory)
        assert held(memory, sql) == {ada, grace}
        gallery.delete_person(ada, deadline)
        eventually(lambda: held(memory, sql) == {grace})
        gallery.delete_collection("default", deadline)
        eventually(lambda: memory.bytes == 0)


def test_what_nobody_uses_or_nobody_can_compare_is_let_go(
    gallery: Gallery, memory: Opened, encrypted: None, enrol: Enrol, new_face: NewFaces, pool: Pool,
    deadline: Deadline, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    enrol("Ada")
    probe = [new_face().embedding]
    gallery.nearest("default", probe, "model-1", 1, deadline)
    memory.tidy()
    assert memory.bytes > 500
    monkeypatch.setattr(opened, "UNUSED_SECONDS", -1.0)
    memory.tidy()
    assert memory.bytes == 0
    monkeypatch.undo()
    gallery.nearest("default", probe, "model-1", 1, deadline)
    pool.close()
    memory.tidy()
    assert memory.bytes > 500
    monkeypatch.setattr(opened, "OUT_OF_SIGHT_SECONDS", -1.0)
    memory.tidy()
    assert memory.bytes == 0


def test_beyond_the_budget_the_least_recently_used_goes(
    gallery: Gallery, pool: Pool, enrol: Enrol, new_face: NewFaces, deadline: Deadline
) -> None:
    for name in ("one", "two", "three"):
        gallery.create_collection(name, ON, deadline)
        enrol("Ada", 10, collection=name)
    memory = Opened(pool, budget_bytes=2 * 11 * 700)
    for name in ("one", "two", "one", "three"):
        nearest(pool, name, [new_face().embedding], "model-1", 1, deadline, opened=memory)
    assert 11 * 500 < memory.bytes < 2 * 11 * 700
    tiny = Opened(pool, budget_bytes=1)
    for _ in range(2):
        nearest(pool, "one", [new_face().embedding], "model-1", 1, deadline, opened=tiny)
    assert tiny.bytes > 11 * 500  # what is searched stays


def test_many_who_search_at_once_read_everything_once(
    gallery: Gallery, encrypted: None, enrol: Enrol, new_face: NewFaces, deadline: Deadline, decryptions: list[str]
) -> None:
    for number in range(50):
        enrol(f"person {number}")
    decryptions.clear()
    probe = new_face().embedding
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: gallery.nearest("default", [probe], "model-1", 1, deadline), range(16)))
    assert all(each == found[0] for each in found)
    assert len(decryptions) == 100


def test_what_took_longer_to_read_than_a_request_may_take_is_there_for_the_next(
    encrypted: None, enrol: Enrol, look: Look, decryptions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol("Ada", 3)
    refreshed = opened.refreshed

    def slowly(*given: Any) -> Snapshot | None:
        found = refreshed(*given)
        time.sleep(0.5)
        return found

    monkeypatch.setattr(opened, "refreshed", slowly)
    with pytest.raises(DeadlineExceeded):
        look(0.4)
    decryptions.clear()
    assert names(look()) == ["Ada"]
    assert decryptions == []


def test_what_cannot_be_decrypted_is_not_tried_by_each_request(
    encrypted: None, enrol: Enrol, look: Look, sql: Sql, decryptions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol("Ada")
    decryptions.clear()
    sql("UPDATE faces SET sealed = set_byte(sealed, 100, 255 - get_byte(sealed, 100))")
    for expected in (2, 2):
        with pytest.raises(SealBroken, match="restore a backup"):
            look()
        assert len(decryptions) == expected
    sql("UPDATE faces SET sealed = set_byte(sealed, 100, 255 - get_byte(sealed, 100))")
    monkeypatch.setattr(opened, "BROKEN_SECONDS", 0.0)
    assert names(look()) == ["Ada"], "it is tried again"


def test_many_faces_are_read_in_parts(
    gallery: Gallery, encrypted: None, enrol: Enrol, look: Look, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        enrol(f"person {number}", 1 + number % 4)
    before = look()
    sizes: list[int] = []
    people = opened._people

    def noted(cursor: Any, space_id: int, some: list[str]) -> list[Any]:
        found = people(cursor, space_id, some)
        sizes.append(sum(len(each.face_ids) for each in found))
        return found

    monkeypatch.setattr(opened, "_people", noted)
    monkeypatch.setattr(opened, "BATCH_FACES", 4)
    monkeypatch.setattr(gallery, "_opened", Opened(pool))
    assert look() == before
    assert sum(sizes) == 16
    assert len(sizes) >= 3
    assert max(sizes) < 4 + 4


def test_after_a_failover_that_lost_somebody_nobody_else_is_taken_for_them(
    gallery: Gallery, encrypted: None, enrol: Enrol, look: Look, sql: Sql, deadline: Deadline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The server that takes over has the same revision for another state."""
    enrol("Ada")
    lost = enrol("Grace")
    assert sorted(names(look())) == ["Ada", "Grace"]
    gallery.delete_person(lost, deadline)
    sql("UPDATE collections SET revision = revision - 2")
    enrol("Joan")
    for module, statement in ((opened, "STATE"), (sealed_search, "ABOUT")):
        elsewhere = getattr(module, statement).replace("pg_postmaster_start_time()", "'2020-01-01 00:00Z'::timestamptz")
        monkeypatch.setattr(module, statement, elsewhere)
    assert sorted(names(look())) == ["Ada", "Joan"]


def test_where_nobody_is_enrolled_yet_no_probe_is_sent(
    encrypted: None, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_plain", None)
    found = look()
    assert (found.people, found.of_probes) == (0, ((),))


def test_one_collection_that_fails_keeps_no_other_from_being_tidied(
    gallery: Gallery, memory: Opened, encrypted: None, enrol: Enrol, look: Look, sql: Sql, deadline: Deadline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    gallery.create_collection("doors", ON, deadline)
    ada, grace = enrol("Ada"), enrol("Grace")
    enrol("Joan", collection="doors")
    look(collection="doors")
    look()
    ((failing,),) = sql("SELECT spaces.id FROM spaces JOIN collections ON collections.id = collection_id"
                        " WHERE name_key = 'doors'")  # fmt: skip
    refreshed = opened.refreshed

    def fails(cursor: Any, space_id: int, *given: Any) -> Snapshot | None:
        if space_id == failing:
            raise MemoryError
        return refreshed(cursor, space_id, *given)

    monkeypatch.setattr(opened, "refreshed", fails)
    gallery.delete_person(ada, deadline)
    memory.tidy()
    assert held(memory, sql) == {grace}


def test_what_does_not_fit_is_said_once(
    gallery: Gallery, pool: Pool, enrol: Enrol, look: Look, deadline: Deadline, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(gallery, "_opened", Opened(pool, budget_bytes=1))
    for name in ("one", "two"):
        gallery.create_collection(name, ON, deadline)
        enrol("Ada", collection=name)
    with caplog.at_level(logging.WARNING):
        for name in ("one", "two", "one", "two"):
            look(collection=name)
    assert ["worker_memory_bytes" in record.getMessage() for record in caplog.records] == [True]


def test_whose_turn_it_is_not_reads_nothing(
    memory: Opened, encrypted: None, enrol: Enrol, sql: Sql, deadline: Deadline, decryptions: list[str]
) -> None:
    enrol("Ada")
    decryptions.clear()
    ((space_id,),) = sql("SELECT id FROM spaces")
    with memory.current(space_id, deadline, only_if=lambda _: False) as (_, snapshot):
        assert snapshot is None
    assert decryptions == []
    with memory.current(space_id, deadline, only_if=lambda _: True) as (_, snapshot):
        assert snapshot is not None
        assert snapshot.count == 1


def test_the_index_is_only_as_large_as_what_is_in_it(
    gallery: Gallery, encrypted: None, enrol: Enrol, deadline: Deadline, sql: Sql
) -> None:
    gallery.create_collection("doors", {}, deadline)
    for name in ("Ada", "Grace"):
        enrol(name)
    enrol("Joan", collection="doors")
    assert sql(search.INDEXED) == [(1,)]
