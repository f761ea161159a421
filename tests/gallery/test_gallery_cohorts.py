"""Cohort figures: right, brought up to date in the background, and never in anybody's way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from recognizer import evidence
from recognizer.deadline import Deadline
from recognizer.faces import NewFace
from recognizer.gallery import cohort_keeper, cohorts
from recognizer.gallery.cohort_keeper import CohortKeeper
from recognizer.gallery.cohorts import BATCH, bring_up_to_date
from recognizer.gallery.opened import Opened
from recognizer.gallery.pool import Pool
from recognizer.gallery.search import Limits
from recognizer.gallery.store import Gallery

EITHER_FORM = pytest.mark.usefixtures("either_form")

NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]
Enrol = Callable[..., str]

FIGURES = "SELECT likeness, rival FROM cohorts JOIN people ON people.id = person_id ORDER BY name"
WAYS = {
    "all templates": Limits(),
    "index": Limits(compared_faces=0, compared_templates=0, people_squared_per_indexed=0),
}


@pytest.fixture
def enrol(gallery: Gallery, new_face: NewFaces) -> Enrol:
    random = np.random.default_rng(1)

    def do(name: str, embedding: np.ndarray | None = None) -> str:
        centre = evidence.learned().centre
        vector = centre + random.normal(0, 0.05, 128).astype(np.float32) if embedding is None else embedding
        return gallery.enrol("default", [new_face(embedding=vector)], name=name, deadline=Deadline(60)).person_id

    return do


def all_up_to_date(pool: Pool, limits: Limits = WAYS["all templates"]) -> int:
    """Do all there is to do, and return how many figures that were."""
    done = 0
    while more := bring_up_to_date(pool, Deadline(60), limits):
        done += more
    return done


@pytest.mark.parametrize("way", WAYS)
def test_figures_are_those_of_numpy(gallery: Gallery, pool: Pool, enrol: Enrol, sql: Sql, way: str) -> None:
    names = [f"person {n:02}" for n in range(60)]
    for name in names:
        enrol(name)
    assert gallery.stale_cohorts(Deadline(60)) == 60
    assert all_up_to_date(pool, WAYS[way]) == 60
    stored = sql("SELECT embedding::real[] FROM templates JOIN people ON people.id = person_id ORDER BY name")
    templates = np.array([row[0] for row in stored], np.float32)
    alike = templates @ templates.T
    for number, (likeness, _) in enumerate(sql(FIGURES)):
        others = np.delete(alike[number], number)
        assert likeness == pytest.approx(evidence.cohort_likeness(templates[number], others, 59), abs=2e-3)
    # reckoned anew, now that every figure is known: who scores best for whom
    sql("UPDATE cohorts SET seen = -1")
    all_up_to_date(pool, WAYS[way])
    figures = sql(FIGURES)
    for number, (_, rival) in enumerate(figures):
        others = [n for n in range(60) if n != number]
        of_probe = evidence.cohort_likenesses(templates[number], alike[number, others], 59)
        of_people = np.array([figures[n][0] for n in others])
        of_people -= np.maximum(0, alike[number, others] - of_people) / evidence.cohort_size(59)  # but for this one
        scores = evidence.scores(alike[number, others], of_probe, of_people)
        assert rival == pytest.approx(scores.max(), abs=5e-3)


def test_the_first_figure_is_that_of_an_empty_gallery(enrol: Enrol, sql: Sql) -> None:
    vector = evidence.learned().centre + np.full(128, 0.05, np.float32)
    for name in ("Ada", "Grace"):
        enrol(name, vector)
    alone = evidence.cohort_likeness(evidence.unit(vector), [], 0)
    assert sql(FIGURES) == [(pytest.approx(alone, abs=1e-6), None)] * 2


@EITHER_FORM
def test_in_a_small_gallery_everybody_is_reckoned_anew_with_each_change(
    gallery: Gallery, pool: Pool, enrol: Enrol
) -> None:
    ids = [enrol(f"person {n}") for n in range(5)]
    assert all_up_to_date(pool) == 5
    assert gallery.stale_cohorts(Deadline(60)) == all_up_to_date(pool) == 0
    gallery.delete_person(ids[0], Deadline(60))
    assert gallery.stale_cohorts(Deadline(60)) == all_up_to_date(pool) == 4


def test_among_many_only_a_tenth_of_changes_makes_figures_old(gallery: Gallery, pool: Pool, enrol: Enrol) -> None:
    for n in range(60):
        enrol(f"person {n}")
    assert all_up_to_date(pool) == 60
    for n in range(6):
        enrol(f"new person {n}")
    assert gallery.stale_cohorts(Deadline(60)) == 6  # the new ones themselves
    enrol("one more")
    assert gallery.stale_cohorts(Deadline(60)) == 67
    assert all_up_to_date(pool) == 67


@EITHER_FORM
def test_a_person_who_changes_meanwhile_is_reckoned_again(
    pool: Pool, enrol: Enrol, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol("Ada")
    enrol("Grace")
    reckon = cohorts._figures

    def while_the_template_is_made_anew(*given: Any) -> Any:
        sql("UPDATE cohorts SET made = made + 100")
        return reckon(*given)

    monkeypatch.setattr(cohorts, "_figures", while_the_template_is_made_anew)
    bring_up_to_date(pool, Deadline(20))
    assert sql("SELECT count(*) FROM cohorts WHERE seen = -1") == [(2,)], "what was reckoned is of the old template"
    monkeypatch.undo()
    assert all_up_to_date(pool) == 2


@EITHER_FORM
def test_only_one_works_at_a_time(pool: Pool, enrol: Enrol) -> None:
    for n in range(BATCH * 2):
        enrol(f"person {n}")
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: bring_up_to_date(pool, Deadline(60)), range(4)))
    assert sum(done) + all_up_to_date(pool) == BATCH * 2


@EITHER_FORM
def test_figures_are_reckoned_while_people_are_enrolled_and_erased(gallery: Gallery, pool: Pool, enrol: Enrol) -> None:
    def come_and_go(number: int) -> None:
        gallery.delete_person(enrol(f"guest {number}"), Deadline(60))
        enrol(f"person {number}")

    with CohortKeeper(pool, Opened(pool)), ThreadPoolExecutor(4) as threads:
        list(threads.map(come_and_go, range(40)))
    all_up_to_date(pool)
    assert gallery.stale_cohorts(Deadline(60)) == 0
    assert gallery.nearest("default", [], "model-1", 1, Deadline(60)).people == 40


def test_the_keeper_works_by_itself(
    gallery: Gallery, pool: Pool, enrol: Enrol, eventually: Callable[..., None]
) -> None:
    with CohortKeeper(pool, Opened(pool)):
        enrol("Ada")
        enrol("Grace")
        eventually(lambda: gallery.stale_cohorts(Deadline(60)) == 0)


@pytest.mark.parametrize("pairs", [BATCH // 2, 40])  # one full batch, and more than one
@EITHER_FORM
def test_people_who_are_all_alike_shift_the_rule(gallery: Gallery, pool: Pool, enrol: Enrol, pairs: int) -> None:
    """As in a gallery of one family: what strangers score there is more than among people of all kinds."""
    random = np.random.default_rng(2)
    kind = evidence.learned().centre + random.normal(0, 0.05, 128)
    for n in range(pairs):
        pair = (kind + random.normal(0, 0.03, 128)).astype(np.float32)
        enrol(f"person {n}", pair)
        enrol(f"double {n}", (pair + random.normal(0, 0.005, 128)).astype(np.float32))
    all_up_to_date(pool)
    shift = gallery.nearest("default", [], "model-1", 1, Deadline(60)).shift
    assert 0.05 < shift <= 0.15


def test_a_further_photo_keeps_the_figure_until_it_is_reckoned_anew(pool: Pool, enrol: Enrol, sql: Sql) -> None:
    for name in ("Ada", "Grace", "Edith"):
        enrol(name)
    all_up_to_date(pool)
    before = sql(FIGURES)
    enrol("Ada")
    assert sql(FIGURES) == before
    assert all_up_to_date(pool) == 3
    assert sql(FIGURES) != before


def test_of_a_new_person_among_very_many_nothing_is_known_at_first(pool: Pool, enrol: Enrol, sql: Sql) -> None:
    enrol("Ada")
    sql("UPDATE spaces SET people = 5000")
    enrol("Grace")
    assert sql(FIGURES)[1] == (None, None)


def test_a_new_person_of_one_collection_does_not_wait_for_another_collection(
    gallery: Gallery, pool: Pool, enrol: Enrol, sql: Sql, new_face: NewFaces
) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    for n in range(BATCH * 3):
        enrol(f"person {n}")
    all_up_to_date(pool)
    sql("UPDATE spaces SET changes = changes + 1000")  # all of them are old, nobody is new
    gallery.enrol("visitors", [new_face()], name="Ada", deadline=Deadline(60))
    assert bring_up_to_date(pool, Deadline(60)) == 1


def test_the_shift_goes_with_the_people_it_came_from(gallery: Gallery, pool: Pool, enrol: Enrol, sql: Sql) -> None:
    ids = [enrol(f"person {n}") for n in range(4)]
    all_up_to_date(pool)
    assert sql("SELECT shift FROM spaces") != [(0.0,)]
    for person_id in ids:
        gallery.delete_person(person_id, Deadline(60))
    assert sql("SELECT people, shift FROM spaces") == [(0, 0.0)]


def test_the_keeper_survives_whatever_happens(
    gallery: Gallery, pool: Pool, enrol: Enrol, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    failures = iter([OSError("no room"), RuntimeError("can't start new thread"), MemoryError()])
    work = cohorts.bring_up_to_date

    def failing_at_first(*given: Any, **options: Any) -> int:
        if error := next(failures, None):
            raise error
        return work(*given, **options)

    monkeypatch.setattr(cohort_keeper, "bring_up_to_date", failing_at_first)
    enrol("Ada")
    with CohortKeeper(pool, Opened(pool)):
        eventually(lambda: gallery.stale_cohorts(Deadline(60)) == 0)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert ["no room" in record.getMessage() for record in warnings] == [True]


@EITHER_FORM
def test_one_person_alone_has_a_figure_and_no_rival(pool: Pool, enrol: Enrol, sql: Sql) -> None:
    enrol("Ada")
    assert all_up_to_date(pool) == 1
    ((likeness, rival),) = sql(FIGURES)
    assert likeness > 0
    assert rival is None
