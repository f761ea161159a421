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
from recognizer.gallery.cohorts import BATCH, CohortKeeper, bring_up_to_date
from recognizer.gallery.pool import Pool
from recognizer.gallery.search import Limits
from recognizer.gallery.store import Gallery

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
        scores = evidence.scores(alike[number, others], of_probe, np.array([figures[n][0] for n in others]))
        assert rival == pytest.approx(scores.max(), abs=5e-3)


def test_the_first_figure_is_that_of_an_empty_gallery(enrol: Enrol, sql: Sql) -> None:
    vector = evidence.learned().centre + np.full(128, 0.05, np.float32)
    for name in ("Ada", "Grace"):
        enrol(name, vector)
    alone = evidence.cohort_likeness(evidence.unit(vector), [], 0)
    assert sql(FIGURES) == [(pytest.approx(alone, abs=1e-6), None)] * 2


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


def test_a_person_who_changes_meanwhile_is_reckoned_again(pool: Pool, enrol: Enrol, sql: Sql) -> None:
    enrol("Ada")
    enrol("Grace")
    with pool.connection() as connection, connection.cursor() as cursor:  # as an enrolment that is under way
        cursor.execute("UPDATE cohorts SET made = made + 100 RETURNING person_id")
        with ThreadPoolExecutor(1) as thread:
            working = thread.submit(bring_up_to_date, pool, Deadline(20))
            connection.commit()
            working.result(30)
    stale = sql("SELECT count(*) FROM cohorts WHERE seen = -1 AND made < 100")
    assert stale == [(0,)]
    assert all_up_to_date(pool) in (0, 2)
    assert sql("SELECT count(*) FROM cohorts WHERE seen = -1") == [(0,)]


def test_only_one_works_at_a_time(pool: Pool, enrol: Enrol) -> None:
    for n in range(BATCH * 2):
        enrol(f"person {n}")
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: bring_up_to_date(pool, Deadline(60)), range(4)))
    assert sum(done) + all_up_to_date(pool) == BATCH * 2


def test_figures_are_reckoned_while_people_are_enrolled_and_erased(gallery: Gallery, pool: Pool, enrol: Enrol) -> None:
    def come_and_go(number: int) -> None:
        gallery.delete_person(enrol(f"guest {number}"), Deadline(60))
        enrol(f"person {number}")

    with CohortKeeper(pool), ThreadPoolExecutor(4) as threads:
        list(threads.map(come_and_go, range(40)))
    all_up_to_date(pool)
    assert gallery.stale_cohorts(Deadline(60)) == 0
    assert gallery.nearest("default", [], "model-1", 1, Deadline(60)).people == 40


def test_the_keeper_works_by_itself(
    gallery: Gallery, pool: Pool, enrol: Enrol, eventually: Callable[..., None]
) -> None:
    with CohortKeeper(pool):
        enrol("Ada")
        enrol("Grace")
        eventually(lambda: gallery.stale_cohorts(Deadline(60)) == 0)


@pytest.mark.parametrize("pairs", [BATCH // 2, 40])  # one full batch, and more than one
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


def test_one_person_alone_has_a_figure_and_no_rival(pool: Pool, enrol: Enrol, sql: Sql) -> None:
    enrol("Ada")
    assert all_up_to_date(pool) == 1
    ((likeness, rival),) = sql(FIGURES)
    assert likeness > 0
    assert rival is None
