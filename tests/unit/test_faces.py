"""The words everybody uses."""

from __future__ import annotations

import pytest

from recognizer.faces import space_of


@pytest.mark.parametrize(
    ("model_id", "space"),
    [
        ("net-1/5pt-2/chip150-0.25/1crop", "net-1/5pt-2/chip150-0.25"),
        ("net-1/5pt-2/chip150-0.25/6crop", "net-1/5pt-2/chip150-0.25"),
        ("net-1/1crop", "net-1"),
        ("net-1", "net-1"),
    ],
)
def test_a_space_is_a_model_id_without_the_number_of_crops(model_id: str, space: str) -> None:
    assert space_of(model_id) == space
