"""Judging a run: are the answers right, do memory and the counts of scarce things stay flat?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from soak.load import Tally
from soak.processes import Sample

BUSY_SHARE_ALLOWED = 0.05


LEAK_MB, LEAK_SHARE = 20.0, 0.05
LEAK_POINTS, LEAK_SECONDS = 8, 14.0  # what the second half needs at least to be judged
GROWTH_ALLOWED = {"threads": 4, "file descriptors": 10, "database connections": 2}


@dataclass(frozen=True)
class Trend:
    """How a curve goes on: megabytes in the beginning, growth, and whether that is clear and steady."""

    first: float
    growth: float
    climbs: bool


def trend_of(points: Sequence[tuple[float, float]]) -> Trend | None:
    """The Theil-Sen line through (seconds, megabytes); None when there are too few to tell."""
    points = _thinned(points, 120)
    if len(points) < LEAK_POINTS or points[-1][0] - points[0][0] < LEAK_SECONDS:
        return None
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x2 > x1)
    n = len(points)
    spread = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)  # of Kendall's score without a trend
    lowest = slopes[max(0, int((len(slopes) - spread) / 2))]
    quarters = _quarters([y for _, y in points])
    growth = statistics.median(slopes) * (points[-1][0] - points[0][0])
    return Trend(quarters[0], growth, climbs=lowest > 0 and _rise(quarters))


def _quarters(values: Sequence[float]) -> list[float]:
    """The medians of four quarters."""
    n = len(values)
    return [statistics.median(values[n * quarter // 4 : n * (quarter + 1) // 4]) for quarter in range(4)]


def _rise(quarters: Sequence[float]) -> bool:
    """Whether each quarter is above the one before by at least a third of the average rise: a leak makes no steps."""
    rises = [later - earlier for earlier, later in itertools.pairwise(quarters)]
    return min(rises) > max(0.0, sum(rises) / len(rises) / 3)


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Medians of neighbours, so that hours of samples do not mean millions of pairs."""
    size = math.ceil(len(points) / most) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(statistics.median(x for x, _ in group), statistics.median(y for _, y in group)) for group in groups]


def memory_trends(samples: Sequence[Sample], kind: str, seconds: float) -> list[Trend]:
    """The trends of one kind of process in the second half: of their sum, or of each when some were replaced."""
    curves: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        for process in sample.processes:
            if process.kind == kind:
                curves.setdefault(process.pid, []).append((sample.at, process.memory_mb))
    late = [curve for curve in curves.values() if curve[-1][0] > seconds / 2]
    # the second half of the run, and of a process that began later the second half of its life
    halves = [
        [point for point in curve if point[0] >= max(seconds / 2, (curve[0][0] + curve[-1][0]) / 2)] for curve in late
    ]
    if len({tuple(at for at, _ in half) for half in halves}) == 1:
        halves = [[(points[0][0], sum(value for _, value in points)) for points in zip(*halves, strict=True)]]
    return [trend for trend in map(trend_of, halves) if trend]


def judge_memory(samples: Sequence[Sample], seconds: float, requests: int) -> tuple[dict[str, Any], list[str]]:
    """What every kind of process needed in the second half, and sentences about leaks."""
    table, problems = {}, []
    share = LEAK_SHARE * max(1.0, 60.0 / seconds)  # in a run that short the second half is still warm-up in part
    for kind in dict.fromkeys(process.kind for sample in samples for process in sample.processes):
        trends = memory_trends(samples, kind, seconds)
        if not trends:
            continue
        growth = sum(t.growth for t in trends)
        climbing = sum(t.growth for t in trends if t.climbs)
        is_leak = climbing > max(LEAK_MB, share * sum(t.first for t in trends if t.climbs))
        sums = [sum(p.memory_mb for p in s.processes if p.kind == kind) for s in samples if s.at >= seconds / 2]
        pids = [{p.pid for p in s.processes if p.kind == kind} for s in samples]
        row = {
            "processes": len(pids[-1]),
            "replaced": len(set().union(*pids) - pids[0]),
            "first_mb": round(statistics.median(sums[: len(sums) // 4 + 1]), 1),
            "last_mb": round(statistics.median(sums[-len(sums) // 4 :]), 1),
            "growth_mb": round(growth, 1),
            "mb_per_hour": round(growth / (seconds / 2) * 3600, 1),
            "mb_per_1000_requests": round(growth / requests * 1000, 2) if requests else None,
            "leak": is_leak,
        }
        table[kind] = row
        if is_leak:
            problems.append(
                f"memory of the {kind} keeps growing and does not level off: {growth:+.0f} MB in the second half "
                f"({seconds / 2:.0f} s), from {row['first_mb']:.0f} to {row['last_mb']:.0f} MB, that is "
                f"{row['mb_per_hour']:,.0f} MB per hour or {row['mb_per_1000_requests']} MB per 1,000 requests."
            )
    return table, problems


def judge_counts(samples: Sequence[Sample], seconds: float) -> tuple[dict[str, Any], list[str]]:
    """Threads, file descriptors and database connections: a leak rises all the time and beyond what was before.

    A step is none: pools open what they need, and a replaced worker opens all of it anew.
    """

    def count(sample: Sample, what: str) -> int | None:
        if what == "database connections":
            return sample.connections
        own = [process for process in sample.processes if process.kind != "database"]
        values = [process.threads if what == "threads" else process.files for process in own]
        return sum(value for value in values if value is not None) if any(v is not None for v in values) else None

    table, problems = {}, []
    for what, allowed in GROWTH_ALLOWED.items():
        points = [(sample.at, value) for sample in samples if (value := count(sample, what)) is not None]
        early = [value for at, value in points if at < seconds / 2]
        late = [value for at, value in points if at >= seconds / 2]
        if not early or len(late) < LEAK_POINTS:
            continue
        quarters = _quarters(late)
        leak = _rise(quarters) and quarters[-1] - max(early) > max(allowed, 0.05 * max(early))
        table[what] = {"first": quarters[0], "last": quarters[-1], "most": max(early + late), "leak": leak}
        if leak:
            problems.append(
                f"the number of {what} keeps growing: at most {max(early)} in the first half of the run, "
                f"{quarters[-1]:.0f} at its end."
            )
    return table, problems


def judge_answers(tally: Tally) -> list[str]:
    """Sentences about answers that were wrong or missing."""
    problems = []
    errors, requests = tally.errors(), tally.requests()
    if errors:
        kinds = ", ".join(f"{number} x {kind}" for kind, number in errors.items())
        first = tally.examples[0]
        where = f"the first after {first['after_seconds']} s: {first['photo']}, request {first['request_id']}"
        problems.append(f"{sum(errors.values()):,} of {requests:,} requests went wrong ({kinds}; {where}).")
    if not tally.outcomes[Tally.RIGHT]:
        problems.append("no photo was recognised rightly.")
    if (busy := tally.outcomes[Tally.BUSY]) > BUSY_SHARE_ALLOWED * requests:
        share = f"{busy / requests:.0%}, allowed are {BUSY_SHARE_ALLOWED:.0%}"
        problems.append(f"{busy:,} of {requests:,} requests were answered busy ({share}): too much load for it.")
    return problems


def percentile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Nearest rank, in milliseconds."""
    ordered = sorted(seconds)
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 1) if ordered else None
