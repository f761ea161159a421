"""The service itself over a database of its own, asked who is who, gallery by gallery."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _identification import Draw, Judged, Probes, Shown
from _remembered import Look, Memory
from _report import Pace, progress

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.decisions import Verdict
from recognizer.errors import EnrolmentRefused
from recognizer.gallery.migrate import migrate
from recognizer.runtime import Runtime
from recognizer.service import EnrolRequest, Service, Terms

PLAIN_THRESHOLD = 0.6
"""Of face_recognition: the nearest person up to this distance is a match."""

COLLECTION = "default"
CALL_SECONDS = 60.0
COHORT_SECONDS = 600.0
SETTLE_SECONDS = 0.5
"""How the gallery as a whole differs from others is reckoned just after the last person's cohort."""
NO_FACE = "no face"


class Decided(NamedTuple):
    """Whom a rule took for the best candidate (None: nobody there), how sure it is, and what it decided."""

    person: int | None
    score: float
    decision: str


NOTHING = Decided(None, -np.inf, NO_FACE)


class Outcome(NamedTuple):
    """One probe of one gallery."""

    shown: int
    draw: int
    enrolled: bool
    distance: Decided
    rule: Decided


class OpenSet:
    """Enrols the people of a draw, waits until all is reckoned, and lets the service decide about every probe.

    Photos are enrolled by `Service.enrol` and decided by `Service.identify`. Only the looking at photos was done
    before, for all draws together: the service's engine is the memory of it.
    """

    def __init__(self, runtime: Runtime, looks: Mapping[Path, Look], target: float) -> None:
        self._runtime, self._looks, self._target = runtime, looks, target
        self._service = Service(Memory(runtime.engine, looks), runtime.gallery, runtime.settings)
        self.refused = 0
        """People whom the service would not enrol, over all draws."""

    def ask(self, draw: Draw, number: int, name: str) -> Iterator[Outcome]:
        """Fill the gallery and ask it; `name` is what progress calls the draw."""
        self._clear()
        people = self._enrol(draw, name)
        self._wait_for_cohorts(name)
        asked = [*((shown, True) for shown in draw.probes), *((shown, False) for shown in draw.strangers)]
        pace = Pace(f"probes, {name}", len(asked), stays=False)
        with ThreadPoolExecutor(self._runtime.settings.pool_max) as threads:
            answers = threads.map(lambda each: self._decide(each[0], people), asked)
            for (shown, enrolled), (distance, rule) in zip(asked, answers, strict=True):
                pace.step()
                yield Outcome(shown.person, number, enrolled, distance, rule)

    def _clear(self) -> None:
        with self._runtime.pool.connection(Deadline(CALL_SECONDS)) as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM collections WHERE name_key = %s", (COLLECTION,))
            cursor.execute(
                "INSERT INTO collections (name, name_key, target_fpir) VALUES (%s, %s, %s)",
                (COLLECTION, COLLECTION, self._target),
            )

    def _enrol(self, draw: Draw, name: str) -> dict[str, int]:
        """Who is who, by the id that the service gave."""
        pace = Pace(f"people enrolled, {name}", len(draw.enrolled), stays=False)
        people = {}
        for person, photos in draw.enrolled.items():
            request = EnrolRequest(
                collection=COLLECTION,
                photos=[photo.read_bytes() for photo in photos],
                name=f"person {person}",  # names may be alike, numbers are not
                force=True,
                largest_face=True,
            )
            try:
                people[self._service.enrol(request, Deadline(CALL_SECONDS)).person_id] = person
            except EnrolmentRefused:
                self.refused += 1
            pace.step()
        return people

    def _wait_for_cohorts(self, name: str) -> None:
        """Until each person's likeness to the others is what these people make it.

        Raises:
            ValueError: it takes too long.
        """
        last = time.monotonic()
        until = last + COHORT_SECONDS
        while stale := self._runtime.gallery.stale_cohorts(Deadline(CALL_SECONDS)):
            now = time.monotonic()
            if now > until:
                raise ValueError(f"The cohorts of {stale} people were not reckoned within {COHORT_SECONDS:.0f} s.")
            if now - last > Pace.SECONDS_BETWEEN:
                progress(f"waiting for the cohorts of {stale:,} people, {name}")
                last = now
            time.sleep(0.1)
        time.sleep(SETTLE_SECONDS)

    def _decide(self, shown: Shown, people: Mapping[str, int]) -> tuple[Decided, Decided]:
        """By distance alone, and by the rule of the service."""
        analysis = self._looks[shown.photo].analysis
        if analysis is None or not analysis.faces:
            return NOTHING, NOTHING
        deadline = Deadline(CALL_SECONDS)
        collection = self._runtime.gallery.collection(COLLECTION, deadline)
        plain = self._service.identify(analysis, collection, deadline, Terms(threshold=PLAIN_THRESHOLD)).seen[0].verdict
        rule = self._service.identify(analysis, collection, deadline).seen[0].verdict
        distance = -plain.best.neighbour.distance if plain.best else -np.inf
        score = rule.best.score if rule.best else -np.inf
        return _decided(plain, distance, people), _decided(rule, score, people)


def _decided(verdict: Verdict, score: float, people: Mapping[str, int]) -> Decided:
    person = people.get(verdict.best.neighbour.person_id) if verdict.best else None
    return Decided(person, float(score), verdict.decision)


@contextlib.contextmanager
def open_set(settings: Settings, looks: Mapping[Path, Look], target: float) -> Iterator[OpenSet]:
    """Migrate the database that the settings name, and open the service over it."""
    assert settings.database_url is not None
    migrate(settings.database_url.get_secret_value(), CALL_SECONDS)
    runtime = Runtime(settings)
    try:
        yield OpenSet(runtime, looks, target)
    finally:
        runtime.close()


def arrays_of(outcomes: Sequence[Outcome]) -> tuple[Probes, Judged, Judged]:
    """The outcomes for the arithmetic: all probes, as distance and as the rule judged them.

    Strangers without a face are left out, for they would make FPIR look better than it is; enrolled people's count.
    """
    counted = [each for each in outcomes if each.enrolled or each.rule.decision != NO_FACE]
    shown, draw, enrolled, distance, rule = zip(*counted, strict=True)
    probes = Probes(np.array(shown), np.array(draw), np.array(enrolled, bool))
    within = [one.score >= -PLAIN_THRESHOLD for one in distance]  # face_recognition knows no `ambiguous`
    match = [one.decision == "match" for one in rule]
    return probes, _judged(probes, distance, within), _judged(probes, rule, match)


def _judged(probes: Probes, decided: Sequence[Decided], match: Sequence[bool]) -> Judged:
    right = [one.person == shown for one, shown in zip(decided, probes.person, strict=True)]
    return Judged(np.array([one.score for one in decided]), np.array(right) & probes.enrolled, np.array(match))
