"""The arithmetic of the accuracy benchmark, on cases that can be done by hand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def verification() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("_verification")
    finally:
        sys.path.remove(str(BENCHMARKS))


def lfw_lines(each: int) -> list[str]:
    return [f"Al_Gore\t{n}\t{n + 1}" for n in range(each)] + [f"Al_Gore\t{n}\tTiger_Woods\t5" for n in range(each)]


def test_a_list_of_lfw_keeps_its_folds(tmp_path: Path, verification: ModuleType) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(["10\t2", *lfw_lines(2) * 10]))
    pairs = verification.read_pairs(path)
    assert pairs[1] == verification.Pair("Al_Gore/Al_Gore_0001.jpg", "Al_Gore/Al_Gore_0002.jpg", True, 0)
    assert pairs[-1] == verification.Pair("Al_Gore/Al_Gore_0001.jpg", "Tiger_Woods/Tiger_Woods_0005.jpg", False, 9)
    assert [pair.fold for pair in pairs] == sorted(list(range(10)) * 4)


@pytest.mark.parametrize("header", [[], ["20"]])
def test_pairs_without_folds_are_cut_into_ten(header: list[str], tmp_path: Path, verification: ModuleType) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join([*header, *lfw_lines(20)]))
    pairs = verification.read_pairs(path)
    for same in (True, False):
        assert [pair.fold for pair in pairs if pair.same == same] == sorted(list(range(10)) * 2)


def test_a_csv_file_of_pairs_is_read(tmp_path: Path, verification: ModuleType) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("a,b,same\n" + "x/1.jpg,x/2.jpg,1\nx/1.jpg,y/1.jpg,0\n" * 10)
    pairs = verification.read_pairs(path)
    assert (pairs[0].a, pairs[0].same, pairs[1].b, pairs[1].same) == ("x/1.jpg", True, "y/1.jpg", False)


@pytest.mark.parametrize(
    "text", ["", "a,b,same\nx,y,1\n", "10 300\nAl_Gore 1 2\n", "Al_Gore one two\n", "no pair\n1\n"]
)
def test_what_is_no_list_of_pairs_is_said(text: str, tmp_path: Path, verification: ModuleType) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match="pair"):
        verification.read_pairs(path)


def test_a_fold_is_judged_with_the_threshold_of_the_others(verification: ModuleType) -> None:
    distances = np.array([0.3, 0.7, 0.3, 0.7, 0.8, 0.9])  # in the third fold everything is farther away
    same = np.array([True, False] * 3)
    folds = np.array([0, 0, 1, 1, 2, 2])
    assert verification.best_threshold(distances[:4], same[:4]) == pytest.approx(0.5)
    right = verification.right_in_folds(distances, same, folds)
    assert right[4:].tolist() == [False, True]
    mean, error = verification.mean_and_error(np.array([1.0, 1, 1, 1, 0, 1]), folds)
    assert (mean, error) == pytest.approx((5 / 6, 1 / 6))


def test_a_threshold_never_parts_equal_distances(verification: ModuleType) -> None:
    distances, same = np.array([0.5, 0.5, 0.5, 0.6]), np.array([True, False, True, False])
    assert 0.5 < verification.best_threshold(distances, same) < 0.6


def test_match_rates_are_read_off_where_there_are_enough_pairs(verification: ModuleType) -> None:
    distances = np.concatenate((np.linspace(0.1, 1.0, 10), np.linspace(0.55, 1.45, 10)))
    same = np.arange(20) < 10
    assert verification.true_match_rate(distances, same, 0.1) == pytest.approx(0.6)  # one of ten at 0.55 matches
    assert verification.true_match_rate(distances, same, 0.01) is None


def test_mcnemar_counts_only_what_differs(verification: ModuleType) -> None:
    a, b = np.array([True] * 10 + [False] * 5), np.array([True] * 9 + [False] * 1 + [True] * 5)
    assert verification.mcnemar(a, b) == (1, 5, pytest.approx(2 * (1 + 6) / 2**6))
    assert verification.mcnemar(a, a) == (0, 0, 1.0)
