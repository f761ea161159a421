"""How fast the engine is, stage by stage, against face_recognition and dlib; how much memory it takes.

    python benchmarks/engine.py                                          # about ten minutes
    python benchmarks/engine.py --sizes 480p,1080p --no-memory --setting detector=hog
    python benchmarks/engine.py --sizes "" --no-memory --detection ../shared/faces/detection --setting upsample=0

Everything runs in one thread, in turns; milliseconds are of processor time, which other work on the machine disturbs
least, and medians. Photos are real ones, brought to a size in their own shape. Our stages work on what our decoding
gives, at most `working_pixels`; those of face_recognition and dlib on the whole photo, for neither makes it smaller.
Settings are the service's defaults, `RECOGNIZER_*` and `--setting`; the networks run on the CPU.

dlib's CNN detector takes 7 microseconds and a kilobyte for each pixel: it has one turn, and only up to
`--dlib-cnn-pixels`. With `--detection` all detectors search the labelled photos of a folder (boxes.csv:
file,left,top,right,bottom); there the exact one and dlib's CNN enlarge photos as often as the setting `upsample` says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _labelled import BASE, SAME_FACE, Findings, findings_in
from _memory import OURS, SMALL_PHOTOS, SMALL_PIXELS, THEIRS, Case, Memory, largest_photos, memory_of
from _photos import Photo, with_many_faces, with_one_face
from _report import default_root, photos_in, progress, save_picture, settings_of, table
from _stages import COMPARISONS, DLIB_CNN, Comparison, Stages, Times

from recognizer import config
from recognizer.config import Settings
from recognizer.errors import RecognizerError

SIZES = {
    "240p": 426 * 240,
    "480p": 853 * 480,
    "720p": 1280 * 720,
    "1080p": 1920 * 1080,
    "12mp": 12_000_000,
    "32mp": 32_000_000,
}
MANY = {"1080p-many": 1920 * 1080, "8mp-many": 8_000_000}
"""Sizes of a photo with about 24 faces."""

EXACT_RECALL, EXACT_EXTRA = 0.99, 0.01
"""What the exact detector must find of dlib's boxes at least, and may find beyond them."""


class Measured(NamedTuple):
    """One photo at one size and the times it took."""

    size: str
    photo: Photo
    times: Times


# -- the measurement --


def measure_stages(options: argparse.Namespace, stages: Stages, folder: Path) -> list[Measured]:
    """The stages, size by size."""
    paths, measured = photos_in(options.root), []
    for size in options.sizes:
        choose = with_many_faces if size in MANY else with_one_face
        photo = choose(paths, {**SIZES, **MANY}[size], stages.find)
        progress(f"{size}: measuring with {photo.source}")
        measured.append(Measured(size, photo, stages.times(photo, folder / "photo.jpg", options.seconds)))
    progress(f"{len(measured)} sizes measured", last=True)
    return measured


def measure_memory(options: argparse.Namespace, settings: Settings, stages: Stages, folder: Path) -> list[Memory]:
    """Ours with the largest photo in each format, face_recognition with the JPEG."""
    photo = with_one_face(photos_in(options.root), SMALL_PIXELS, stages.find)
    small = folder / "small.jpg"
    small.write_bytes(photo.data)
    largest = largest_photos(photo.data, settings, folder)
    cases = [Case(OURS, name, (small, path)) for name, path in largest.items()]
    cases += [Case(THEIRS, name, (small, path)) for name, path in largest.items() if name == "JPEG"]
    measured = []
    for case in cases:
        progress(f"memory of {case.who}, {case.largest}")
        measured.append(memory_of(case, settings))
    progress("memory measured", last=True)
    return measured


# -- the report --


def report_stages(measured: Sequence[Measured]) -> None:
    """A table for each size, and one of all ratios."""
    for size, photo, times in measured:
        print(f"\n{size}: {photo.source}, {len(photo.data):,} bytes; {times.faces} faces aligned and encoded\n")
        head = ("processor time, ms", "against", "recognizer", "theirs", "times faster", "faces", "theirs")
        print(table(head, _stage_rows(times)))
    print()
    head = ("how many times faster", "against", *(size for size, _, _ in measured))
    print(table(head, [_ratio_row(comparison, measured) for comparison in COMPARISONS]))
    print("\n* They do not find the same number of faces, and so have not done the same work.")


def _stage_rows(times: Times) -> Iterator[tuple[str, ...]]:
    for comparison in COMPARISONS:
        ratio = times.ratio(comparison)
        if ratio is not None and (times.faces or not comparison.per_face):
            scale = 1000 / times.faces if comparison.per_face else 1000
            names = (comparison.ours, comparison.theirs)
            figures = (f"{times.seconds[name] * scale:.2f}" for name in names)
            found = ("" if times.found[name] is None else str(times.found[name]) for name in names)
            yield (*_in_words(comparison), *figures, f"{ratio:.1f}", *found)


def _ratio_row(comparison: Comparison, measured: Sequence[Measured]) -> tuple[str, ...]:
    return *_in_words(comparison), *(_ratio(comparison, times) for _, _, times in measured)


def _ratio(comparison: Comparison, times: Times) -> str:
    ratio = times.ratio(comparison)
    if ratio is None:
        return "-"
    same = times.found[comparison.ours] == times.found[comparison.theirs]
    return f"{ratio:.1f}" if same else f"{ratio:.1f}*"


def _in_words(comparison: Comparison) -> tuple[str, str]:
    per_face = ", per face" if comparison.per_face else ""
    task = "" if comparison.ours == comparison.stage else f": {comparison.ours}"
    return f"{comparison.stage}{task}{per_face}", comparison.theirs


