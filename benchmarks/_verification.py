"""The arithmetic of face verification: lists of pairs, ten folds, ROC, and whether two methods really differ."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDS = 10

Distances = NDArray[np.float64]
Marks = NDArray[np.bool_]
"""One truth value for each pair."""


@dataclass(frozen=True)
class Pair:
    """Two photos, as paths below the root, and whether they show the same person."""

    a: str
    b: str
    same: bool
    fold: int = -1


# -- lists of pairs --


def read_pairs(path: Path) -> list[Pair]:
    """Read a CSV file with the columns a, b and same (0 or 1), or a `pairs.txt` of LFW.

    LFW's own ten folds are kept where its first line gives them (`10 300`). Otherwise the same and the different
    pairs are each cut into ten parts in the order of the list, which keeps most of a person's pairs together.

    Raises:
        ValueError: it is neither, or has too few pairs.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines and {"a", "b", "same"} <= set(lines[0].split(",")):
        pairs = [Pair(row["a"], row["b"], row["same"].strip() == "1") for row in csv.DictReader(lines)]
        return _in_folds(pairs)
    return _read_lfw([line.split() for line in lines if line.strip()], path)


def _read_lfw(rows: list[list[str]], path: Path) -> list[Pair]:
    header = rows.pop(0) if rows and len(rows[0]) <= 2 else []
    try:
        pairs = [_lfw_pair(row) for row in rows]
        folds, each = map(int, header) if len(header) == 2 else (0, 0)
    except ValueError as error:
        raise ValueError(
            f"{path} is neither a CSV file with the columns a,b,same nor a list of LFW: {error}"
        ) from error
    if folds == 0:
        return _in_folds(pairs)
    if folds != FOLDS or len(pairs) != folds * 2 * each:
        raise ValueError(f"{path} says {folds} folds of 2 x {each} pairs and has {len(pairs)}; {FOLDS} are expected.")
    return [replace(pair, fold=number // (2 * each)) for number, pair in enumerate(pairs)]


def _lfw_pair(row: list[str]) -> Pair:
    """`Name 1 4`: two photos of one person; `Name 1 Other 2`: of two."""
    if len(row) not in (3, 4):
        raise ValueError(f"`{' '.join(row)}` is no pair.")
    name, number, *other = row
    other_name, other_number = other if len(other) == 2 else (name, other[0])
    photos = (f"{who}/{who}_{int(which):04d}.jpg" for who, which in ((name, number), (other_name, other_number)))
    return Pair(*photos, same=len(row) == 3)


def _in_folds(pairs: Sequence[Pair]) -> list[Pair]:
    total = {same: sum(pair.same == same for pair in pairs) for same in (True, False)}
    if min(total.values()) < FOLDS:
        raise ValueError(f"{FOLDS} folds need at least {FOLDS} same and {FOLDS} different pairs.")
    seen = {True: 0, False: 0}
    placed = []
    for pair in pairs:
        placed.append(replace(pair, fold=seen[pair.same] * FOLDS // total[pair.same]))
        seen[pair.same] += 1
    return placed


# -- folds, thresholds, ROC --


def best_threshold(distances: Distances, same: Marks) -> float:
    """The distance up to which calling a pair the same is right most often; the middle one of several."""
    order = np.argsort(distances, kind="stable")
    ordered, truth = distances[order], same[order]
    # for 0, 1, ... all of the nearest pairs called the same: the same ones among them, the different ones beyond
    right = np.append(0, np.cumsum(truth)) + (~truth).sum() - np.append(0, np.cumsum(~truth))
    edges = np.concatenate(([ordered[0] - 1.0], ordered, [ordered[-1] + 1.0]))
    right[edges[:-1] == edges[1:]] = -1  # a threshold cannot part equal distances
    best = np.flatnonzero(right == right.max())
    chosen = best[len(best) // 2]
    return float(edges[chosen] + edges[chosen + 1]) / 2


def right_in_folds(distances: Distances, same: Marks, folds: NDArray[np.int_]) -> Marks:
    """Which pairs are judged rightly, each fold with the threshold that is best on the nine others."""
    right = np.zeros(len(distances), bool)
    for fold in np.unique(folds):
        inside = folds == fold
        threshold = best_threshold(distances[~inside], same[~inside])
        right[inside] = (distances[inside] <= threshold) == same[inside]
    return right


def mean_and_error(values: NDArray[np.float64], folds: NDArray[np.int_]) -> tuple[float, float]:
    """The mean over folds of the folds' means, and its standard error."""
    means = np.array([values[folds == fold].mean() for fold in np.unique(folds)])
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means)))


def true_match_rate(distances: Distances, same: Marks, false_match_rate: float) -> float | None:
    """The share of same pairs that match where at most this share of different ones does; None: too few pairs."""
    different = np.sort(distances[~same])
    allowed = math.floor(false_match_rate * len(different) + 1e-9)
    if allowed < 1:
        return None
    if allowed >= len(different):
        return 1.0
    return float((distances[same] < different[allowed]).mean())


def roc(distances: Distances, same: Marks) -> tuple[Distances, Distances]:
    """False and true match rates at every threshold that changes either."""
    truth = same[np.argsort(distances, kind="stable")]
    return np.cumsum(~truth) / max(1, (~same).sum()), np.cumsum(truth) / max(1, same.sum())


def mcnemar(right_a: Marks, right_b: Marks) -> tuple[int, int, float]:
    """How many pairs only A and only B judged rightly, and how likely chance alone parts them so far (exact test)."""
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    differing = only_a + only_b
    tail = sum(math.comb(differing, k) for k in range(min(only_a, only_b) + 1))
    return only_a, only_b, min(1.0, 2 * tail / 2**differing)
