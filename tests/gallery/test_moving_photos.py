"""Kept photos in an export: the same bytes come back, encrypted, where the collection keeps photos; else none."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from moving_home import MODEL_ID, Home, rewritten

from recognizer.deadline import Deadline
from recognizer.errors import EncryptionKeyMissing, FileRefused
from recognizer.faces import Box, KeptPhoto, NewFace, Quality
from recognizer.gallery.pool import Pool
from recognizer.keyring import Key, Keyring, new_key
from recognizer.moving.archive import Archive

Vectors = Callable[[int], np.ndarray]

PEOPLE = {"Anna": 3, "Berta": 1, "Çelik": 2}
WITHOUT = "Berta"
"""Who was enrolled when nothing was kept yet."""


@pytest.fixture
def elsewhere(open_pool: Callable[..., Pool]) -> Home:
    """An installation with a key of its own."""
    return Home(open_pool(keyring=Keyring([Key.of_text(new_key())])))


@pytest.fixture
def keyless(open_pool: Callable[..., Pool]) -> Home:
    """The installation after its key was lost."""
    return Home(open_pool(keyring=Keyring()))


@pytest.fixture
def exported(home: Home, vectors: Vectors, tmp_path: Path) -> Path:
    """Three people with six faces, of which five have photos of some kilobytes."""
    keep(home)
    for name, count in PEOPLE.items():
        photos = [np.random.bytes(1000 * (number + 1)) for number in range(count)]
        faces = [
            NewFace(
                number, Box(1, 2, 30, 40), Quality(0.75), vectors(1)[0], MODEL_ID, hashlib.sha256(photo).digest(),
                None if name == WITHOUT else KeptPhoto("image/webp", photo, photo[:100]),
            )
            for number, photo in enumerate(photos)
        ]  # fmt: skip
        home.gallery.enrol("default", faces, name=name, deadline=Deadline(30))
    return home.export(tmp_path / "people.zip", photos=True)


def keep(home: Home, wanted: bool = True) -> None:
    home.gallery.change_collection("default", {"keep_photos": wanted}, Deadline(30))


def pictures(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith(("photos", "chips/"))}


def kept(home: Home) -> tuple[object, ...]:
    """How many faces, how many of them with a photo, and by which keys."""
    return home.rows("SELECT count(*), count(face_id), max(key_id) FROM faces LEFT JOIN photos ON face_id = id")[0]


def test_the_same_photos_come_back_under_the_key_of_the_other_installation(
    home: Home, elsewhere: Home, exported: Path
) -> None:
    before = pictures(exported)
    assert len(before) == 1 + 5 + 5
    assert home.rows("SELECT detail FROM audit WHERE action = 'exported' ORDER BY number DESC LIMIT 1") == [
        ('{"faces": 6, "people": 3, "photos": 5, "rejections": 0}',)
    ]
    home.empty()
    keep(elsewhere)
    planned = elsewhere.bring(exported, dry_run=True).tally
    tally = elsewhere.bring(exported).tally
    assert (planned.photos, tally.photos, tally.photos_there, tally.photos_left_out) == (5, 5, 0, 0)
    assert kept(elsewhere) == (6, 5, elsewhere.pool.keyring.ids[0])
    assert pictures(elsewhere.export(exported.with_name("again.zip"), photos=True)) == before
    again = elsewhere.bring(exported).tally
    assert (again.photos, again.photos_there, again.changes) == (0, 5, 0)


def test_without_being_asked_for_none_leave_the_encryption(home: Home, exported: Path) -> None:
    plain = home.export(exported.with_name("plain.zip"))
    assert pictures(plain) == {}
    with zipfile.ZipFile(plain) as archive:
        assert json.loads(archive.read("manifest.json"))["collection"]["photos"] == 0


def test_where_none_are_kept_none_come_until_they_are(home: Home, exported: Path) -> None:
    home.empty()
    keep(home, wanted=False)
    tally = home.bring(exported).tally
    assert (tally.faces, tally.photos, tally.photos_left_out) == (6, 0, 5)
    assert kept(home)[:2] == (6, 0)
    keep(home)
    again = home.bring(exported).tally
    assert (again.faces, again.faces_there, again.photos, again.photos_left_out) == (0, 6, 5, 0)
    before = pictures(exported)
    assert pictures(home.export(exported.with_name("again.zip"), photos=True)) == before


def test_photos_count_for_the_room_where_they_are_kept(home: Home, exported: Path) -> None:
    home.empty()
    free = 6 * 4000 + 5000  # enough for the faces
    with pytest.raises(FileRefused, match="6 faces and 5 photos take"):
        home.bring(exported, free_bytes=free)
    assert kept(home)[:2] == (0, 0)
    keep(home, wanted=False)
    assert home.bring(exported, free_bytes=free).tally.faces == 6


def test_beside_the_original_photos_go_with_the_new_ids(home: Home, exported: Path) -> None:
    home.gallery.create_collection("copy", {"keep_photos": True}, Deadline(30))
    assert home.bring(exported, "copy").tally.photos == 5
    assert home.bring(exported, "copy").tally.photos == 0
    copies = pictures(home.export(exported.with_name("copy.zip"), "copy", photos=True))
    del copies["photos.jsonl"]
    was = pictures(exported)
    assert sorted(copies.values()) == sorted(content for name, content in was.items() if name != "photos.jsonl")
    assert not copies.keys() & was.keys()


def test_what_is_cut_off_leaves_no_face_without_its_photo_and_goes_on(
    home: Home, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.empty()
    monkeypatch.setattr("recognizer.moving.importing.PHOTO_BYTES_AT_ONCE", 0)  # each person a transaction
    read, left = Archive.picture, [5]

    def cut_off(archive: Archive, *which: object) -> bytes:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return read(archive, *which)

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "picture", cut_off)
        with pytest.raises(KeyboardInterrupt):
            home.bring(exported)
    faces, photos, _ = kept(home)
    berta = home.rows(f"SELECT count(*) FROM people WHERE name = '{WITHOUT}'")[0][0]
    assert faces < 6
    assert faces == photos + berta
    home.bring(exported)
    assert kept(home)[:2] == (6, 5)


def test_without_a_key_nothing_is_brought_where_photos_are_kept(home: Home, keyless: Home, exported: Path) -> None:
    home.empty()
    with pytest.raises(EncryptionKeyMissing, match="create-key"):
        keyless.bring(exported)
    assert kept(home)[0] == 0


# -- photos that cannot be read where they are --


def test_a_photo_that_was_changed_in_the_database_is_left_out_and_counted(
    home: Home, keyless: Home, exported: Path
) -> None:
    home.rows(
        "UPDATE photos SET photo = set_byte(photo, 99, 255 - get_byte(photo, 99))"
        " WHERE face_id = (SELECT min(face_id::text)::uuid FROM photos) RETURNING 1"
    )
    with pytest.raises(EncryptionKeyMissing, match=home.pool.keyring.ids[0]):
        keyless.export(exported.with_name("none.zip"), photos=True)
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]
    file = home.export(exported.with_name("less.zip"), photos=True)
    assert len(pictures(file)) == 1 + 4 + 4
    assert home.bring(file).tally.photos_there == 4


# -- files that are not right --


def photo_of(members: dict[str, bytes], number: int = 0) -> str:
    return sorted(name for name in members if name.startswith("photos/"))[number]


def listed(change: Callable[[list[dict[str, object]]], object]) -> Callable[[dict[str, bytes]], object]:
    """Changes what the file says of its photos."""

    def rewrite(members: dict[str, bytes]) -> None:
        lines = [json.loads(line) for line in members["photos.jsonl"].splitlines()]
        change(lines)
        members["photos.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    return rewrite


def swap(lines: list[dict[str, object]]) -> None:
    """Two photos of different faces, with sizes and checksums that are right."""
    lines[0]["photo"], lines[1]["photo"] = lines[1]["photo"], lines[0]["photo"]


def swapped(members: dict[str, bytes]) -> None:
    listed(swap)(members)
    first, second = (f"photos/{json.loads(line)['face_id']}" for line in members["photos.jsonl"].splitlines()[:2])
    members[first], members[second] = members[second], members[first]


def flip(name: str, members: dict[str, bytes]) -> None:
    members[name] = bytes([members[name][0] ^ 1]) + members[name][1:]


WRONG: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "changed": (lambda m: flip(photo_of(m), m), r"photos/.*: its checksum is wrong"),
    "chip": (lambda m: flip(photo_of(m).replace("photo", "chip"), m), r"chips/.*: its checksum is wrong"),
    "missing": (lambda m: m.pop(photo_of(m, 3)), r"photos/.*: it is not there"),
    "short": (lambda m: m.update({photo_of(m): m[photo_of(m)][:-1]}), "bytes long, not"),
    "list": (lambda m: m.pop("photos.jsonl"), r"photos\.jsonl: it is not there"),
    "line": (listed(lambda lines: lines.pop()), "has not the 5 lines"),
    "order": (listed(list.reverse), r"photos\.jsonl, line \d: its face is not in|checksum"),
    "swapped": (swapped, r"photos\.jsonl, line 1: this is not the photo of the face"),
    "type": (listed(lambda lines: lines[0].update(media_type="text/html")), "`media_type`"),
    "huge": (listed(lambda lines: lines[0]["photo"].update(bytes=2**31)), "`photo`.*at most"),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_whose_photos_are_not_right_is_refused_and_nothing_is_written(
    home: Home, exported: Path, case: str
) -> None:
    change, said = WRONG[case]
    file = rewritten(exported, change)
    home.empty()
    with pytest.raises(FileRefused, match=said):
        home.bring(file)
    assert kept(home)[0] == 0


def test_a_photo_that_is_larger_than_allowed_here_is_refused_where_it_would_be_kept(home: Home, exported: Path) -> None:
    home.empty()
    with pytest.raises(FileRefused, match="max_image_bytes"):
        home.bring(exported, max_photo_bytes=2999)
    keep(home, wanted=False)
    assert home.bring(exported, max_photo_bytes=2999).tally.faces == 6


def test_a_file_of_version_1_0_still_comes_in(home: Home, exported: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest["format_version"] = [1, 0]
        del manifest["collection"]["photos"]
        members["manifest.json"] = json.dumps(manifest).encode()

    plain = home.export(exported.with_name("plain.zip"))
    home.empty()
    assert home.bring(rewritten(plain, change)).tally.faces == 6


@pytest.mark.parametrize("with_photos", [True, False])
def test_what_cannot_be_compared_is_offered_to_be_encoded_anew(home: Home, exported: Path, with_photos: bool) -> None:
    home.rows("UPDATE faces SET model_id = 'other/model/1crop' RETURNING 1")
    file = home.export(exported.with_name("old people.zip"), photos=with_photos)
    with pytest.raises(FileRefused, match="cannot be compared") as refused:
        home.bring(file, "copy")
    assert (f"recognizer import '{file}' --re-embed --collection copy" in str(refused.value)) == with_photos
    assert ("export it again with --photos" in str(refused.value)) != with_photos
