"""Collections: how much they hold and what is set for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound, InvalidRequest
from recognizer.faces import NewFace
from recognizer.gallery.store import Gallery

Sql = Callable[[str], list[tuple[Any, ...]]]
NewFaces = Callable[..., NewFace]


@pytest.fixture
def visitors(gallery: Gallery, sql: Sql, new_face: NewFaces) -> None:
    """A second collection with two people and three faces."""
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    for name in ("Ada", "Grace", "Ada"):
        gallery.enrol("visitors", [new_face()], name=name, deadline=Deadline(60))


@pytest.mark.usefixtures("visitors")
def test_collections_come_by_name_with_how_much_they_hold(gallery: Gallery, deadline: Deadline) -> None:
    found = gallery.collections(deadline)
    assert [(each.collection.name, each.people, each.faces) for each in found] == [
        ("default", 0, 0),
        ("Visitors", 2, 3),
    ]
    assert [each.collection.revision for each in found] == [0, 3]
    assert found[0].created_at.utcoffset() == UTC.utcoffset(None)
    assert gallery.collections(deadline, only="VISITORS") == found[1:]
    assert gallery.collection_overview("visitors", deadline) == found[1]


@pytest.mark.usefixtures("visitors")
def test_what_is_set_holds_for_that_collection_until_it_is_taken_back(gallery: Gallery, deadline: Deadline) -> None:
    changed = gallery.change_collection("VISITORS", {"target_fpir": 0.001, "threshold": 0.45}, deadline)
    assert (changed.collection.target_fpir, changed.collection.threshold) == (0.001, 0.45)
    assert gallery.collection("visitors", deadline) == changed.collection
    gallery.change_collection("visitors", {"threshold": None}, deadline)
    kept = gallery.collection("visitors", deadline)
    assert (kept.target_fpir, kept.threshold) == (0.001, None), "what is not named stays"
    assert gallery.collection("default", deadline).target_fpir is None
    assert kept.revision == 3, "the people are the same"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"revision": 7},
        {"threshold": 0.5, "name; DROP TABLE people": 1},
        {"threshold": 0},
        {"threshold": 2},
        {"threshold": math.nan},
        {"threshold": True},
        {"target_fpir": 0.0},
        {"target_fpir": 1},
        {"target_fpir": -math.inf},
        {"threshold": 0.5, "target_fpir": math.inf},
    ],
)
def test_impossible_changes_are_refused_and_nothing_is_changed(
    gallery: Gallery, deadline: Deadline, values: dict[str, float | None]
) -> None:
    before = gallery.collection("default", deadline)
    with pytest.raises(InvalidRequest):
        gallery.change_collection("default", values, deadline)
    assert gallery.collection("default", deadline) == before


def test_an_unknown_collection_is_not_found(gallery: Gallery, deadline: Deadline) -> None:
    with pytest.raises(CollectionNotFound):
        gallery.collection_overview("nowhere", deadline)
    with pytest.raises(CollectionNotFound):
        gallery.change_collection("nowhere", {"threshold": 0.5}, deadline)
    assert gallery.collections(deadline, only="nowhere") == []
