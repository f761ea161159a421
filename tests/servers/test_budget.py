"""A worker beyond its memory is told to go, but never before it could have done anything."""

from __future__ import annotations

import logging

import pytest

from recognizer.servers import budget
from recognizer.servers.budget import MemoryBudget


def test_a_worker_beyond_its_budget_goes_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "YOUNG_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING):
        assert MemoryBudget(2**20).is_spent()
    assert "its budget is 1 MB" in caplog.text


def test_a_worker_within_its_budget_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "YOUNG_SECONDS", 0.0)
    assert not MemoryBudget(2**40).is_spent()


def test_a_young_worker_stays_whatever_it_has() -> None:
    assert not MemoryBudget(1).is_spent()