def report_memory(measured: Sequence[Memory]) -> None:
    head = (
        "resident memory, MB",
        "loaded",
        f"after {SMALL_PHOTOS} photos of 480p",
        "after the largest",
        "peak",
        "faces",
    )
    rows = []
    for memory in measured:
        figures = (f"{size / 1e6:.0f}" for size in (memory.loaded, memory.small, memory.after, memory.peak))
        rows.append((f"{memory.who}, largest a {memory.largest}", *figures, memory.faces))
    print("\n" + table(head, rows))


def report_detection(findings: Findings) -> None:
    """The detectors against the labels, and whether the exact one is exact."""
    base = findings.detectors[BASE]
    head = ("detector", "photos", f"recall, IoU >= {SAME_FACE:g}, %", "extra boxes", "ms per photo", "times faster")
    rows = []
    for name, found in sorted(findings.detectors.items()):
        per_photo = found.seconds / found.photos
        recall = f"{found.right / max(1, found.labelled) * 100:.1f} of {found.labelled}"
        ratio = base.seconds / base.photos / per_photo
        rows.append((name, found.photos, recall, found.extra, f"{per_photo * 1000:.1f}", f"{ratio:.2f}"))
    print(f"\ntimes faster: than {BASE}\n\n{table(head, rows)}")
    exact = findings.exact
    if exact.labelled:
        same, extra = exact.right / exact.labelled, exact.extra / exact.labelled
        goals = (
            ("found, IoU >= 0.9", f"{same:.2%}", f">= {EXACT_RECALL:.0%}", same >= EXACT_RECALL),
            ("beyond them", f"{extra:.2%}", f"<= {EXACT_EXTRA:.0%}", extra <= EXACT_EXTRA),
        )
        head = (f"cnn_exact, of {exact.labelled} boxes of {DLIB_CNN} in {exact.photos} photos", "measured", "goal", "")
        print("\n" + table(head, [(*goal, "reached" if reached else "missed") for *goal, reached in goals]))


def draw(panels: Any, measured: Sequence[Measured]) -> None:
    """Left the time of the stages, right how many times faster they are."""
    times, ratios = panels[0]
    for name, style, colour in _LINES:
        seconds = {size: of.seconds[name] * 1000 for size, _, of in measured if name in of.seconds}
        _plot(times, measured, seconds, style, label=name, color=colour)
    times.set(ylabel="processor time of a photo, ms", yscale="log", title="detection and the whole photo")
    for number, comparison in enumerate(COMPARISONS):
        faster = {size: ratio for size, _, of in measured if (ratio := of.ratio(comparison)) is not None}
        _plot(ratios, measured, faster, "o-", label=" / ".join(_in_words(comparison)), color=f"C{number}")
    ratios.axhline(1, color="tab:gray", linewidth=1)
    ratios.set(ylabel="how many times faster", yscale="log", title="recognizer / the others")
    for panel in (times, ratios):
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)


def _plot(panel: Any, measured: Sequence[Measured], values: Mapping[str, float], style: str, **looks: str) -> None:
    """A line over the sizes, broken between photos with one face and those with many."""
    sizes = [size for size, _, _ in measured]
    singles = [size for size in sizes if size not in MANY]
    places = [*singles, *([" "] if singles else []), *(size for size in sizes if size in MANY)]
    panel.plot(places, [values.get(size, float("nan")) for size in places], style, **looks)


_LINES: Sequence[tuple[str, str, str]] = (
    ("bytes to embeddings", "o-", "tab:blue"),
    ("face_recognition", "o-", "tab:orange"),
    ("cnn", "^:", "tab:blue"),
    ("cnn_exact", "^:", "tab:cyan"),
    ("dlib HOG, upsample 1", "^:", "tab:orange"),
    (DLIB_CNN, "^:", "tab:red"),
)
"""Task, style and colour of the lines over the sizes; ours are blue."""


# -- the command --


def parse() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [part for part in text.split(",") if part]

    known: Mapping[str, int] = {**SIZES, **MANY}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of photos, searched recursively (those of the tests)")
    parser.add_argument("--sizes", type=names, default=list(known), help=f"({','.join(known)})")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each size, but three rounds at least (10)")
    parser.add_argument("--dlib-cnn-pixels", type=int, default=2_100_000, help="up to which it runs (%(default)s)")
    parser.add_argument("--detection", type=Path, metavar="DIR", help="folder of labelled photos, with a boxes.csv")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave memory out")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="of ours; repeatable")
    parser.add_argument("--picture", type=Path, default=Path("benchmark-engine.png"), help="(%(default)s)")
    options = parser.parse_args()
    if not set(options.sizes) <= set(known):
        parser.error(f"--sizes are some of {', '.join(known)}.")
    for folder in (options.root, options.detection):
        if folder and not folder.is_dir():
            parser.error(f"there is no folder {folder}.")
    options.root = options.root or default_root()
    return options


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        # an accelerator's work would not be seen in processor time
        own = {"data_dir": folder, "workers": 1, "engine": "onnx", "providers": "cpu"}
        try:
            settings = config.load({**settings_of(options.setting), **own})
            stages = Stages(settings, options.dlib_cnn_pixels)
            # each part is printed when it is there: what comes later may take minutes
            if measured := measure_stages(options, stages, folder):
                report_stages(measured)
                save_picture(options.picture, 2, 1, lambda panels: draw(panels, measured))
            if options.memory:
                report_memory(measure_memory(options, settings, stages, folder))
            if options.detection:
                report_detection(findings_in(options.detection, settings, options.dlib_cnn_pixels))
        except (RecognizerError, ValueError) as error:
            print(f"\nError: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
