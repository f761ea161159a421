"""How much one embedding says about another: the space in which people are compared, templates and cohorts.

A probe's likeness to a person is the cosine between both, seen from the centre of all faces. By itself it says little:
some faces are like many others. So half of what either side has in common with its *cohort*, the people who resemble it
most, is taken off (symmetric score normalisation, "S-norm"; Auckenthaler et al., Score Normalization for
Text-Independent Speaker Verification Systems, 2000; Shum et al., Unsupervised Speaker Adaptation, 2010). The cohort
are the people of the gallery and, so that a gallery of four people has one too, 2,000 imaginary ones: draws from a
distribution that was fitted to embeddings, none of them anybody's. docs/adr/0007-decisions.md has the measurements.

The numbers are in evidence.npz, which benchmarks/learn_evidence.py has learned and describes.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float32]
"""(128,) or (n, 128) float32"""

IMAGINARY_WEIGHT: Final = 0.1
"""What an imaginary person counts in a cohort, a real one counting 1: 2,000 as much as 200."""
COHORT_SHARE: Final = 0.025
"""The cohort is this share of everybody, the most alike ones."""
MAX_COHORT: Final = 50.0
"""And never more than so many real people: as many as a search brings along."""

ODD_LIKENESS: Final = 0.3
"""Where a photo that is no more like the person's others counts half: one of 100 genuine photos is below 0.5."""
ODD_SPREAD: Final = 0.1

NEAREST_DISCOUNT: Final = 0.15
"""A single face that is more alike than the template by more than this counts instead of it (a person with and
without a beard). Smaller values lose more by chance likenesses than they gain."""


class Learned(NamedTuple):
    """What evidence.npz holds."""

    centre: Vector
    """The mean of all faces' embeddings, (128,)."""
    imaginary: Vector
    """Imaginary people, (2000, 128), in the space of `unit`."""
    people: NDArray[np.float64]
    """Sizes of galleries, rising."""
    rates: NDArray[np.float64]
    """False positive identification rates, falling."""
    scores: NDArray[np.float64]
    """(sizes, rates): the score that a stranger's best candidate reaches at that rate in a gallery of that size."""


@cache
def learned() -> Learned:
    """The constants, read once."""
    file = resources.files("recognizer") / "evidence.npz"
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
        return Learned(
            stored["centre"].astype(np.float32),
            _normalised(stored["imaginary"].astype(np.float32)),
            *(stored[name].astype(np.float64) for name in ("people", "rates", "scores")),
        )


def _normalised(vectors: Vector) -> Vector:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    normalised: Vector = vectors / np.maximum(length, np.float32(1e-12))
    return normalised


def unit(embeddings: Vector) -> Vector:
    """Embeddings as directions from the centre of all faces, of length 1; likeness is their inner product."""
    return unit_from(embeddings, learned().centre)


def unit_from(embeddings: Vector, centre: Vector) -> Vector:
    """The same from any centre."""
    return _normalised(np.asarray(embeddings, np.float32) - centre)


def radius(embedding: Vector) -> float:
    """The distance of an embedding from the centre of all faces."""
    return float(np.linalg.norm(np.asarray(embedding, np.float32) - learned().centre))


def template(embeddings: Vector) -> Vector:
    """What the faces of one person have in common, (128,) of length 1.

    It is their mean; of three and more, a face that is not like the rest (somebody else's, or spoilt) counts little.
    """
    units = unit(embeddings)
    if len(units) < 3:
        return _normalised(units.mean(axis=0))
    weights = 1.0 / (1.0 + np.exp((ODD_LIKENESS - likeness_to_others(units)) / ODD_SPREAD))
    return _normalised((units * weights[:, None]).sum(axis=0)).astype(np.float32)


def likeness_to_others(units: Vector) -> NDArray[np.float32]:
    """How much each of a person's faces, (n, 128) from `unit`, is like the mean of the others; n is at least 2."""
    others = _normalised(units.sum(axis=0, keepdims=True) - units)
    alike: NDArray[np.float32] = (units * others).sum(axis=1)
    return alike


def cohort_size(others: int) -> float:
    """How many of `others` real people and the imaginary ones make a cohort."""
    everybody = others + IMAGINARY_WEIGHT * len(learned().imaginary)
    return min(MAX_COHORT, COHORT_SHARE * everybody)


def cohort_likeness(vector: Vector, likenesses: ArrayLike, others: int) -> float:
    """The mean likeness of a face or template to its cohort.

    Args:
        vector: (128,) from `unit` or `template`.
        likenesses: to the real people who are most alike, `MAX_COHORT` of them or all.
        others: how many real people there are, besides the one `vector` shows.
    """
    size = cohort_size(others)
    alike, counts = _most_alike(vector, likenesses, size)
    return float(_sum_up_to(size, alike, counts) / size)


def cohort_likenesses(vector: Vector, likenesses: ArrayLike, people: int) -> NDArray[np.float64]:
    """The same for each of the real people as a candidate, who then does not belong to the cohort.

    Args:
        vector: (128,), a probe.
        likenesses: to the real people who are most alike: one more than `MAX_COHORT`, or all.
        people: how many real people there are.
    """
    real = np.asarray(likenesses, np.float64)
    size = cohort_size(people - 1)
    alike, counts = _most_alike(vector, real, size + 1)
    with_one_more = _sum_up_to(size + 1, alike, counts)
    without = (with_one_more - real) / size
    farther = _sum_up_to(size, alike, counts) / size
    means: NDArray[np.float64] = np.minimum(without, farther)  # without is larger where the candidate is farther
    return means


def _most_alike(vector: Vector, likenesses: ArrayLike, size: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Likenesses to imaginary and real people, falling, and what each counts."""
    imaginary = learned().imaginary @ vector
    kept = min(len(imaginary), int(size / IMAGINARY_WEIGHT) + 1)
    imaginary = np.partition(imaginary, len(imaginary) - kept)[len(imaginary) - kept :]
    alike = np.concatenate([imaginary, np.asarray(likenesses, np.float64)])
    counts = np.ones(len(alike))
    counts[:kept] = IMAGINARY_WEIGHT
    order = np.argsort(-alike, kind="stable")
    return alike[order], counts[order]


def _sum_up_to(size: float, alike: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """The sum of the first `alike` that count `size` together."""
    ends = np.cumsum(counts)
    return float(np.interp(size, np.append(0.0, ends), np.append(0.0, np.cumsum(alike * counts))))


def scores(
    alike: NDArray[np.float64], of_probe: NDArray[np.float64], of_people: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Normalised scores of candidates: their likeness less half of either side's likeness to its cohort."""
    normalised: NDArray[np.float64] = alike - (of_probe + of_people) / 2
    return normalised


def score_at(rate: float, people: int, shift: float = 0.0) -> float:
    """The score that the best candidate of a stranger reaches in the share `rate` of cases.

    Args:
        rate: false positive identification rate, between 0 and 1.
        people: enrolled people, at least 1.
        shift: by how much a gallery's own people are more alike than those the constants come from.
    """
    known = learned()
    at_size = np.array([np.interp(np.log(people), np.log(known.people), column) for column in known.scores.T])
    return float(_on_a_line(-np.log(rate), -np.log(known.rates), at_size)) + shift


def _on_a_line(x: float, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> float:
    """Linear interpolation that goes on beyond both ends."""
    place = int(np.clip(np.searchsorted(xs, x), 1, len(xs) - 1))
    slope = (ys[place] - ys[place - 1]) / (xs[place] - xs[place - 1])
    return float(ys[place - 1] + slope * (x - xs[place - 1]))
