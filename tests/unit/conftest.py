"""What the tests of `recognizer/vision` share: one engine, and the reference library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest
from system_calls import copy_folder

from recognizer.config import Settings
from recognizer.vision.engine import Engine, open_engine

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="session")
def vision_settings(models: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeSettings:
    """Settings for an engine; all of them share one folder for the converted models."""
    folder = tmp_path_factory.mktemp("data")
    copy_folder(models, folder / "models")

    def make(**changed: object) -> Settings:
        chosen = {"data_dir": folder, "workers": 1, "min_face_pixels": 36, "working_pixels": 8_000_000}
        return Settings(**{**chosen, **changed})

    return make


@pytest.fixture(scope="session")
def engine(vision_settings: MakeSettings) -> Iterator[Engine]:
    """The engine as it is by default."""
    with closing(open_engine(vision_settings())) as opened:
        yield opened


@pytest.fixture(scope="session")
def hog_engine(vision_settings: MakeSettings) -> Iterator[Engine]:
    """The engine with the detector that face_recognition uses by default."""
    with closing(open_engine(vision_settings(detector="hog"))) as opened:
        yield opened


@pytest.fixture(scope="session")
def face_recognition() -> ModuleType:
    """The library whose results must be met; its own imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("face_recognition")


@pytest.fixture
def photo(photos: Path) -> Callable[[str], bytes]:
    """The bytes of one of the photos: `photo("obama.jpg")`."""
    return lambda name: (photos / name).read_bytes()
