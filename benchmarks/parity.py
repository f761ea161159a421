"""Compares the engine with face_recognition on a folder of photos: faces found, embeddings, time.

    python benchmarks/parity.py --root ../shared/faces/people

Both take turns on every photo, one thread each, so what else the machine does meets both alike; read the
ratios, not the milliseconds. The engine finds faces by HOG, as face_recognition does, for only then can the boxes be
the same; its other settings are the service's: defaults, or `RECOGNIZER_*` variables.
Where the folder holds a `boxes.csv` (file,left,top,right,bottom), it is also counted how many of the labelled
faces each of them finds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _photos import read_labels
from _report import import_face_recognition, photos_in, progress, table

from recognizer import config
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import Unusable
from recognizer.faces import Box
from recognizer.vision.alignment import Aligner
from recognizer.vision.encoding import Encoder
from recognizer.vision.engine import Engine, open_engine
from recognizer.vision.images import ImageLimits, decoded
from recognizer.vision.sessions import Session
from recognizer.vision.weights import landmarks_file, load_resnet

face_recognition = import_face_recognition()

SAME_FACE = 0.4
"""Intersection over union from which on two boxes are the same face."""


@dataclass
class Totals:
    """What was seen in all photos so far; seconds by (task, who)."""

    photos: int = 0
    unusable: int = 0
    faces: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    labelled: int = 0
    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    differences: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


class Comparison:
    """Both sides, and the totals."""

    def __init__(self, settings: Settings) -> None:
        self.engine: Engine = open_engine(settings)
        self.aligner = Aligner(landmarks_file())
        self.encoder = Encoder(Session(load_resnet(settings.models_dir).graph))
        self.limits = ImageLimits(2**30, 500_000_000, settings.working_pixels)
        self.totals = Totals()

    def compare(self, path: Path, labels: list[Box]) -> None:
        data = path.read_bytes()
        try:
            self.whole_photo(data, path, labels)
            with decoded(data, self.limits) as image:
                self.embeddings(image.pixels)
        except Unusable:
            self.totals.unusable += 1
        self.totals.photos += 1

    def whole_photo(self, data: bytes, path: Path, labels: list[Box]) -> None:
        started = time.perf_counter()
        analysis = self.engine.analyse(data, Deadline(600))
        self.spent("photo", "recognizer", started)
        started = time.perf_counter()
        picture = face_recognition.load_image_file(path)
        found = face_recognition.face_locations(picture)
        face_recognition.face_encodings(picture, found)
        self.spent("photo", "face_recognition", started)
        ours = [face.box for face in analysis.faces]
        theirs = [Box(left, top, right, bottom) for top, right, bottom, left in found]
        for who, boxes in (("recognizer", ours), ("face_recognition", theirs)):
            self.totals.faces[who] += len(boxes)
            self.totals.faces["labelled, " + who] += sum(any(is_same(a, b) for b in boxes) for a in labels)
        self.totals.faces["both"] += sum(any(is_same(a, b) for b in theirs) for a in ours)
        self.totals.labelled += len(labels)

    def embeddings(self, pixels: np.ndarray) -> None:
        """The same boxes for both: landmarks, chip, embedding."""
        boxes = face_recognition.face_locations(pixels)
        if not boxes:
            return
        started = time.perf_counter()
        theirs = np.array(face_recognition.face_encodings(pixels, boxes))
        self.spent("face", "face_recognition", started)
        started = time.perf_counter()
        aligned = [self.aligner.align(pixels, Box(left, top, right, bottom)) for top, right, bottom, left in boxes]
        ours = self.encoder.encode([face.chips for face in aligned])
        self.spent("face", "recognizer", started)
        self.totals.differences += np.abs(ours - theirs).max(axis=1).tolist()
        self.totals.distances += np.linalg.norm(ours - theirs, axis=1).tolist()

    def spent(self, task: str, who: str, started: float) -> None:
        self.totals.seconds[task, who] += time.perf_counter() - started


def is_same(a: Box, b: Box) -> bool:
    return a.overlap(b) >= SAME_FACE


def report(totals: Totals) -> None:
    rows: list[tuple[object, ...]] = []
    for task, what, count in (
        ("face", "landmarks, chip and embedding, ms per face", len(totals.differences)),
        ("photo", "bytes to embeddings, ms per photo", totals.photos),
    ):
        theirs, ours = (totals.seconds[task, who] for who in ("face_recognition", "recognizer"))
        times = (f"{seconds / max(1, count) * 1000:.1f}" for seconds in (theirs, ours))
        rows.append((what, *times, f"{theirs / max(ours, 1e-9):.1f}"))
    found = totals.faces
    rows.append(("faces found", found["face_recognition"], found["recognizer"], f"both {found['both']}"))
    if totals.labelled:
        both = (found[f"labelled, {who}"] for who in ("face_recognition", "recognizer"))
        rows.append((f"of {totals.labelled} labelled faces", *both, ""))
    print(f"\n{totals.photos} photos, {totals.unusable} unusable; {len(totals.differences)} faces encoded by both\n")
    print(table(("", "face_recognition", "recognizer", "ratio"), rows))
    if totals.differences:
        print(f"\nlargest difference of any component  {max(totals.differences):.2e}   (allowed: 1e-04)")
        print(f"largest L2 distance of a face        {max(totals.distances):.2e}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of photos, searched recursively")
    root = parser.parse_args().root
    paths = photos_in(root)
    if not paths:
        parser.error(f"no photos in {root}")
    labels = read_labels(root)
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(config.load({"data_dir": Path(folder), "workers": 1, "detector": "hog"}))
        for number, path in enumerate(paths, 1):
            comparison.compare(path, labels[path.name])
            if number % 20 == 0 or number == len(paths):
                progress(f"{number} of {len(paths)} photos", last=number == len(paths))
    report(comparison.totals)
    return 0 if max(comparison.totals.differences, default=0.0) <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
