"""What the benchmarks share: photos, settings from the command line, progress, tables and pictures."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
TEST_PHOTOS = ROOT / ".cache" / "test-photos"
SHARED_PHOTOS = ROOT.parent / "shared" / "faces"


def photos_in(folder: Path) -> list[Path]:
    """The photos of a folder and all below it, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def default_root() -> Path:
    """The photos of the tests, else those beside the checkout; where there are neither, the former are fetched."""
    if not TEST_PHOTOS.is_dir() and SHARED_PHOTOS.is_dir():
        return SHARED_PHOTOS
    if not TEST_PHOTOS.is_dir():
        sys.path.append(str(ROOT / "scripts"))
        importlib.import_module("soak.photos").find_album(None)  # it knows how to fetch them
    return TEST_PHOTOS


def settings_of(pairs: Iterable[str]) -> dict[str, str]:
    """`name=value` texts as settings for `recognizer.config.load`, which checks names and values.

    Raises:
        ValueError: a text without a name or without `=`.
    """
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name.strip() or not equals:
            raise ValueError(f"`{pair}` is no setting; write it as name=value.")
        settings[name.strip()] = value.strip()
    return settings


def import_face_recognition() -> Any:
    """The reference library, without the warnings of its import; only where it is used, for it loads 100 MB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("face_recognition")


def progress(text: str, last: bool = False) -> None:
    """A line on stderr; on a terminal it is written over by the next, and stays when it is the last."""
    over = sys.stderr.isatty()
    print(f"\r{text:<100}" if over else text, end="" if over and not last else "\n", file=sys.stderr, flush=True)


class Pace:
    """Says how far a long piece of work is, how fast it goes and how long the rest takes at that rate."""

    SECONDS_BETWEEN = 1.0 if sys.stderr.isatty() else 15.0

    def __init__(self, what: str, total: int, stays: bool = True) -> None:
        """`stays`: the last line is said in any case, and is not written over."""
        self._what, self._total, self._done, self._stays = what, total, 0, stays
        self._began = self._said = time.monotonic()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        last = self._stays and self._done == self._total
        if not last and now - self._said < self.SECONDS_BETWEEN:
            return
        self._said = now
        rate = self._done / max(1e-9, now - self._began)
        left = "" if last else f", {in_words((self._total - self._done) / rate)} left"
        progress(f"{self._done:,} of {self._total:,} {self._what}, {rate:.1f} a second{left}", last=last)


def in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as what they hold; the first to the left, the others, which are figures, to the right."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: list[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]).rstrip()

    return "\n".join([line(lines[0]), "  ".join("-" * width for width in widths), *map(line, lines[1:])])


def save_picture(path: Path, columns: int, rows: int, draw: Callable[[Any], None]) -> None:
    """Let `draw` fill the panels, an array of `rows` by `columns`, and write them to `path`; say what became of it."""
    if importlib.util.find_spec("matplotlib") is None:
        print("\nNo picture, for matplotlib is not installed; get it with: pip install matplotlib")
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        rows, columns, figsize=(6 * columns, 4.5 * rows), layout="constrained", squeeze=False
    )
    draw(panels)
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        print(f"\nThe picture could not be written to {path}: {error.strerror}.")
    else:
        print(f"\nPicture: {path}")
