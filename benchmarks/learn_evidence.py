"""Learns recognizer/evidence.npz: the centre of faces, imaginary people, and what strangers score in galleries.

    F=../shared/faces
    python benchmarks/learn_evidence.py --people $F/people --single $F/strangers --more $F/detection

What is in force was learned, with the settings as they are, from 80 people of Labeled Faces in the Wild (one photo
each for what follows), 120 more people of it with one photo each, and 241 faces of 150 press photos (FDDB): adults,
most of them men, most of them known to the press of about 2002.

- **centre**: the mean embedding of all these faces.
- **imaginary**: 2,000 draws from a mixture of 16 normal distributions with one common covariance. Each is fitted to at
  least eight faces, and the covariance is that of all, so no draw says anything about a single person.
- **scores**: what the best candidate of a stranger scores in galleries of different sizes. Up to 80 people it is
  measured: the faces are parted into halves, imaginary people are drawn after the one, gallery and strangers come
  from the other. Beyond, the growth is taken from simulated people, drawn after all faces; so are the steps to rates
  for which 199 people are too few.

The last table shows what is to be expected at the scores in force; compare it before taking the new file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _report import photos_in, progress, table

from recognizer import config, evidence
from recognizer.deadline import Deadline
from recognizer.errors import Unusable
from recognizer.evidence import Learned, Vector
from recognizer.vision.engine import open_engine

IMAGINARY = 2_000
COMPONENTS = 16
MIN_FACES_PER_COMPONENT = 8
MIN_QUALITY = 0.3
SHRINKAGE = 0.2
"""Of the common covariance towards that of all faces: 16 means leave it few degrees of freedom."""

MEASURED_SIZES = {1: 6, 3: 6, 10: 5, 30: 4, 80: 4}
"""And at how many of the rates there are enough different strangers to measure."""
SIMULATED_SIZES = (80, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
RATES = np.array([0.25, 0.1, 0.03, 0.01, 0.003, 0.001])
HALVES = 20
NEAR = 60

Rng = np.random.Generator


def embeddings_of(paths: Sequence[Path], every_face: bool) -> Vector:
    """(n, 128): of each photo the face nearest to its centre, or all good ones."""
    found = []
    with tempfile.TemporaryDirectory(prefix="learn-") as folder:
        engine = open_engine(config.load({"data_dir": Path(folder), "workers": 1}))
        for number, path in enumerate(paths, 1):
            with suppress(Unusable):
                analysis = engine.analyse(path.read_bytes(), Deadline(600))
                middle = (analysis.width, analysis.height)
                faces = sorted(
                    analysis.faces,
                    key=lambda face: (
                        (face.box.left + face.box.right - middle[0]) ** 2
                        + (face.box.top + face.box.bottom - middle[1]) ** 2
                    ),
                )
                good = [face for face in faces if face.quality.score >= MIN_QUALITY]
                found += [face.embedding for face in (good if every_face else good[:1])]
            if number % 20 == 0 or number == len(paths):
                progress(f"{number} of {len(paths)} photos", last=number == len(paths))
        engine.close()
    return np.array(found, np.float32)


# -- imaginary people --


def drawn(faces: Vector, count: int, random: Rng) -> Vector:
    """So many imaginary faces, (count, 128) embeddings, from a mixture fitted to `faces`."""
    means, place = clusters(faces, random)
    spread = np.cov((faces - means[place]).T)
    everybody = np.cov(faces.T)
    spread = (1 - SHRINKAGE) * spread + SHRINKAGE * everybody * np.trace(spread) / np.trace(everybody)
    values, axes = np.linalg.eigh(spread)
    turned = axes * np.sqrt(np.maximum(values, 0))
    shares = np.bincount(place, minlength=len(means)) / len(faces)
    chosen = random.choice(len(means), count, p=shares)
    return (means[chosen] + random.standard_normal((count, faces.shape[1])) @ turned.T).astype(np.float32)


def clusters(faces: Vector, random: Rng) -> tuple[Vector, NDArray[np.int_]]:
    """k-means, without clusters of few faces: their means, and to which each face belongs."""
    means = faces[random.choice(len(faces), COMPONENTS, replace=False)]
    for _ in range(50):
        place = ((faces[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
        sizes = np.bincount(place, minlength=len(means))
        means = np.array([faces[place == n].mean(axis=0) for n in range(len(means)) if sizes[n] > 0])
    while sizes.min() < MIN_FACES_PER_COMPONENT:
        means = np.delete(means, sizes.argmin(), axis=0)
        place = ((faces[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
        sizes = np.bincount(place, minlength=len(means))
    return means, place


# -- what strangers score --


class Gallery:
    """People with one template each, in memory, scored by the rule of the service."""

    def __init__(self, templates: Vector) -> None:
        self._templates = templates
        self._of_people: dict[int, float] = {}

    def best(self, probe: Vector) -> float:
        """The score of the probe's best candidate."""
        order, alike = self._nearest(probe)
        of_probe = evidence.cohort_likenesses(probe, alike, len(self._templates))
        few = slice(0, 8)  # the best one is hardly ever farther down
        of_people = np.array([self._cohort(number) for number in order[few]])
        return float(evidence.scores(alike[few], of_probe[few], of_people).max())

    def _nearest(self, vector: Vector) -> tuple[NDArray[np.int_], NDArray[np.float32]]:
        alike = self._templates @ vector
        count = min(NEAR, len(alike))
        order = np.argpartition(-alike, count - 1)[:count]
        order = order[np.argsort(-alike[order])]
        return order, alike[order]

    def _cohort(self, number: int) -> float:
        if number not in self._of_people:
            vector = self._templates[number]
            order, alike = self._nearest(vector)
            self._of_people[number] = evidence.cohort_likeness(vector, alike[order != number], len(self._templates) - 1)
        return self._of_people[number]


