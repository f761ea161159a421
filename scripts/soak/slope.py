"""How memory grows with the number of requests: a slope with limits of confidence.

Only the second half of the run is looked at, and only processes that began well before it and live through it: a new
worker grows until it has met its largest photo in each of its threads, which is no leak and takes minutes (so faults
leave the oldest worker alone after the first quarter). Where no process lives that long, the second half of the life of
those that lived ten minutes is taken. Each process has a level of its own, all have one slope, by least squares (the
within-estimator); times the workers there are, it is the service's.

Samples of memory resemble their neighbours, so the slope and its limits come from the means of long batches, and the
limits are wider by what likeness is left between these. In trials they held the truth in 97 % of series of independent
noise, 95 % where each value keeps nine tenths of the last one, and 91 % of random walks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from soak.processes import Sample

POINTS_OF_A_LIFE, BATCHES = 8, 12
POINTS_NEEDED, REQUESTS_NEEDED = 24, 4000
NEWCOMERS_FROM = 0.3  # of the run
LIFE_SECONDS = 600.0  # of a process that began in the second half, to be judged at all

Life = list[tuple[float, float]]
"""One process: (thousands of requests that the service had answered, megabytes)."""


class Slope(NamedTuple):
    """Megabytes per 1,000 requests, of all workers together, and the 95 % limits."""

    value: float
    low: float
    high: float
    workers: float
    lives: int
    points: int
    requests: int

    def is_leak(self, limit: float) -> bool:
        """Clearly above 0 and possibly above the limit."""
        return self.low > 0 and self.high >= limit

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, 4) for name, value in self._asdict().items()}


def memory_slope(samples: Sequence[Sample], answered: Sequence[int], seconds: float) -> Slope | None:
    """The slope of the workers' memory; None when there is too little to tell.

    Args:
        samples: the processes over time.
        answered: how many requests had been answered at each of them.
        seconds: how long the load lasted.
    """
    curves: dict[int, list[tuple[float, float, float]]] = {}
    for sample, requests in zip(samples, answered, strict=True):
        for process in sample.processes:
            if process.kind == "workers":
                curves.setdefault(process.pid, []).append((sample.at, requests / 1000, process.memory_mb))
    settled = [_through(curve, seconds) for curve in curves.values()]
    if not any(settled):
        settled = [_late(curve) for curve in curves.values()]
    lives = [life for life in settled if len(life) >= POINTS_OF_A_LIFE]
    late = [sum(p.kind == "workers" for p in sample.processes) for sample in samples if sample.at >= seconds / 2]
    if not lives or not late:
        return None
    spanned = max(x for life in lives for x, _ in life) - min(x for life in lives for x, _ in life)
    points = sum(map(len, lives))
    if points < POINTS_NEEDED or spanned * 1000 < REQUESTS_NEEDED:
        return None
    workers = sum(late) / len(late)
    value, low, high = (workers * each for each in limits(lives))
    return Slope(value, low, high, workers, len(lives), points, round(spanned * 1000))


def limits(lives: Sequence[Life]) -> tuple[float, float, float]:
    """The common slope and its 95 % limits, from means of long batches: neighbours in a batch count as one."""
    batches = [_centred(_thinned(life, BATCHES)) for life in lives]
    points = list(itertools.chain(*batches))
    spread = sum(x * x for x, _ in points)
    if not spread:
        return 0.0, -math.inf, math.inf
    value = sum(x * y for x, y in points) / spread
    rests = [[y - value * x for x, y in life] for life in batches]
    freedom = max(1, len(points) - len(lives) - 1)
    error = math.sqrt(sum(rest * rest for life in rests for rest in life) / freedom / spread)
    likeness = _likeness_of_neighbours(rests)
    error *= math.sqrt((1 + likeness) / (1 - likeness))
    reach = (1.96 + 2.37 / freedom + 2.82 / freedom**2) * error  # Student's t, near enough from 3 degrees on
    return value, value - reach, value + reach


def _likeness_of_neighbours(rests: Sequence[Sequence[float]]) -> float:
    """The autocorrelation that is left between batches; its estimate is too low in short series, which is added."""
    total = sum(rest * rest for life in rests for rest in life)
    together = sum(a * b for life in rests for a, b in itertools.pairwise(life))
    number = sum(map(len, rests)) / len(rests)
    return min(0.9, max(0.0, (together / total if total else 0.0) + 4 / number))


def _through(curve: Sequence[tuple[float, float, float]], seconds: float) -> Life:
    """The second half of the run, of a process that lived through it and was no newcomer then."""
    lived = curve[0][0] <= NEWCOMERS_FROM * seconds and curve[-1][0] >= 0.97 * seconds
    return [(x, y) for at, x, y in curve if at >= seconds / 2] if lived else []


def _late(curve: Sequence[tuple[float, float, float]]) -> Life:
    """The second half of a life that was long enough."""
    began, ended = curve[0][0], curve[-1][0]
    return [(x, y) for at, x, y in curve if at >= (began + ended) / 2] if ended - began >= LIFE_SECONDS else []


def _centred(life: Life) -> Life:
    mean_x, mean_y = (sum(values) / len(life) for values in zip(*life, strict=True))
    return [(x - mean_x, y - mean_y) for x, y in life]


def _thinned(life: Life, most: int) -> Life:
    """Means of neighbours, one for each of about `most` batches."""
    size = math.ceil(len(life) / most)
    groups = [life[start : start + size] for start in range(0, len(life), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
