"""What a calibration says: figures only where there is enough to go by, and what to mend."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from enrolled import Crowd, enrolled
from PIL import Image

from recognizer import evidence
from recognizer.calibration import Report, calibrate
from recognizer.calibration.figures import Figures
from recognizer.calibration.picture import draw
from recognizer.calibration.trials import Trials
from recognizer.calibration.written import as_json, as_text
from recognizer.deadline import Deadline
from recognizer.gallery.reading import EnrolledPerson


def report_on(people: list[EnrolledPerson], **given: object) -> Report:
    return calibrate(enrolled(people, **given), 0.01, Deadline(60))


def trials_with(genuine: list[float], strangers: list[float], photos_per_person: int) -> Trials:
    """Trials with these scores; nobody else is ever better than the right person."""
    count = len(strangers)
    owner = np.arange(count) // photos_per_person
    nobody = np.full(count, -1.0)
    return Trials(owner, np.array(genuine), nobody, np.zeros(count, int), np.array(strangers), np.zeros(0))


# -- figures --


def test_a_measured_figure_is_the_share_beyond_the_quantile_of_strangers() -> None:
    strangers = list(np.linspace(0, 1, 300))
    genuine = list(np.linspace(0.8, 1.1, 300))
    figure = Figures(trials_with(genuine, strangers, 5)).figure(0.1, rule_score=0.95)
    assert figure.measured
    assert figure.measured.score == pytest.approx(strangers[269])
    assert figure.measured.fpir and figure.measured.tpir and figure.rule.tpir and figure.rule.fpir
    assert figure.measured.fpir.events == 30
    assert figure.measured.tpir.events == sum(score > strangers[269] for score in genuine)
    assert figure.rule.tpir.events == sum(score > 0.95 for score in genuine)
    assert figure.rule.fpir.events == sum(score > 0.95 for score in strangers)
    assert figure.measured.tpir.low < figure.measured.tpir.share < figure.measured.tpir.high


@pytest.mark.parametrize(("people", "photos", "stated"), [(9, 10, []), (10, 3, [0.1]), (30, 10, [0.1, 0.01])])
def test_a_figure_needs_three_strangers_beyond_it_and_people_enough(
    people: int, photos: int, stated: list[float]
) -> None:
    scores = list(np.random.default_rng(0).random(people * photos))
    figures = [Figures(trials_with(scores, scores, photos)).figure(rate, 0.5) for rate in (0.1, 0.01, 0.001)]
    assert [figure.fpir for figure in figures if figure.measured] == stated
    for figure in figures:
        assert (figure.too_few is None) == (figure.measured is not None)
        assert figure.too_few is None or figure.too_few.startswith("too few photos for that figure: it needs ")


def test_no_failure_among_few_people_is_no_proof_of_perfection() -> None:
    at = Figures(trials_with([1.0] * 60, [0.0] * 60, 3)).at(0.5)
    assert at.tpir and at.fpir
    assert (at.tpir.share, at.tpir.high, at.fpir.share, at.fpir.low) == (1, 1, 0, 0)
    assert at.tpir.low == pytest.approx(0.839, abs=0.001), "Wilson's limit for 20 of 20, not of 60"
    assert at.fpir.high == pytest.approx(0.161, abs=0.001)


def test_limits_are_wider_where_the_photos_of_a_person_fail_together() -> None:
    apart = [float(n % 5 > 0) for n in range(200)]
    together = [float(n // 5 % 5 > 0) for n in range(200)]
    widths = []
    for genuine in (apart, together):
        rate = Figures(trials_with(genuine, genuine, 5)).at(0.5).tpir
        assert rate
        assert rate.share == 0.8
        widths.append(rate.high - rate.low)
    assert widths[1] > widths[0] + 0.1


def test_photos_that_are_more_like_somebody_else_are_not_recognised() -> None:
    trials = replace(trials_with([0.9] * 40, [0.1] * 40, 2), rival=np.full(40, 0.95))
    rate = Figures(trials).at(0.5).tpir
    assert rate
    assert rate.events == 0


# -- the report --


@pytest.fixture(scope="module")
def forty() -> Report:
    """40 people with 8 photos each, well apart."""
    return report_on(Crowd().people(40, 8))


def test_figures_are_given_as_far_as_the_photos_reach(forty: Report) -> None:
    assert [figure.measured is not None for figure in forty.figures] == [True, True, False]
    assert forty.in_force
    assert forty.in_force.score == pytest.approx(evidence.score_at(0.01, 40))
    assert (forty.used.people, forty.used.photos, forty.used.people_with_two_photos) == (40, 320, 40)
    assert forty.genuine and forty.strangers and forty.impostor
    assert (forty.genuine.count, forty.strangers.count, forty.impostor.count) == (320, 320, 320 * 39)
    assert forty.notes == ()


def test_the_same_people_give_the_same_report(forty: Report) -> None:
    assert as_json(report_on(Crowd().people(40, 8))) == as_json(forty)


def test_the_rule_in_force_has_the_collections_target_and_shift() -> None:
    people = Crowd().people(3, 2)
    report = report_on(people, target_fpir=0.001, shift=0.05)
    assert report.target_fpir == 0.001
    assert report.in_force
    assert report.in_force.score == pytest.approx(evidence.score_at(0.001, 3) + 0.05)


def test_of_a_home_with_four_people_no_rate_is_invented() -> None:
    report = report_on(Crowd().people(4, 3))
    body = as_json(report)
    assert [figure["measured"] for figure in body["figures"]] == [None] * 3
    assert all("there are 12 of 4" in figure["too_few"] for figure in body["figures"])
    assert body["rule"]["tpir"]["rate"] is body["rule"]["fpir"]["rate"] is None
    assert (body["rule"]["tpir"]["events"], body["rule"]["tpir"]["trials"]) == (12, 12)
    assert body["rule"]["tpir"]["low"] < 0.6
    assert body["recommendation"]["target_fpir"] == 0.01
    assert body["recommendation"]["reason"].startswith("keep 1 %: too few photos to recommend another")
    assert body["scores"]["impostor"]["count"] == 36


def test_another_target_is_recommended_when_it_costs_nothing() -> None:
    report = report_on(Crowd(closeness=0.9).people(60, 5))
    assert report.recommendation.target_fpir == 0.001
    assert report.recommendation.reason.startswith("take 0.1 %: ")


def test_no_target_is_recommended_for_photos_that_nobody_could_tell_apart() -> None:
    report = report_on(Crowd(closeness=0.05).people(60, 5))
    assert report.recommendation.target_fpir == 0.01
    assert report.recommendation.reason.endswith("mend the photos first")


# -- what to mend --


def test_outliers_duplicates_and_confusable_pairs_are_found_among_sixty_people() -> None:
    crowd = Crowd(1)
    people = crowd.people(60, 4)
    somebody = crowd.direction()
    people += [crowd.person(name, crowd.photos(somebody, 4)) for name in ("Ada", "ada l.")]
    twin = crowd.direction()
    likeness = 0.8 * twin + 0.6 * _across(crowd.direction(), twin)
    people += [crowd.person("Serena", crowd.photos(twin, 4)), crowd.person("Venus", crowd.photos(likeness, 4))]
    people[3].embeddings[2] = crowd.photos(crowd.direction(), 1)[0]
    people[5].embeddings[1] = people[7].embeddings[0]
    findings = report_on(people).findings
    assert findings.duplicate_count >= 1
    assert {person.name for person in findings.duplicates[0].people} == {"Ada", "ada l."}
    close = [{person.name for person in pair.people} for pair in findings.duplicates[1:] + findings.confusable]
    assert {"Serena", "Venus"} in close
    found = {face: outlier for outlier in findings.outliers for face in outlier.face_ids}
    assert {"p3-2", "p5-1"} <= found.keys()
    assert len(found) <= 4
    assert found["p3-2"].person.name == "p3"
    assert found["p5-1"].rival and found["p5-1"].rival.name == "p7"
    assert "p7" in found["p5-1"].suggestion
    assert [each.likeness for each in findings.outliers] == sorted(each.likeness for each in findings.outliers)


def _across(direction: np.ndarray, axis: np.ndarray) -> np.ndarray:
    across = direction - direction @ axis * axis
    return across / np.linalg.norm(across)


def test_two_photos_of_different_people_are_told_to_be_unlike_each_other() -> None:
    crowd = Crowd(2)
    people = crowd.people(20, 3)
    two = np.concatenate([crowd.photos(crowd.direction(), 1), crowd.photos(crowd.direction(), 1)])
    (outlier,) = report_on([*people, crowd.person("mixed", two)]).findings.outliers
    assert outlier.face_ids == ("mixed-0", "mixed-1")
    assert "unlike each other" in outlier.suggestion


def test_a_person_enrolled_twice_does_not_make_outliers_of_all_their_photos() -> None:
    crowd = Crowd(3)
    people, somebody = crowd.people(20, 3), crowd.direction()
    people += [crowd.person(name, crowd.photos(somebody, 3)) for name in ("one", "other")]
    report = report_on(people)
    assert report.findings.duplicate_count == 1
    assert report.findings.outlier_count == 0
    assert any("probably one: 1." in note for note in report.notes)


def test_lists_are_cut_and_counted() -> None:
    crowd = Crowd(4)
    somebody = crowd.direction()
    people = [crowd.person(f"p{n}", crowd.photos(somebody, 2, closeness=0.9)) for n in range(15)]
    findings = report_on(people).findings
    assert findings.duplicate_count == 15 * 14 / 2
    assert len(findings.duplicates) == 50


# -- bad input --


@pytest.mark.parametrize(
    ("people", "photos", "said"),
    [
        (0, 0, "There is nobody to learn from"),
        (1, 1, "Nobody has a second photo"),
        (1, 4, "There is one person only"),
        (5, 1, "Nobody has a second photo"),
    ],
)
def test_too_little_is_said_and_nothing_is_invented(people: int, photos: int, said: str) -> None:
    report = report_on(Crowd().people(people, photos))
    assert any(said in note for note in report.notes)
    assert all(figure.measured is None and figure.too_few for figure in report.figures)
    assert report.recommendation.target_fpir == 0.01
    assert (report.genuine is None) == (photos < 2)
    assert (report.strangers is None) == (report.impostor is None) == (people < 2)
    assert said in as_text(report)
    json.dumps(as_json(report), allow_nan=False)
    assert draw(report).startswith(b"\x89PNG")


def test_identical_photos_count_once() -> None:
    people = Crowd().people(3, 4)
    people[0].embeddings[:] = people[0].embeddings[0]
    report = report_on(people)
    assert (report.used.photos, report.used.photos_enrolled) == (9, 12)
    assert report.used.people_with_two_photos == 2
    assert any("counts once: 3." in note for note in report.notes)


def test_numbers_that_are_not_finite_do_not_poison_the_report() -> None:
    people = Crowd().people(12, 4)
    clean = as_json(report_on([*people[:11], people[11]]))
    poisoned = Crowd().people(12, 4)
    extra = np.full((1, 128), np.nan, np.float32)
    faces = (*poisoned[0].face_ids, "bad")
    poisoned[0] = replace(poisoned[0], face_ids=faces, embeddings=np.concatenate([poisoned[0].embeddings, extra]))
    report = report_on(poisoned)
    assert any("not finite, which do not count: 1." in note for note in report.notes)
    found = as_json(report)
    for part in ("rule", "figures", "scores", "outliers"):
        assert found[part] == clean[part]


def test_people_who_are_all_the_same_photo_are_no_trouble() -> None:
    people = Crowd().people(4, 1)
    for person in people:
        person.embeddings[:] = people[0].embeddings
    report = report_on(people)
    assert report.findings.duplicate_count == 6
    json.dumps(as_json(report), allow_nan=False)


def test_what_the_figures_do_not_cover_is_noted() -> None:
    people = Crowd().people(12, 2)
    report = report_on(people, people_enrolled=90, faces_enrolled=300, faces_elsewhere=7, threshold=0.55)
    for said in (
        "12 of 90 people",
        "24 of 300 photos",
        "cannot be compared with these: 7.",
        "distance of 0.55 decides",
    ):
        assert any(said in note for note in report.notes), said


def test_a_fixed_distance_of_the_settings_decides_only_where_the_collection_says_nothing() -> None:
    people = Crowd().people(2, 2)

    def notes(target: float | None) -> str:
        return " ".join(calibrate(enrolled(people, target_fpir=target), 0.01, Deadline(60), threshold=0.6).notes)

    assert "distance of 0.6 decides" in notes(None)
    assert "decides" not in notes(0.01)


# -- text and picture --


def test_the_text_names_figures_people_and_what_is_missing(forty: Report) -> None:
    text = as_text(forty)
    for said in (
        "rule in force, target 1 %",
        "measured at 10 %",
        "measured at 0.1 %: too few photos",
        "Recommended target",
    ):
        assert said in text, said
    assert max(map(len, text.splitlines())) < 200


def test_the_picture_shows_both_distributions_and_the_rule(forty: Report) -> None:
    with Image.open(BytesIO(draw(forty))) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1080, 576)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**20) or []}
    assert len(colours) > 100
    assert draw(forty) == draw(forty)
