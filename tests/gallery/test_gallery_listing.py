"""Listing people: every order, every filter, and cursors that belong to their query."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import make_dsn
from psycopg2.sql import SQL

from recognizer.deadline import Deadline
from recognizer.errors import GalleryBehind, InvalidRequest
from recognizer.faces import NewFace
from recognizer.gallery import listing
from recognizer.gallery.listing import PeopleQuery
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Enrolment, Gallery

Sql = Callable[[str], list[tuple[Any, ...]]]
NewFaces = Callable[..., NewFace]

CREATED = ["mia", "Ada", "zoe", "Émile", "bob"]
"""In the order in which they came."""
BY_NAME = ["Ada", "bob", "mia", "zoe", "Émile"]


@pytest.fixture
def five(gallery: Gallery, new_face: NewFaces) -> None:
    for number, name in enumerate(CREATED):
        gallery.enrol("default", [new_face()], name=name, external_id=f"N-{number}", deadline=Deadline(60))


def pages(gallery: Gallery, limit: int, **options: Any) -> list[list[str]]:
    """The names, page by page."""
    found, cursor = [], None
    while not found or cursor is not None:
        people, cursor = gallery.people("default", limit=limit, cursor=cursor, deadline=Deadline(60), **options)
        found.append([person.name for person in people])
    return found


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("name", BY_NAME),
        ("-name", BY_NAME[::-1]),
        ("created_at", CREATED),
        ("-created_at", CREATED[::-1]),
    ],
)
def test_every_order_goes_on_where_the_page_before_ended(gallery: Gallery, sort: str, names: list[str]) -> None:
    assert pages(gallery, 2, sort=sort) == [names[:2], names[2:4], names[4:]]
    assert pages(gallery, 5, sort=sort) == [names]


def test_people_of_the_same_instant_are_all_listed_once(gallery: Gallery, five: None, sql: Sql) -> None:
    sql("UPDATE people SET created_at = '2026-01-01 12:00:00.123456+02'")
    for sort in ("created_at", "-created_at"):
        found = [name for page in pages(gallery, 2, sort=sort) for name in page]
        assert sorted(found) == sorted(CREATED)


@pytest.mark.usefixtures("five")
def test_a_search_is_sorted_and_paged_too(gallery: Gallery) -> None:
    assert pages(gallery, 2, query="M", sort="-created_at") == [["Émile", "mia"]]
    assert pages(gallery, 1, query="M", sort="-name") == [["Émile"], ["mia"]]


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize(
    ("external_id", "names"), [("N-2", ["zoe"]), (" N-2 ", ["zoe"]), ("n-2", []), ("N", []), ("' OR '1'='1", [])]
)
def test_an_external_id_finds_the_one_who_has_it(gallery: Gallery, external_id: str, names: list[str]) -> None:
    assert pages(gallery, 2, external_id=external_id) == [names]


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize(
    "other",
    [
        {"query": "a"},
        {"sort": "-name"},
        {"sort": "created_at"},
        {"external_id": "N-1"},
        {"collection": "Visitors"},
    ],
)
def test_a_cursor_of_another_query_is_refused(gallery: Gallery, sql: Sql, other: dict[str, str]) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    _, cursor = gallery.people("default", limit=2, deadline=Deadline(60))
    assert cursor is not None
    with pytest.raises(InvalidRequest, match="another query"):
        gallery.people(**{"collection": "default", "cursor": cursor, "deadline": Deadline(60), **other})
    again, _ = gallery.people("DEFAULT", limit=1, query=" ", cursor=cursor, deadline=Deadline(60))
    assert [person.name for person in again] == ["mia"], "the same query in other words, and another limit"


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize("sort", ["name", "-created_at"])
@pytest.mark.parametrize(
    "place",
    [
        [],
        [None],
        [1],
        [["a"]],
        ["a", "b", "c"],
        ["a\u0000"],
        ["' OR '1'='1"],
        ["2026-01-01", "no id"],
        ["2026-01-01T00:00:00+23:59:59.999999", "1; DROP TABLE people"],
        ["0001-01-01T00:00:00+23:00", "00000000-0000-4000-8000-000000000000"],
        [{}, {}],
    ],
)
def test_a_cursor_that_was_tampered_with_is_refused_or_harmless(gallery: Gallery, sort: str, place: list[Any]) -> None:
    _, given = gallery.people("default", limit=2, sort=sort, deadline=Deadline(60))
    digest = json.loads(base64.urlsafe_b64decode(given or ""))[0]
    forged = base64.urlsafe_b64encode(json.dumps([digest, *place]).encode()).decode()
    if sort == "name" and place == ["' OR '1'='1"]:
        people, _ = gallery.people("default", sort=sort, cursor=forged, deadline=Deadline(60))
        assert len(people) == 5, "a place like any other, before all names"
        return
    with pytest.raises(InvalidRequest):
        gallery.people("default", sort=sort, cursor=forged, deadline=Deadline(60))


@pytest.mark.parametrize("sort", ["", "NAME", "id", "name desc", "name; DROP TABLE people", "--name", "revision"])
def test_unknown_orders_are_refused(gallery: Gallery, sort: str) -> None:
    with pytest.raises(InvalidRequest, match="`sort` must be one of name, -name, created_at, -created_at"):
        gallery.people("default", sort=sort, deadline=Deadline(60))


@pytest.mark.parametrize(
    ("sort", "place"),
    [
        (sort, place)
        for columns, place in (
            ("name", ["p12000"]),
            ("created_at", ["2026-01-01T01:00:00+00:00", "00000000-0000-4000-8000-000000000000"]),
        )
        for sort in (columns, f"-{columns}")
    ],
)
def test_a_page_is_read_from_an_index_and_never_sorted(
    gallery: Gallery, pool: Pool, sql: Sql, sort: str, place: list[str]
) -> None:
    sql(
        "INSERT INTO people (id, collection_id, name, name_key, created_at)"
        " SELECT gen_random_uuid(), (SELECT id FROM collections WHERE name_key = 'default'), 'p' || n, 'p' || n,"
        " timestamptz '2026-01-01Z' + n * interval '1 second' FROM generate_series(10000, 12999) AS n"
    )
    sql("ANALYZE people")
    ((collection_id,),) = sql("SELECT id FROM collections")
    read, arguments = listing.statement(PeopleQuery("default", sort=sort), collection_id, place, 51)
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(SQL("EXPLAIN (ANALYZE, TIMING OFF) ") + read, arguments)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Sort" not in plan, plan
    assert "Rows Removed" not in plan, plan
    assert f"using people_{'created' if 'created_at' in sort else 'collection_id_name_key_key'} on people" in plan, plan


@pytest.mark.usefixtures("five")
def test_nobody_is_answered_from_an_older_state_than_they_have_seen(gallery: Gallery, deadline: Deadline) -> None:
    (ada, *_), _ = gallery.people("default", min_revision=5, deadline=deadline)
    assert gallery.person(ada.id, deadline, min_revision=5).person == ada
    assert gallery.collection("default", deadline, min_revision=5).revision == 5
    assert gallery.collection_overview("default", deadline, min_revision=5).people == 5
    nobody = "00000000-0000-4000-8000-000000000000"
    for call in (
        lambda: gallery.people("default", min_revision=6, deadline=deadline),
        lambda: gallery.people("nowhere", min_revision=1, deadline=deadline),
        lambda: gallery.person(ada.id, deadline, min_revision=6),
        lambda: gallery.person(nobody, deadline, min_revision=6),
        lambda: gallery.person(nobody, deadline, collection="DEFAULT", min_revision=6),
        lambda: gallery.person(nobody, deadline, collection="nowhere", min_revision=1),
        lambda: gallery.rejections(ada.id, deadline, min_revision=6),
        lambda: gallery.rejections(nobody, deadline, min_revision=6),
        lambda: gallery.collection("default", deadline, min_revision=6),
        lambda: gallery.collection_overview("default", deadline, min_revision=6),
    ):
        with pytest.raises(GalleryBehind):
            call()


def test_a_replica_that_lags_behind_says_so(
    gallery: Gallery, open_pool: Callable[..., Pool], new_face: NewFaces, database_url: str, sql: Sql
) -> None:
    """A copy of the tables stands for the replica: it is read by the same code and has an older state."""
    deadline = Deadline(60)

    def enrol(name: str, collection: str = "default") -> Enrolment:
        return gallery.enrol(collection, [new_face()], name=name, deadline=deadline)

    def catch_up() -> None:
        sql("DROP SCHEMA IF EXISTS replica CASCADE; CREATE SCHEMA replica")
        for table in ("collections", "people", "faces", "rejections"):
            sql(f"CREATE TABLE replica.{table} AS TABLE public.{table}")

    ada = enrol("Ada")
    catch_up()
    replica = Gallery(open_pool(make_dsn(database_url, options="-c search_path=replica,public")))
    try:
        grace = enrol("Grace")
        gallery.create_collection("Visitors", {}, deadline)
        zoe = enrol("Zoe", "Visitors")
        assert replica.person(ada.person_id, deadline, min_revision=ada.revision).person.name == "Ada"
        reads = [
            lambda: replica.people("default", min_revision=grace.revision, deadline=deadline),
            lambda: replica.person(grace.person_id, deadline, min_revision=grace.revision),
            lambda: replica.person(ada.person_id, deadline, min_revision=grace.revision),
            lambda: replica.rejections(grace.person_id, deadline, min_revision=grace.revision),
            lambda: replica.collection_overview("default", deadline, min_revision=grace.revision),
            lambda: replica.people("visitors", min_revision=zoe.revision, deadline=deadline),
            lambda: replica.person(zoe.person_id, deadline, collection="visitors", min_revision=zoe.revision),
            lambda: replica.collection_overview("visitors", deadline, min_revision=zoe.revision),
        ]
        for read in reads:
            with pytest.raises(GalleryBehind):
                read()
        catch_up()
        for read in reads:
            read()
    finally:
        sql("DROP SCHEMA replica CASCADE")
