"""The identification benchmark: who is enrolled, and its arithmetic on cases that can be done by hand."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recognizer.faces import Analysis, Box, Face, Quality

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def arithmetic() -> ModuleType:
    return benchmark("_identification")


def random() -> np.random.Generator:
    return np.random.default_rng(0)


# -- who is enrolled --


def person(arithmetic: ModuleType, name: str, photos: int) -> Any:
    return arithmetic.Person(name, tuple(Path(f"{name}/{number}.jpg") for number in range(photos)))


def faces(people: Sequence[Any], *without: str) -> set[Path]:
    return {photo for each in people for photo in each.photos} - {Path(path) for path in without}


def test_the_first_photos_are_enrolled_and_the_others_are_probes(arithmetic: ModuleType) -> None:
    people = [person(arithmetic, "ann", 3)]
    draw = arithmetic.drawn(people, [], faces(people), arithmetic.Plan(photos=2), random())
    assert draw.enrolled == {0: people[0].photos[:2]}
    assert draw.probes == ((0, people[0].photos[2]),)
    assert draw.strangers == ()


def test_a_photo_without_a_face_is_a_probe_and_never_enrolled(arithmetic: ModuleType) -> None:
    people = [person(arithmetic, "ann", 3)]
    draw = arithmetic.drawn(people, [], faces(people, "ann/0.jpg"), arithmetic.Plan(photos=1), random())
    assert draw.enrolled == {0: (Path("ann/1.jpg"),)}
    assert [str(shown.photo) for shown in draw.probes] == ["ann/0.jpg", "ann/2.jpg"]


def test_people_without_probes_fill_the_gallery_unless_they_shall_not(arithmetic: ModuleType) -> None:
    people = [person(arithmetic, "ann", 2), person(arithmetic, "bob", 1)]
    draw = arithmetic.drawn(people, [], faces(people), arithmetic.Plan(photos=1), random())
    assert set(draw.enrolled) == {0, 1}
    assert not draw.strangers
    draw = arithmetic.drawn(people, [], faces(people), arithmetic.Plan(photos=1, distractors=False), random())
    assert set(draw.enrolled) == {0}
    assert [shown.person for shown in draw.strangers] == [1]


def test_people_left_over_are_strangers_beside_the_others(arithmetic: ModuleType) -> None:
    people = [person(arithmetic, f"p{number}", 3) for number in range(5)]
    others = [person(arithmetic, "stranger", 1)]
    plan = arithmetic.Plan(photos=1, size=2, probes_per_person=1)
    draw = arithmetic.drawn(people, others, faces(people), plan, random())
    assert len(draw.enrolled) == len(draw.probes) == 2
    assert {shown.person for shown in draw.strangers} == {0, 1, 2, 3, 4, 5} - set(draw.enrolled)
    assert len(draw.strangers) == 4
    assert draw == arithmetic.drawn(people, others, faces(people), plan, random())


def test_galleries_that_cannot_be_are_refused(arithmetic: ModuleType) -> None:
    people = [person(arithmetic, "ann", 2), person(arithmetic, "bob", 1)]
    with pytest.raises(ValueError, match="too large"):
        arithmetic.drawn(people, [], faces(people), arithmetic.Plan(photos=1, size=3), random())
    with pytest.raises(ValueError, match="Nobody has more than 2"):
        arithmetic.drawn(people, [], faces(people), arithmetic.Plan(photos=2), random())


def test_strangers_are_photos_or_folders_of_photos(tmp_path: Path) -> None:
    (tmp_path / "carl").mkdir()
    for name in ("a.jpg", "b.jpg", "carl/1.jpg", "carl/2.jpg", "notes.txt"):
        (tmp_path / name).touch()
    found = benchmark("identification").strangers_in(tmp_path)
    assert [(each.name, len(each.photos)) for each in found] == [("a.jpg", 1), ("b.jpg", 1), ("carl", 2)]


def test_of_several_faces_the_largest_or_the_most_central_counts() -> None:
    boxes = (Box(0, 0, 60, 60), Box(70, 70, 130, 130))
    found = tuple(Face(box, 1.0, Quality(1.0), (), np.zeros(128, np.float32)) for box in boxes)
    analysis = Analysis(200, 200, "JPEG", found, {})
    only = benchmark("_remembered").only
    assert [face.box for face in only(analysis, "largest").faces] == [boxes[0]]
    assert [face.box for face in only(analysis, "central").faces] == [boxes[1]]


# -- TPIR and FPIR --


def probes_of(arithmetic: ModuleType, enrolled: int, strangers: int) -> Any:
    """One probe of each person, in one draw."""
    total = enrolled + strangers
    return arithmetic.Probes(np.arange(total), np.zeros(total, int), np.arange(total) < enrolled)


def judged(arithmetic: ModuleType, scores: Sequence[float], right: Sequence[bool], threshold: float = 0.0) -> Any:
    score = np.array(scores, float)
    return arithmetic.Judged(score, np.array(right), score >= threshold)


def test_tpir_is_read_off_where_so_many_strangers_are_named(arithmetic: ModuleType) -> None:
    probes = probes_of(arithmetic, 4, 4)
    # the third one's best candidate is somebody else
    row = judged(arithmetic, [9, 7, 8, 3, 6, 4, 2, 1], [True, True, False, True] + [False] * 4)
    found = arithmetic.tpir(row, probes, (0.0, 0.25, 0.5, 0.75, 1.0), arithmetic.plain(probes))
    assert found.tolist() == [[0.5, 0.5, 0.75, 0.75, 0.75]]


def test_a_threshold_does_not_part_equal_scores(arithmetic: ModuleType) -> None:
    probes = probes_of(arithmetic, 2, 4)
    row = judged(arithmetic, [5, 6, 5, 5, 1, 0], [True, True] + [False] * 4)
    # naming at 5 names two strangers of four, so with one allowed nobody at 5 is named
    found = arithmetic.tpir(row, probes, (0.25, 0.5), arithmetic.plain(probes))
    assert found.tolist() == [[0.5, 1.0]]


def test_a_probe_without_a_face_is_never_named(arithmetic: ModuleType) -> None:
    probes = probes_of(arithmetic, 2, 2)
    row = judged(arithmetic, [-np.inf, 1, 0, -np.inf], [False, True, False, False])
    assert arithmetic.tpir(row, probes, (1.0,), arithmetic.plain(probes)).tolist() == [[0.5]]


def test_nobody_named_is_a_share_of_zero_with_a_limit_above(arithmetic: ModuleType) -> None:
    probes = probes_of(arithmetic, 1, 100)
    row = judged(arithmetic, [-1] * 101, [True] + [False] * 100)
    assert arithmetic.share(row.match, ~probes.enrolled, arithmetic.plain(probes)).tolist() == [0.0]
    assert arithmetic.limits(0.0, np.zeros(10), 100) == (0.0, 0.03)
    assert arithmetic.limits(1.0, np.ones(10), 100) == (0.97, 1.0)
    low, high = arithmetic.limits(0.5, np.linspace(0, 1, 1001), 100)
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_a_rate_below_one_stranger_is_known_as_such(arithmetic: ModuleType) -> None:
    probes = probes_of(arithmetic, 1, 100)
    assert arithmetic.expected(0.01, probes) >= 1
    assert arithmetic.expected(0.001, probes) < 1


def test_the_det_curve_goes_through_what_is_read_off(arithmetic: ModuleType) -> None:
    probes = probes_of(arithmetic, 2, 4)
    row = judged(arithmetic, [5, 6, 5, 5, 1, -np.inf], [True, True] + [False] * 4)
    wrong, missed = arithmetic.det(row, probes)
    assert wrong.tolist() == [0.0, 0.5, 0.75]
    assert missed.tolist() == [0.5, 0.0, 0.0]


# -- resampling --


def test_resamples_are_the_same_each_time_and_keep_the_numbers_of_people(arithmetic: ModuleType) -> None:
    probes = probes_of(arithmetic, 3, 5)
    once, again = (np.concatenate(list(arithmetic.resampled(probes, 50, 7))) for _ in range(2))
    assert (once == again).all()
    assert (once[:, probes.enrolled].sum(axis=1) == 3).all()
    assert (once[:, ~probes.enrolled].sum(axis=1) == 5).all()
    assert len(np.unique(once, axis=0)) > 10


def test_all_probes_of_a_person_come_and_go_together(arithmetic: ModuleType) -> None:
    probes = arithmetic.Probes(np.array([0, 0, 1, 1, 2, 3]), np.zeros(6, int), np.array([True] * 4 + [False] * 2))
    weights = np.concatenate(list(arithmetic.resampled(probes, 20, 0)))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 3]).all()


def test_resamples_come_in_parts_that_fit_into_memory(arithmetic: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "MAX_WEIGHTS", 64)
    parts = list(arithmetic.resampled(probes_of(arithmetic, 3, 5), 20, 0))
    assert [len(part) for part in parts] == [8, 8, 4]


def test_several_galleries_are_drawn_again_too(arithmetic: ModuleType) -> None:
    probes = arithmetic.Probes(np.zeros(3, int), np.arange(3), np.ones(3, bool))
    weights = np.concatenate(list(arithmetic.resampled(probes, 20, 0)))
    assert (weights.sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 1


def test_a_resample_counts_probes_as_often_as_they_were_drawn(arithmetic: ModuleType) -> None:
    probes = probes_of(arithmetic, 2, 2)
    row = judged(arithmetic, [3, 1, 2, 0], [True, True, False, False])
    weights = np.array([[1.0, 3.0, 0.0, 2.0], [2.0, 0.0, 1.0, 1.0]])
    found = arithmetic.tpir(row, probes, (0.0, 0.5), weights)
    assert found.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert arithmetic.share(row.match, ~probes.enrolled, weights).tolist() == [1.0, 1.0]
    assert arithmetic.share(row.score >= 1, ~probes.enrolled, weights).tolist() == [0.0, 0.5]


# -- from outcomes to figures --


def outcome_of(shown: int, enrolled: bool, taken_for: int, distance: float, score: float) -> Any:
    module = benchmark("_open_set")
    rule = module.Decided(taken_for, score, "match" if score >= 0 else "unknown")
    return module.Outcome(shown, 0, enrolled, module.Decided(taken_for, -distance, "ambiguous"), rule)


def test_figures_come_from_outcomes() -> None:
    module, report = benchmark("_open_set"), benchmark("_identification_report")
    outcomes = [
        *(outcome_of(number, True, number, 0.5, 2.0) for number in range(8)),
        outcome_of(8, True, 0, 0.55, 1.0),  # named wrongly
        module.Outcome(9, 0, True, module.NOTHING, module.NOTHING),
        outcome_of(10, False, 0, 0.6, -1.0),
        *(outcome_of(number, False, 0, 0.7, -2.0) for number in range(11, 20)),
        module.Outcome(20, 0, False, module.NOTHING, module.NOTHING),  # is left out
    ]
    result = report.result_of(10, 1, 0.01, outcomes, seed=0)
    assert [figure.value for figure in result.decided("distance")] == pytest.approx([0.8, 0.1])
    assert [figure.value for figure in result.decided("rule")] == pytest.approx([0.8, 0.0])
    assert result.decided("rule")[1].high == pytest.approx(0.3)
    assert result.tpir_at("rule", 0).value == pytest.approx(0.8)
    ratio = result.ratio_at(0)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ((1.0, 0.6, 1.9), "within a factor of 2, and so are the limits"),
        ((3.0, 2.5, 3.5), "not within a factor of 2, nor are the limits"),
        ((1.0, 0.1, 2.5), "within a factor of 2, but the limits go beyond; more strangers would tell"),
        ((0.0, 0.0, 2.5), "not within a factor of 2, which may be chance; more strangers would tell"),
    ],
)
def test_it_says_whether_the_realised_rate_is_surely_near_its_target(
    figure: tuple[float, float, float], said: str
) -> None:
    report = benchmark("_identification_report")
    assert report.in_factor(report.Limited(*figure)) == said
