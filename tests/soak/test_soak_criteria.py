"""Each criterion of a run with faults fails when it should: clients and audit against a gallery that does wrong."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest
from small_gallery import SmallGallery
from soak import talk, witness
from soak.audit import audit
from soak.crew import Crew, Hand, Supplies
from soak.faultlog import Fault, FaultLog
from soak.ledger import Ledger
from soak.load import Tally
from soak.photos import Photo, Rest
from soak.slope import Slope
from soak.talk import Answer, Client
from soak.verdict import Criterion, criteria
from soak.witness import Witness

WRONG, LOST, UNEXPECTED, HANGS = (
    "Wrong answers",
    "Lost, doubled or half enrolments, deletions undone",
    "Unexpected statuses and broken connections",
    "Hangs",
)


def photo(person: str, rest: Rest | None = None) -> Photo:
    return Photo(person, f"{person}.jpg", "as it is", "image/jpeg", b"\xff\xd8 a photo of " + person.encode(), rest)


class Run:
    """A short run against the gallery; it does wrong as soon as the first people are enrolled."""

    def __init__(self, gallery: SmallGallery) -> None:
        self.gallery, self.faults = gallery, FaultLog()
        resident = gallery.enrol("resident", photo("resident").data)["person"]["id"]
        self.residents = {resident}
        rest = Rest(resident, 0.0, frozenset({resident}), 1)
        self.supplies = Supplies([photo("resident", rest)], [], [], [(b"not a photo", "image/jpeg")])
        self.ledger = Ledger("run", [photo(f"person {number}") for number in range(6)])
        self.witness = Witness("run", Tally(1.0), self.faults)
        self.chance = random.Random(1)
        self.client = Client(gallery.url, None)
        self.hand = Hand(self.client, self.supplies, self.witness, self.ledger, self.chance)

    def work(self, *things: str) -> None:
        for thing in things:
            self.hand.do(thing)

    def verdict(self) -> dict[str, Criterion]:
        client = self.client

        def ask(method: str, path: str, body: bytes, kind: str) -> Answer:
            return client.send(method, path, body, kind)

        findings = audit(self.ledger.entries, self.residents, ask)
        judged = criteria(self.witness.tally.outcomes, findings, self.faults.faults, None, 1)
        return {each.name: each for each in judged}

    def failed(self) -> set[str]:
        return {name for name, each in self.verdict().items() if each.holds is False}


@pytest.fixture
def run(gallery: SmallGallery) -> Iterator[Run]:
    run = Run(gallery)
    yield run
    run.client.close()


def test_nothing_fails_where_nothing_is_wrong(run: Run) -> None:
    crew = Crew(run.gallery.url, run.supplies, run.witness, run.ledger, threads=3, seed=3)
    time.sleep(2.0)
    crew.stop(5)
    assert run.ledger.counts["enrolments"] > 2
    assert run.ledger.counts["deletions"] > 2
    assert run.witness.tally.outcomes[Tally.RIGHT] > 10
    assert not run.failed()


@pytest.mark.parametrize(
    ("wrong", "things", "criterion"),
    [
        ("forgets", ("enrol",), LOST),
        ("doubles", ("enrol",), LOST),
        ("loses faces", ("enrol",), LOST),
        ("keeps the deleted", ("delete",), LOST),
        ("enrols again", ("again", "again"), WRONG),
        ("mixes up", ("recognise",), WRONG),
        ("fails", ("recognise",), UNEXPECTED),
        ("is away", ("recognise",), UNEXPECTED),
        ("hangs up", ("recognise",), UNEXPECTED),
    ],
)
def test_what_a_gallery_does_wrong_fails_its_criterion(
    wrong: str, things: tuple[str, ...], criterion: str, run: Run
) -> None:
    run.work("recognise", "enrol", "enrol")
    assert not run.failed()
    run.gallery.wrong = wrong
    run.work(*things)
    run.gallery.wrong = "mixes up" if wrong == "mixes up" else ""
    assert criterion in run.failed()


def test_an_answer_that_takes_too_long_is_a_hang(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (talk, witness):
        monkeypatch.setattr(module, "REQUEST_SECONDS", 1.0)
    impatient = Hand(Client(run.gallery.url, None), run.supplies, run.witness, run.ledger, run.chance)
    run.gallery.wrong = "hangs"
    run.faults.begin("flood")  # no fault excuses it
    impatient.do("recognise")
    impatient.client.close()
    run.gallery.wrong = ""
    run.work("recognise")
    assert run.failed() == {HANGS}


def test_not_now_and_broken_connections_are_excused_by_a_fault_and_wrong_answers_are_not(run: Run) -> None:
    fault = run.faults.begin("PostgreSQL killed")
    for wrong in ("is away", "hangs up"):
        run.gallery.wrong = wrong
        run.work("recognise", "enrol")
    run.gallery.wrong = ""
    fault.ended = fault.back = time.monotonic()
    run.work("recognise", "enrol")
    assert not run.failed()
    assert sum(fault.excused.values()) == 4
    assert fault.recovery_seconds() is not None
    run.gallery.wrong = "mixes up"
    run.work("recognise")
    run.gallery.wrong = ""
    assert run.failed() == {WRONG}


def test_a_failure_is_excused_by_no_fault(run: Run) -> None:
    run.faults.begin("worker killed")
    run.gallery.wrong = "fails"
    run.work("recognise")
    assert UNEXPECTED in run.failed()


def test_trouble_long_after_a_fault_is_not_excused(run: Run) -> None:
    fault = run.faults.begin("worker killed")
    fault.began = fault.ended = time.monotonic() - fault.terms.excused_seconds - 1
    run.gallery.wrong = "is away"
    run.work("recognise")
    assert UNEXPECTED in run.failed()


def test_an_unanswered_enrolment_is_sent_again_with_its_key_and_enrols_once(run: Run) -> None:
    fault = run.faults.begin("worker killed")
    run.gallery.wrong = "hangs up"
    run.work("enrol")
    run.gallery.wrong = ""
    fault.ended = fault.back = time.monotonic()
    (entry,) = run.ledger.entries
    run.gallery.enrol(entry.name, entry.photo.data, entry.key)  # it had been carried out, only the answer was lost
    run.work("enrol")
    assert (entry.state, entry.attempts) == ("enrolled", 2)
    assert len(run.gallery.people) == 2
    run.work("recognise")
    assert not run.failed()


def test_an_unanswered_enrolment_may_be_there_but_not_half(run: Run) -> None:
    fault = run.faults.begin("worker killed")
    run.gallery.wrong = "hangs up"
    run.work("enrol")
    run.gallery.wrong = ""
    fault.ended = fault.back = time.monotonic()
    run.work("recognise")
    (entry,) = run.ledger.entries
    assert LOST not in run.failed()
    person_id = run.gallery.enrol(entry.name, entry.photo.data)["person"]["id"]
    assert LOST not in run.failed()
    run.gallery.people[person_id]["faces"] = {}
    assert LOST in run.failed()


def slope(value: float, low: float, high: float) -> Slope:
    return Slope(value, low, high, workers=2, lives=2, points=200, requests=9000)


@pytest.mark.parametrize(
    ("measured", "holds"),
    [
        (slope(0.1, -0.3, 0.5), True),
        (slope(2.0, -0.1, 4.1), True),  # cannot be told from 0
        (slope(0.5, 0.2, 0.8), True),  # clearly something, clearly under the limit
        (slope(1.4, 0.8, 2.0), False),
        (None, None),
    ],
)
def test_memory_fails_where_it_clearly_grows_and_may_be_over_the_limit(
    measured: Slope | None, holds: bool | None
) -> None:
    judged = {each.name: each for each in criteria({Tally.RIGHT: 5}, [], [], measured, 1)}
    assert judged["Memory per 1,000 requests, second half"].holds is holds


@pytest.mark.parametrize(
    ("recovered_after", "holds"), [(2.9, True), (3.1, False), (None, False)], ids=["in time", "too late", "never"]
)
def test_a_recovery_has_a_limit(recovered_after: float | None, holds: bool) -> None:
    recovered = None if recovered_after is None else 100 + recovered_after
    faults = [Fault(1, "worker killed", 100.0, ended=100.0, back=100.2, last_trouble=100.1, recovered=recovered)]
    judged = {each.name: each for each in criteria({Tally.RIGHT: 5}, [], faults, None, 1)}
    assert judged["Recovery: worker killed"].holds is holds
    assert judged["Recovery: PostgreSQL killed"].holds is None


def test_a_recovery_that_was_cut_short_by_a_stop_is_not_judged() -> None:
    log = FaultLog()
    log.begin("worker killed")
    log.begin("flood")
    assert [fault.kind for fault in log.to_judge(was_interrupted=True)] == ["worker killed"]
    assert len(log.to_judge(was_interrupted=False)) == 2


def test_who_is_taken_for_somebody_else_is_sent_again(run: Run) -> None:
    run.work(*["enrol"] * 6, *["delete"] * 6)
    run.gallery.wrong = "takes for others"
    run.work(*["enrol"] * 5)
    run.gallery.wrong = ""
    run.work("enrol")
    assert run.ledger.counts["enrolments"] == 7
    assert not run.failed()
    run.gallery.wrong = "takes for others"
    run.work("delete", "enrol")
    run.gallery.wrong = ""
    run.work("enrol")
    assert run.failed() == {"New people taken for somebody else"}


def test_who_was_never_enrolled_is_not_refused_without_a_reason(run: Run) -> None:
    run.work("recognise", "enrol", "enrol")
    run.gallery.wrong = "takes for others"
    run.work("enrol")
    assert WRONG in run.failed()


def test_a_new_person_may_be_taken_for_another_as_rarely_as_is_said() -> None:
    def failed(taken: int, enrolments: int) -> list[str]:
        outcomes = {Tally.RIGHT: 100, "taken: a new person for somebody else": taken}
        return [each.name for each in criteria(outcomes, [], [], None, enrolments) if each.holds is False]

    assert failed(5, 10) == failed(9, 8500) == []
    assert failed(6, 10) == failed(10, 8500) == ["New people taken for somebody else"]


def test_a_run_that_did_nothing_has_not_passed() -> None:
    assert {each.name for each in criteria({}, [], [], None, 0) if each.holds is False} == {"Something was done"}


def test_too_much_busy_without_a_fault_fails() -> None:
    judged: Callable[[int], list[str]] = lambda busy: [  # noqa: E731
        each.name for each in criteria({Tally.RIGHT: 100, Tally.BUSY: busy}, [], [], None, 1) if each.holds is False
    ]
    assert judged(5) == []
    assert judged(6) == ["Answered busy without a fault"]
