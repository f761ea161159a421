"""The slope of memory over requests, and how sure it is."""

from __future__ import annotations

import random

import pytest
from soak.processes import Process, Sample
from soak.slope import Slope, memory_slope

SECONDS = 600.0


def measured(leak: float, workers: int = 2, killed_at: float = 0.0, noise: float = 0.9, requests: int = 20) -> Slope:
    """The slope of workers that leak so many megabytes per 1,000 requests together; noise remembers its past."""
    chance, samples, answered = random.Random(1), [], []
    wander = [0.0] * workers
    for number in range(300):
        at = number * SECONDS / 300
        seen = []
        for worker in range(workers):
            wander[worker] = noise * wander[worker] + chance.gauss(0, 0.3)
            is_new = worker == 0 and killed_at and at >= killed_at
            age = at - (killed_at if is_new else -1000)
            level = 300 - (200 / (1 + age) if is_new else 0)  # a new worker grows until it has what it needs
            grown = leak / workers * at * requests / 1000
            seen.append(Process(100 + worker + (50 if is_new else 0), "workers", level + grown + wander[worker]))
        samples.append(Sample(at, tuple(seen), None))
        answered.append(round(at * requests))
    found = memory_slope(samples, answered, SECONDS)
    assert found
    return found


@pytest.mark.parametrize("killed_at", [0.0, 150.0, 400.0])
def test_memory_that_is_flat_is_no_leak(killed_at: float) -> None:
    assert not measured(0.0, killed_at=killed_at).is_leak(1.0)


@pytest.mark.parametrize("killed_at", [0.0, 150.0, 400.0])
def test_memory_that_grows_is_a_leak_also_when_workers_were_replaced(killed_at: float) -> None:
    found = measured(5.0, killed_at=killed_at)
    assert found.is_leak(1.0)
    assert found.low < 5.0 < found.high


def test_the_slope_is_that_of_all_workers_together() -> None:
    assert measured(6.0, workers=3, noise=0.0).value == pytest.approx(6.0, abs=0.2)


def test_the_limits_are_wider_where_the_noise_remembers_its_past() -> None:
    restless, white = measured(0.0, noise=0.97), measured(0.0, noise=0.0)
    assert restless.high - restless.low > 3 * (white.high - white.low)


def test_the_limits_hold_what_they_promise() -> None:
    """19 of 20 runs of flat memory are not called growing; here with noise that is much like memory's."""
    from soak.slope import limits

    called_growing = 0
    for seed in range(100):
        chance, level, life = random.Random(seed), 0.0, []
        for number in range(200):
            level = 0.95 * level + chance.gauss(0, 1)
            life.append((number / 20, 300 + level))
        called_growing += limits([life])[1] > 0
    assert called_growing <= 8


def test_a_short_run_is_not_judged() -> None:
    samples = [Sample(at, (Process(1, "workers", 300.0 + at),), None) for at in range(60)]
    assert memory_slope(samples, [at * 10 for at in range(60)], 60) is None
    assert memory_slope([], [], 60) is None
