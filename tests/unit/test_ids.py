"""Ids of an import: random, all different, and in their order."""

from __future__ import annotations

import uuid

from recognizer.moving.ids import rising_ids


def test_ids_rise_and_cannot_be_guessed() -> None:
    once, again = (list(rising_ids(1000)) for _ in range(2))
    assert once == sorted(once)
    assert {(each.version, each.variant) for each in once} == {(4, uuid.RFC_4122)}
    assert not set(once) & set(again)
    assert len({each.int % 2**48 for each in once}) == 1000
    assert (list(rising_ids(0)), len(set(rising_ids(1)))) == ([], 1)
    assert len({each.int >> 124 for each in once}) == 16, "they are spread over all"
