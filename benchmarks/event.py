"""What several frames tell more than one: single photos against the fusion of several, by people and by strangers.

    python benchmarks/event.py --root ../shared/faces/people

`--root` holds a folder of at least five photos for each person. Half of the people, drawn anew `--repeat` times, are
enrolled with one photo; the others are strangers. Of everybody, `--frames` further photos are asked about one by one,
and as one person of a scene by `recognizer.scene`. All is decided by the service as it is, over a bundled PostgreSQL of
its own. LFW's photos of a person are years apart: frames of one scene have more in common, and so tell less more.

TPIR: enrolled people who were named, rightly; FPIR: strangers who were named. "at FPIR" is the TPIR with the score that
just so many strangers reach. Photos without a face are left out. At last: how alike pairs of photos are, for linking.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _database import database
from _identification import Draw
from _open_set import CALL_SECONDS, COLLECTION, OpenSet, open_set
from _remembered import Look, look_at_all
from _report import photos_in

from recognizer import config, evidence
from recognizer.deadline import Deadline
from recognizer.faces import Analysis, Face
from recognizer.scene import ALIKE, ALIKE_IN_PLACE, Sighting, Track
from recognizer.service import Terms

RULES = {"target 1 %": None, "distance 0.55": 0.55}
RATES = (0.01, 0.05)


class Asked(NamedTuple):
    """One probe: whether the person is enrolled, the best candidate's score, whether it is the person, and named."""

    enrolled: bool
    score: float
    right: bool
    named: bool


def ask(
    asked: OpenSet, shown: Mapping[str, list[Face]], people: Mapping[str, str], frames: int
) -> dict[tuple[str, str], list[Asked]]:
    """Every person's faces one by one and fused, under every rule; `people` are ids by name of who is enrolled."""
    found = defaultdict(list)
    service, deadline = asked._service, Deadline(CALL_SECONDS)
    collection = asked._runtime.gallery.collection(COLLECTION, deadline)
    for name, faces in shown.items():
        track = Track(tuple(Sighting(number, face) for number, face in enumerate(faces)))
        probes = Analysis(0, 0, "", (*faces, track.fused()), {})
        kinds = ["single"] * len(faces) + [f"{frames} fused"]
        for rule, threshold in RULES.items():
            seen = service.identify(probes, collection, Deadline(CALL_SECONDS), Terms(threshold=threshold)).seen
            for kind, (_, verdict) in zip(kinds, seen, strict=True):
                assert verdict.best
                right = verdict.best.neighbour.person_id == people.get(name)
                one = Asked(name in people, verdict.best.score, right, verdict.decision == "match")
                found[rule, kind].append(one)
    return found


def report(found: Mapping[tuple[str, str], list[Asked]]) -> None:
    print(f"{'rule':15}{'probe':10}{'probes':>12}{'TPIR':>8}{'FPIR':>8}", *(f"{f'at FPIR {r:.0%}':>13}" for r in RATES))
    for (rule, kind), rows in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] != "single")):
        enrolled, score, right, named = (np.array(column) for column in zip(*rows, strict=True))
        strangers = np.sort(score[~enrolled])[::-1]
        at = [np.mean((right & (score > strangers[int(rate * len(strangers))]))[enrolled]) for rate in RATES]
        tpir, fpir = np.mean((right & named)[enrolled]), np.mean(named[~enrolled])
        number = f"{enrolled.sum()}/{(~enrolled).sum()}"
        print(f"{rule:15}{kind:10}{number:>12}{tpir:8.1%}{fpir:8.1%}", *(f"{share:13.1%}" for share in at))


def report_likeness(looks: Mapping[Path, Look]) -> None:
    faces = {path: look.face for path, look in looks.items() if look.face}
    units = evidence.unit(np.array([face.embedding for face in faces.values()]))
    who = np.array([path.parent.name for path in faces])
    pairs = np.triu_indices(len(who), 1)
    same, alike = who[pairs[0]] == who[pairs[1]], (units @ units.T)[pairs]
    for needed in (ALIKE, ALIKE_IN_PLACE):
        print(
            f"likeness {needed}: {np.mean(alike[same] >= needed):.1%} of {same.sum():,} pairs of the same person,",
            end=" ",
        )
        print(f"{np.mean(alike[~same] >= needed):.2%} of {(~same).sum():,} pairs of different people")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="a folder of photos for each person")
    parser.add_argument("--frames", type=int, default=4, metavar="N", help="of each person (%(default)s)")
    parser.add_argument("--repeat", type=int, default=10, metavar="N", help="galleries (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    photos = {folder.name: photos_in(folder) for folder in sorted(options.root.iterdir()) if folder.is_dir()}
    found: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, database() as (url, _):
        settings = config.load({"data_dir": Path(folder), "workers": 1, "database_url": url})
        looks = look_at_all([path for paths in photos.values() for path in paths], settings, "central", 1)
        usable = {name: [path for path in paths if looks[path].face] for name, paths in photos.items()}
        usable = {name: paths for name, paths in usable.items() if len(paths) > options.frames}
        with open_set(settings, looks, target=0.01) as asked:
            for number in range(options.repeat):
                mixed = {name: random.permutation(np.array(paths)) for name, paths in usable.items()}
                enrolled = sorted(random.permutation(sorted(usable))[: len(usable) // 2])
                draw = Draw({place: [mixed[name][0]] for place, name in enumerate(enrolled)}, [], [])
                asked._clear()
                ids = asked._enrol(draw, f"gallery {number}")
                asked._wait_for_cohorts(f"gallery {number}")
                people = {enrolled[place]: person_id for person_id, place in ids.items()}
                shown = {
                    name: [face for path in paths[1 : 1 + options.frames] if (face := looks[path].face)]
                    for name, paths in mixed.items()
                }
                for key, rows in ask(asked, shown, people, options.frames).items():
                    found[key] += rows
    print(f"\n{options.repeat} galleries of {len(usable) // 2} people, {options.frames} photos of each as frames")
    report(found)
    report_likeness(looks)


if __name__ == "__main__":
    main()
