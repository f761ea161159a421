"""The report: what to expect from the enrolled people, which target to take, and what to mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from recognizer import evidence
from recognizer.calibration import mending
from recognizer.calibration.cohorts import cohorts
from recognizer.calibration.figures import AtScore, Figure, Figures, Spread, spread
from recognizer.calibration.mending import Findings
from recognizer.calibration.people import Sifted, crowd, sift
from recognizer.calibration.trials import MAX_PROBES, Progress, Trials, hold
from recognizer.deadline import Deadline
from recognizer.decisions import in_force
from recognizer.gallery.reading import EnrolledPeople

RATES: Final = (0.1, 0.01, 0.001)
TARGETS: Final = (0.001, 0.003, 0.01, 0.03)
"""What is recommended is one of these: a name for every tenth stranger is nobody's wish."""
MAX_COST: Final = 0.02
"""A recommended target gives up no more of the TPIR than this, against the laxest."""
MIN_TPIR: Final = 0.5
"""Where even the laxest target names fewer than this, no target is the remedy."""
ENOUGH_AT: Final = 0.01
"""Another target is recommended only where there are photos enough to measure this rate."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The target to take, and why."""

    target_fpir: float
    reason: str


@dataclass(frozen=True, slots=True)
class Used:
    """How many people and photos are enrolled, and how many of them the figures rest on."""

    people_enrolled: int
    photos_enrolled: int
    people: int
    photos: int
    people_with_two_photos: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a calibration found; `docs/operations.md` explains its members.

    target_fpir, in_force: of the rule in force, and what happens with it; None where nobody is enrolled.
    genuine: scores of photos with their own person. impostor: with single other people; strangers: with the best one.
    """

    collection: str
    revision: int
    used: Used
    target_fpir: float
    in_force: AtScore | None
    figures: tuple[Figure, ...]
    recommendation: Recommendation
    genuine: Spread | None
    impostor: Spread | None
    strangers: Spread | None
    findings: Findings
    notes: tuple[str, ...]
    trials: Trials | None = field(repr=False, compare=False)


def calibrate(
    enrolled: EnrolledPeople,
    usual_target: float,
    deadline: Deadline,
    *,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Report:
    """Estimate what to expect of these people.

    Args:
        enrolled: as the gallery gives them; they need not be usable.
        usual_target: the target of collections that have none of their own.
        threshold: the fixed distance, if any, that decides in collections that say nothing.
        progress: is told how many photos of how many are done.

    Raises:
        DeadlineExceeded
    """
    sifted = sift(enrolled.people)
    fixed, target = in_force(enrolled.threshold, enrolled.target_fpir, threshold, usual_target)
    found = _Found(_kept(target, "")) if not sifted.people else _look(sifted, enrolled, target, deadline, progress)
    return Report(
        collection=enrolled.collection,
        revision=enrolled.revision,
        used=_used(enrolled, sifted),
        target_fpir=target,
        in_force=found.in_force,
        figures=found.figures,
        recommendation=found.recommendation,
        genuine=spread(found.trials.genuine) if found.trials else None,
        impostor=spread(found.trials.pairs) if found.trials else None,
        strangers=spread(found.trials.stranger) if found.trials else None,
        findings=found.findings,
        notes=tuple(_notes(enrolled, sifted, found.findings, fixed)),
        trials=found.trials,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    recommendation: Recommendation
    trials: Trials | None = None
    in_force: AtScore | None = None
    figures: tuple[Figure, ...] = ()
    findings: Findings = field(default_factory=Findings)


def _look(
    sifted: Sifted, enrolled: EnrolledPeople, target: float, deadline: Deadline, progress: Progress | None
) -> _Found:
    people = crowd(sifted.people)
    of_people = cohorts(people.templates, deadline)
    trials = hold(people, of_people, deadline, progress)
    figures = Figures(trials)
    needed = partial(evidence.score_at, people=len(sifted.people), shift=enrolled.shift)
    at_target = figures.at(needed(target))
    return _Found(
        _recommended(figures, needed, target),
        trials,
        at_target,
        tuple(figures.figure(rate, needed(rate)) for rate in RATES),
        mending.find(people, of_people, trials, enrolled.shift, at_target.score, deadline),
    )


def _used(enrolled: EnrolledPeople, sifted: Sifted) -> Used:
    photos = np.array([len(person.face_ids) for person in sifted.people], int)
    return Used(
        enrolled.people_enrolled, enrolled.faces_enrolled, len(photos), int(photos.sum()), int((photos > 1).sum())
    )


def _recommended(figures: Figures, needed: Callable[[float], float], target: float) -> Recommendation:
    """The strictest target that costs little of what the laxest gives; `needed` is the score at a target."""
    too_few = figures.too_few(ENOUGH_AT)
    if too_few:
        return _kept(target, too_few.partition("figure")[2])
    found = {each: _share(figures.at(needed(each))) for each in TARGETS}
    last = TARGETS[-1]
    if found[last] < MIN_TPIR:
        few = f"even at {percent(last)} only {percent(found[last])} of the genuine photos are given their name"
        return Recommendation(target, f"keep {percent(target)}: {few}; mend the photos first")
    chosen = next(each for each in TARGETS if found[each] >= found[last] - MAX_COST)
    verb = "keep" if chosen == target else "take"
    gained = ", ".join(f"{percent(found[each])} at {percent(each)}" for each in reversed(TARGETS))
    return Recommendation(chosen, f"{verb} {percent(chosen)}: genuine photos given their name are {gained}")


def _kept(target: float, missing: str) -> Recommendation:
    return Recommendation(target, f"keep {percent(target)}: too few photos to recommend another{missing}")


def _share(at: AtScore) -> float:
    return at.tpir.share if at.tpir else 0.0


def _notes(enrolled: EnrolledPeople, sifted: Sifted, findings: Findings, fixed: float | None) -> list[str]:
    """What a reader has to know before believing the figures."""
    people, photos = len(sifted.people), sum(len(person.face_ids) for person in sifted.people)
    notes = [*_notes_on_missing(people, [len(person.face_ids) for person in sifted.people])]
    if people < enrolled.people_enrolled and len(enrolled.people) < enrolled.people_enrolled:
        notes.append(
            f"A sample of {people:,} of {enrolled.people_enrolled:,} people is used; "
            f"the figures hold for a gallery of {people:,}."
        )
    read = sum(len(person.face_ids) for person in enrolled.people)
    if read < enrolled.faces_enrolled or photos > MAX_PROBES:
        notes.append(f"A sample of {min(photos, MAX_PROBES):,} of {enrolled.faces_enrolled:,} photos was tried.")
    if sifted.repeated:
        notes.append(f"The same photo again for the same person, which counts once: {sifted.repeated:,}.")
    if sifted.not_finite:
        notes.append(f"Photos with numbers that are not finite, which do not count: {sifted.not_finite:,}.")
    if enrolled.faces_elsewhere:
        notes.append(f"Photos of another model, which cannot be compared with these: {enrolled.faces_elsewhere:,}.")
    if fixed is not None:
        notes.append(
            f"A fixed distance of {fixed:g} decides in this collection; "
            "the figures say what its target would do instead."
        )
    if not findings.counted_all:
        notes.append("So many people are like each other that only a part of the pairs was counted.")
    if findings.duplicate_count:
        notes.append(
            f"Pairs of people who are probably one: {findings.duplicate_count:,}. Until they are merged they count as "
            "false matches here, so that the truth is better than the figures."
        )
    return notes


def _notes_on_missing(people: int, photos: list[int]) -> list[str]:
    if not people:
        return ["There is nobody to learn from; enrol people, each with two photos or more."]
    notes = []
    if people == 1:
        notes.append("There is one person only; without a second nothing can be said about strangers.")
    if max(photos) == 1:
        notes.append("Nobody has a second photo; nothing can be said about who would be recognised.")
    return notes


def percent(share: float) -> str:
    """A share in words: 0.003 is "0.3 %"."""
    return f"{share * 100:.3g} %"
