"""The verdict of a run with faults: criteria, each with its figure and its limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from soak.audit import Finding
from soak.faultlog import TERMS, Fault
from soak.load import Tally
from soak.slope import Slope
from soak.witness import HANG, LOST, TAKEN, UNEXPECTED, WRONG

SLOPE_LIMIT = 1.0  # MB per 1,000 requests
BUSY_SHARE_ALLOWED = 0.05
COUNTS = "Threads, files and connections, second half"
PROMISED = ("worker killed", "PostgreSQL killed")


@dataclass(frozen=True)
class Criterion:
    """One thing that is asked; `holds` is None where the run cannot tell, which fails nothing and is said."""

    name: str
    figure: str
    limit: str
    holds: bool | None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """Why the run has failed."""
        return f"{self.name}: {self.figure}, allowed is {self.limit}" + (f" ({self.note})" if self.note else "") + "."


def criteria(
    outcomes: Mapping[str, int],
    findings: Sequence[Finding] | None,
    faults: Sequence[Fault],
    slope: Slope | None,
    enrolments: int,
) -> list[Criterion]:
    """Everything that is asked of a run.

    Args:
        outcomes: how often each outcome was noted, see `witness`.
        findings: of the audit at the end; None when there was none.
        faults: those that were done.
        slope: of the workers' memory; None when there is too little to tell.
        enrolments: how many were acknowledged.
    """
    judged = [
        _count("Wrong answers", WRONG, outcomes),
        _lost(outcomes, findings),
        _count("Unexpected statuses and broken connections", UNEXPECTED, outcomes),
        _count("Hangs", HANG, outcomes),
        _taken(outcomes, enrolments),
        _busy(outcomes),
        slope_criterion(slope),
        *(_recovery(kind, faults) for kind in PROMISED),
        *(_recovery(kind, faults) for kind in TERMS if kind not in PROMISED and any(f.kind == kind for f in faults)),
    ]
    return [*judged, _substance(outcomes, enrolments)]


def plain_criteria(problems: Sequence[Sequence[str]], figures: Sequence[str], slope: Slope | None) -> list[Criterion]:
    """What is asked of a run without faults; `problems` and `figures` are of answers, memory and counts."""
    names = ("Answers wrong or missing", "Memory levels off, second half", COUNTS)
    limits = (f"0, and at most {BUSY_SHARE_ALLOWED:.0%} busy", "no leak", "no steady growth")
    judged = [
        Criterion(name, figure or "-", limit, not found if figure else None)
        for name, figure, limit, found in zip(names, figures, limits, problems, strict=True)
    ]
    return [*judged, slope_criterion(slope)]


def _kinds(prefix: str, outcomes: Mapping[str, int]) -> dict[str, int]:
    return {name: number for name, number in outcomes.items() if name.partition(":")[0] == prefix}


def _count(name: str, prefix: str, outcomes: Mapping[str, int]) -> Criterion:
    found = _kinds(prefix, outcomes)
    note = ", ".join(f"{number} x {what.partition(': ')[2]}" for what, number in found.items())
    return Criterion(name, str(sum(found.values())), "0", not found, note)


def _lost(outcomes: Mapping[str, int], findings: Sequence[Finding] | None) -> Criterion:
    """What was lost on the way, and what the audit found."""
    found = _kinds(LOST, outcomes)
    number = sum(found.values()) + len(findings or ())
    said = [f"{n} x {what.partition(': ')[2]}" for what, n in found.items()]
    said += [f"{finding.name} {finding.kind}: {finding.said}" for finding in (findings or ())[:3]]
    if findings is None:
        said.append("not all was checked at the end")
    holds = False if number else None if findings is None else True
    name = "Lost, doubled or half enrolments, deletions undone"
    return Criterion(name, str(number), "0", holds, "; ".join(said))


def _taken(outcomes: Mapping[str, int], enrolments: int) -> Criterion:
    """Twice the service's own rate, 1 of 3,000 new people, and three: chance alone is above that in 1 of 1,000 runs."""
    taken, allowed = sum(_kinds(TAKEN, outcomes).values()), 3 + 2 * math.ceil(enrolments / 3000)
    return Criterion("New people taken for somebody else", f"{taken} of {enrolments:,}", str(allowed), taken <= allowed)


def _busy(outcomes: Mapping[str, int]) -> Criterion:
    requests, busy = sum(outcomes.values()), outcomes.get(Tally.BUSY, 0)
    share = busy / requests if requests else 0.0
    figure = f"{share:.1%} of {requests:,}"
    return Criterion("Answered busy without a fault", figure, f"{BUSY_SHARE_ALLOWED:.0%}", share <= BUSY_SHARE_ALLOWED)


def slope_criterion(slope: Slope | None) -> Criterion:
    name = "Memory per 1,000 requests, second half"
    limit = f"95 % limits that include 0 or stay under {SLOPE_LIMIT:g} MB"
    if slope is None:
        return Criterion(name, "-", limit, None, "too few requests in the second half to tell")
    figure = f"{slope.value:+.2f} MB ({slope.low:+.2f} to {slope.high:+.2f})"
    note = f"processes judged: {slope.lives}, requests: {slope.requests:,}"
    if slope.low <= 0 and slope.high >= SLOPE_LIMIT:
        note += "; the limits are wide, a longer run can tell more"
    return Criterion(name, figure, limit, not slope.is_leak(SLOPE_LIMIT), note)


def _recovery(kind: str, faults: Sequence[Fault]) -> Criterion:
    """The longest recovery from faults of a kind; one that was never seen to end is none."""
    limit = TERMS[kind].recovery_limit_seconds
    name, allowed = f"Recovery: {kind}", f"{limit:g} s"
    done = [fault for fault in faults if fault.kind == kind and fault.ended is not None]
    if not done:
        return Criterion(name, "-", allowed, None, "did not happen in this run")
    times = [fault.recovery_seconds() for fault in done]
    note = f"longest of {len(done)}"
    if None in times:
        return Criterion(name, "never", allowed, False, f"{times.count(None)} of {len(done)} times")
    longest = max(time for time in times if time is not None)
    return Criterion(name, f"{longest:.1f} s", allowed, longest <= limit, note)


def counts(table: Mapping[str, Mapping[str, Any]]) -> Criterion:
    """Threads, file descriptors and database connections, as they were judged."""
    leaks = [what for what, row in table.items() if row["leak"]]
    holds = not leaks if table else None
    return Criterion(COUNTS, counts_in_words(table) or "-", "no steady growth", holds, ", ".join(leaks))


def counts_in_words(table: Mapping[str, Mapping[str, Any]]) -> str:
    """From how many to how many."""
    return ", ".join(f"{what} {row['first']:.0f} to {row['last']:.0f}" for what, row in table.items())


def _substance(outcomes: Mapping[str, int], enrolments: int) -> Criterion:
    """A run in which nothing was done proves nothing."""
    right = outcomes.get(Tally.RIGHT, 0)
    figure = f"{right:,} photos recognised rightly, {enrolments:,} enrolments acknowledged"
    return Criterion("Something was done", figure, "at least one of each", right > 0 and enrolments > 0)
