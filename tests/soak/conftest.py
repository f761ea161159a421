"""The parts of the soak script, and a small gallery over HTTP that can be told to do wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from small_gallery import SmallGallery


@pytest.fixture
def gallery() -> Iterator[SmallGallery]:
    """A gallery that does right until told otherwise."""
    with SmallGallery() as gallery:
        yield gallery
