"""How well the service finds enrolled people among each other and tells them from strangers: open-set identification.

    python benchmarks/identification.py --root ../shared/faces/people --strangers ../shared/faces/strangers
    python benchmarks/identification.py --root lfw --gallery-size 10,100,1000 --repeat 10 --probes-per-person 5

`--root` holds a folder of photos for each person. Of everybody with enough photos `--gallery-photos` are enrolled, the
first ones with a face, and the others are probes; people without photos to spare are enrolled all the same and make the
gallery as large as it would be. `--strangers` holds people who are not in `--root`, a photo of one each or folders.
`--gallery-size N` draws N people; those left over are strangers too. Several sizes may be given, and `--repeat` draws
anew, so that much is asked of small galleries.

All is decided by the service as it is: a bundled PostgreSQL of its own, `Service.enrol` and `Service.identify`; photos
are looked at once, and the service is given again what was seen. Compared are

- `distance`: the nearest person is named up to some L2 distance, 0.6 as it is usual, and whatever gives an FPIR;
- `rule`: the service's own, at its target and with the score that gives an FPIR.

A probe of somebody enrolled in which no face is found counts as not identified; strangers without a face are left out.
The limits are from 1,000 resamples of people (and of galleries, where there are several).

The constants of the rule were learned from the photos of the first example (learn_evidence.py), so that other people
tell more of how well it does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _database import database
from _identification import Draw, Person, Plan, drawn
from _identification_report import Result, draw_all, galleries_in_words, report, result_of, summary
from _open_set import OpenSet, open_set
from _remembered import Look, look_at_all
from _report import photos_in, progress, save_picture, settings_of

from recognizer import config
from recognizer.config import available_cores
from recognizer.errors import RecognizerError

# -- who there is --


def people_in(root: Path) -> list[Person]:
    """A person for each folder with photos.

    Raises:
        ValueError: there is none.
    """
    _check(root)
    people = [Person(folder.name, tuple(photos_in(folder))) for folder in sorted(root.iterdir()) if folder.is_dir()]
    people = [person for person in people if person.photos]
    if not people:
        raise ValueError(f"There are no folders with photos in {root}; each person needs one.")
    return people


def strangers_in(root: Path) -> list[Person]:
    """A person for each folder with photos and for each photo that is in none.

    Raises:
        ValueError: there is nobody.
    """
    _check(root)
    alone = [Person(path.name, (path,)) for path in photos_in(root) if path.parent == root]
    folders = people_in(root) if any(path.is_dir() for path in root.iterdir()) else []
    if not alone + folders:
        raise ValueError(f"There are no photos in {root}.")
    return alone + folders


def _check(root: Path) -> None:
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}.")


def everybody(options: argparse.Namespace) -> tuple[list[Person], list[Person]]:
    """People and strangers, each with no more photos than are used.

    Raises:
        ValueError: a folder is missing or empty, or somebody is in both.
    """
    people = people_in(options.root)
    strangers = strangers_in(options.strangers) if options.strangers else []
    both = {person.name for person in people} & {stranger.name for stranger in strangers}
    if both:
        raise ValueError(f"{len(both)} strangers are in {options.root} as well: {min(both)}, ...")
    if not strangers and options.sizes == [None]:
        raise ValueError("There are no strangers; give --strangers, or a --gallery-size that leaves people over.")
    if options.probes_per_person:
        random = np.random.default_rng(options.seed)
        few = options.probes_per_person
        people = [_with_fewer(person, options.gallery_photos + few, options.shuffle, random) for person in people]
        strangers = [_with_fewer(stranger, few, options.shuffle, random) for stranger in strangers]
    return people, strangers


def _with_fewer(person: Person, photos: int, shuffle: bool, random: np.random.Generator) -> Person:
    order = random.permutation(len(person.photos)) if shuffle else np.arange(len(person.photos))
    return Person(person.name, tuple(person.photos[place] for place in sorted(order[:photos])))


# -- all galleries --


def draws(
    options: argparse.Namespace,
    size: int | None,
    people: Sequence[Person],
    strangers: Sequence[Person],
    faces: set[Path],
) -> list[Draw]:
    """The galleries of one size.

    Raises:
        ValueError: there are too few people for them, or for strangers.
    """
    plan = Plan(options.gallery_photos, size, options.distractors, options.probes_per_person, options.shuffle)
    random = np.random.default_rng(options.seed)
    found = [drawn(people, strangers, faces, plan, random) for _ in range(options.repeat)]
    if not all(any(shown.photo in faces for shown in one.strangers) for one in found):
        raise ValueError("No stranger is left; give --strangers, or a smaller --gallery-size.")
    return found


def outcome(options: argparse.Namespace, asked: OpenSet, galleries: Sequence[Draw]) -> Result:
    """Ask the galleries of one size."""
    size = len(galleries[0].enrolled)
    outcomes = []
    for number, gallery in enumerate(galleries):
        which = f" no. {number + 1}" if len(galleries) > 1 else ""
        outcomes += asked.ask(gallery, number, f"gallery of {size:,}{which}")
    progress(f"{len(outcomes):,} probes of {galleries_in_words(len(galleries), size)} decided", last=True)
    return result_of(size, len(galleries), options.target, outcomes, options.seed)


def measure(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """Look at all photos, then ask galleries size by size."""
    own = {**settings_of(options.set or ()), "data_dir": folder, "workers": 1}
    settings = config.load(own)
    people, strangers = everybody(options)
    paths = [photo for person in (*people, *strangers) for photo in person.photos]
    check(options, people)
    looks = look_at_all(paths, settings, options.face, options.workers)
    say_what_was_seen(looks, options.face)
    faces = {path for path, look in looks.items() if look.face}
    planned = [draws(options, size, people, strangers, faces) for size in options.sizes]
    with database() as (url, _), open_set(config.load({**own, "database_url": url}), looks, options.target) as asked:
        for galleries in planned:
            yield outcome(options, asked, galleries)
        if asked.refused:
            print(f"\n{asked.refused} people could not be enrolled; their probes count as not identified.")


def check(options: argparse.Namespace, people: Sequence[Person]) -> None:
    """Before hours of looking at photos: whether there are enough.

    Raises:
        ValueError: nobody has enough photos, or there are too few people.
    """
    if not any(len(person.photos) > options.gallery_photos for person in people):
        raise ValueError(f"Nobody in {options.root} has more than {options.gallery_photos} photos.")
    enough = sum(len(person.photos) >= options.gallery_photos for person in people)
    largest = max(size or 0 for size in options.sizes)
    if largest > enough:
        raise ValueError(f"A gallery of {largest:,} is too large: {enough:,} people have enough photos.")


def say_what_was_seen(looks: Mapping[Path, Look], which: str) -> None:
    unreadable = sum(look.analysis is None for look in looks.values())
    none = sum(look.analysis is not None and look.faces == 0 for look in looks.values())
    several = sum(look.faces > 1 for look in looks.values())
    again = len(looks) - len({look.sha256 for look in looks.values()})
    print(f"{len(looks):,} photos: {none:,} without a face, {unreadable:,} that cannot be read,")
    print(f"{several:,} with several faces, of which the {which.replace('central', 'most central')} one counts.")
    if again:
        print(f"{again:,} photos are there more than once, which makes people look easier to find than they are.")


# -- the command --


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="a folder of photos for each person")
    parser.add_argument("--strangers", type=Path, metavar="DIR", help="photos, or folders of photos, of other people")
    parser.add_argument("--gallery-photos", type=_count, default=1, metavar="N", help="of each person (%(default)s)")
    parser.add_argument(
        "--gallery-size", dest="sizes", type=_sizes, default=[None], metavar="N,...", help="people (all)"
    )
    parser.add_argument("--repeat", type=_count, default=1, metavar="N", help="galleries of each size (%(default)s)")
    parser.add_argument("--probes-per-person", type=_count, metavar="N", help="at most (all there are)")
    parser.add_argument("--no-distractors", dest="distractors", action="store_false", help="enrol only who has probes")
    parser.add_argument("--shuffle", action="store_true", help="let chance say which photos are enrolled")
    parser.add_argument("--seed", type=int, default=0, help="of all chance (%(default)s)")
    parser.add_argument("--face", choices=("largest", "central"), default="largest", help="of several (%(default)s)")
    parser.add_argument("--target", type=float, default=0.01, help="FPIR that the rule aims at (%(default)s)")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help="a setting of the service; repeatable")
    parser.add_argument("--workers", type=_count, default=available_cores(), help="photos at a time (one per core)")
    parser.add_argument("--picture", type=Path, default=Path("benchmark-identification.png"), help="(%(default)s)")
    options = parser.parse_args()
    if not 0 < options.target < 1:
        parser.error("--target must be between 0 and 1.")
    if options.seed < 0:
        parser.error("--seed must not be negative.")
    if options.repeat > 1 and options.sizes == [None] and not options.shuffle:
        parser.error("--repeat needs --gallery-size or --shuffle, else all galleries are the same.")
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number from 1.")
    return int(text)


def _sizes(text: str) -> list[int]:
    return [_count(part.strip()) for part in text.split(",")]


def main() -> int:
    options = parse()
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        try:
            for result in measure(options, Path(folder)):
                report(result)
                results.append(result)
        except (RecognizerError, ValueError, OSError, BrokenProcessPool) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
    if len(results) > 1:
        print(f"\n{summary(results)}")
    save_picture(options.picture, len(results), 1, lambda panels: draw_all(panels[0], results))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