def with_imaginary(faces: Vector, centre: Vector, random: Rng) -> None:
    """Let the rule use imaginary people drawn after these faces."""
    empty = np.zeros(0)
    made = Learned(centre, evidence.unit_from(drawn(faces, IMAGINARY, random), centre), empty, empty, empty)
    evidence.learned = lambda: made


def measured(people: Vector, more: Vector, centre: Vector) -> Iterator[NDArray[np.float64]]:
    """Quantiles of strangers' scores, for each of `MEASURED_SIZES`."""
    found: dict[int, list[float]] = {size: [] for size in MEASURED_SIZES}
    for seed in range(HALVES):
        random = np.random.default_rng(seed)
        order = random.permutation(len(people))
        one, other = people[order[: len(order) // 2]], people[order[len(order) // 2 :]]
        for learned_from, tested in ((one, other), (other, one)):
            with_imaginary(np.concatenate([learned_from, more]), centre, random)
            units = evidence.unit(tested)
            for size in MEASURED_SIZES:
                for _ in range(max(1, 30 // size)):
                    chosen = random.permutation(len(units))
                    gallery = Gallery(units[chosen[:size]])
                    found[size] += [gallery.best(probe) for probe in units[chosen[size:]]]
        progress(f"measured {seed + 1} of {HALVES} halves", last=seed + 1 == HALVES)
    for size in MEASURED_SIZES:
        yield np.quantile(found[size], 1 - RATES)


def simulated(faces: Vector, centre: Vector) -> Iterator[NDArray[np.float64]]:
    """The same for `SIMULATED_SIZES`, of people drawn as the imaginary ones are."""
    for size in SIMULATED_SIZES:
        found: list[float] = []
        rounds = 10 if size <= 1_000 else 2
        for seed in range(rounds):
            random = np.random.default_rng(seed)
            with_imaginary(faces, centre, random)
            strangers = 1_500 if size <= 3_000 else 600
            units = evidence.unit(drawn(faces, size + strangers, random))
            gallery = Gallery(units[:size])
            found += [gallery.best(probe) for probe in units[size:]]
            progress(f"simulated {size:,} people, {seed + 1} of {rounds}", last=seed + 1 == rounds)
        yield np.quantile(found, 1 - RATES)


def scores_by_size(
    real: Sequence[NDArray[np.float64]], drawn_ones: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both put together: sizes, and (sizes, rates) of scores."""
    rows = [row.copy() for row in real]
    for row, rates in zip(rows, MEASURED_SIZES.values(), strict=True):  # the steps to rarer events as simulated
        row[rates:] = row[rates - 1] + drawn_ones[0][rates:] - drawn_ones[0][rates - 1]
    rows += [rows[-1] + further - drawn_ones[0] for further in drawn_ones[1:]]
    return np.array([*MEASURED_SIZES, *SIMULATED_SIZES[1:]], float), np.array(rows)


def _scores_table(sizes: Iterable[float], scores: Iterable[NDArray[np.float64]]) -> str:
    rows = ([f"{size:,.0f}", *(f"{score:.3f}" for score in row)] for size, row in zip(sizes, scores, strict=True))
    return table(("people", *(f"{rate:.1%}" for rate in RATES)), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, required=True, help="folders of people; the first photo of each counts")
    parser.add_argument("--single", type=Path, required=True, help="people of whom there is one photo each")
    parser.add_argument("--more", type=Path, required=True, help="photos of anybody")
    parser.add_argument("--output", type=Path, default=Path("evidence.npz"), help="(%(default)s)")
    options = parser.parse_args()
    folders = sorted(path for path in options.people.iterdir() if path.is_dir())
    singles = [photos[0] for folder in folders if (photos := photos_in(folder))] + photos_in(options.single)
    people, more = embeddings_of(singles, False), embeddings_of(photos_in(options.more), True)
    everybody = np.concatenate([people, more])
    centre = everybody.mean(axis=0)
    real, further = list(measured(people, more, centre)), list(simulated(everybody, centre))
    sizes, scores = scores_by_size(real, further)
    imaginary = evidence.unit_from(drawn(everybody, IMAGINARY, np.random.default_rng(0)), centre)
    np.savez_compressed(
        options.output,
        centre=centre,
        imaginary=imaginary.astype(np.float16),
        people=sizes,
        rates=RATES,
        scores=scores.round(4),
    )
    print(f"{len(people)} people, {len(more)} more faces. What strangers score at false positive rates of\n")
    print(_scores_table(sizes, scores))
    print("\nsimulated only:\n")
    print(_scores_table(SIMULATED_SIZES, further))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
