"""Exports and imports: the same people come back, once, and nothing comes of a file that is not right."""

from __future__ import annotations

import copy
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from moving_home import MODEL_ID, Home, rewritten

from recognizer.deadline import Deadline
from recognizer.errors import Conflict, FileNotWritten, FileRefused
from recognizer.gallery import sealing
from recognizer.gallery.template_index import Making, TemplateIndex
from recognizer.moving import archive

Vectors = Callable[[int], np.ndarray]

EVERYTHING = (
    "SELECT id, name, name_key, external_id, metadata, created_at FROM people ORDER BY id",
    "SELECT id, person_id, embedding::text, model_id, box_left, box_bottom, quality_score, quality_issues,"
    " photo_sha256::text, created_at FROM faces ORDER BY id",
    "SELECT person_id, embedding::text, faces FROM templates ORDER BY person_id",
    "SELECT id, person_id, embedding::text, model_id, space, created_at, created_by FROM rejections ORDER BY id",
    "SELECT person_id, likeness, rival FROM cohorts ORDER BY person_id",
    "SELECT name, model_ids, people, faces, shift FROM spaces",
    "SELECT threshold, target_fpir, revision FROM collections ORDER BY name",
)


def everything(home: Home) -> list[list[tuple[object, ...]]]:
    return [home.rows(statement) for statement in EVERYTHING]


def counts(home: Home) -> tuple[object, ...]:
    names = ("people", "faces", "rejections", "templates", "cohorts")
    return home.rows("SELECT " + ", ".join(f"(SELECT count(*) FROM {name})" for name in names))[0]


def test_an_emptied_gallery_is_as_it_was_after_the_import(home: Home, exported: Path) -> None:
    home.rows("UPDATE cohorts SET likeness = 0.25, rival = 0.125, seen = 2 RETURNING 1")
    home.rows("UPDATE spaces SET shift = 0.0625 RETURNING 1")
    home.gallery.change_collection("default", {"target_fpir": 0.003}, Deadline(30))
    before = everything(home)
    again = home.export(exported.with_name("again.zip"))
    home.empty()
    done = home.bring(again)
    assert (done.tally.people, done.tally.faces, done.tally.rejections, done.tally.new_ids) == (3, 6, 1, 0)
    assert everything(home) == before
    third = home.export(exported.with_name("third.zip"))
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(third) as other:
        for name in ("faces.jsonl", "embeddings.npy", "rejections.jsonl", "rejections.npy"):
            assert one.read(name) == other.read(name)


def test_what_is_there_is_not_doubled(home: Home, exported: Path) -> None:
    before = everything(home)
    tally = home.bring(exported).tally
    assert (tally.people_there, tally.faces_there, tally.rejections_there, tally.changes) == (3, 6, 1, 0)
    assert everything(home) == before


def test_beside_the_original_ids_are_new_and_a_second_time_finds_them(home: Home, exported: Path) -> None:
    planned = home.bring(exported, "copy", dry_run=True)
    assert (planned.made, planned.tally.people, planned.tally.new_ids) == (True, 3, 10)
    assert counts(home) == (3, 6, 1, 3, 3)
    assert home.bring(exported, "copy").tally.new_ids == 10
    assert counts(home) == (6, 12, 2, 6, 6)
    assert home.bring(exported, "copy").tally.changes == 0
    assert counts(home) == (6, 12, 2, 6, 6)


def test_somebody_of_the_same_name_gets_the_faces(home: Home, exported: Path, vectors: Vectors) -> None:
    home.empty()
    anna = home.enrol("ANNA", *vectors(1))
    tally = home.bring(exported).tally
    assert (tally.people, tally.people_there, tally.people_completed, tally.faces) == (2, 1, 1, 6)
    assert home.rows(f"SELECT name, external_id, metadata FROM people WHERE id = '{anna}'") == [
        ("ANNA", "a-1", {"Raum": "Süd"})
    ]
    assert home.rows(f"SELECT faces FROM templates WHERE person_id = '{anna}'") == [(4,)]
    assert home.rows("SELECT people, faces FROM spaces") == [(3, 7)]


def test_who_was_renamed_is_still_the_same_person(home: Home, exported: Path) -> None:
    [(berta,)] = home.rows("SELECT id FROM people WHERE name = 'Berta'")
    home.gallery.change_person(str(berta), {"name": "Bertha"}, Deadline(30))
    assert home.bring(exported).tally.changes == 0


def test_external_ids_in_the_way_are_refused_with_the_line(home: Home, exported: Path, vectors: Vectors) -> None:
    home.empty()
    home.enrol("Other", *vectors(1), external_id="a-1")
    before = everything(home)
    with pytest.raises(FileRefused, match=r"people\.jsonl, line \d: another person .* external_id"):
        home.bring(exported)
    home.empty()
    home.enrol("anna", *vectors(1), external_id="b-1")
    with pytest.raises(FileRefused, match=r"people\.jsonl, line \d: .* another external_id"):
        home.bring(exported)
    assert len(everything(home)[0]) == len(before[0]) == 1


def test_the_figures_of_others_do_not_count_among_other_people(home: Home, exported: Path, vectors: Vectors) -> None:
    home.rows("UPDATE cohorts SET likeness = 0.25, seen = 2 RETURNING 1")
    again = home.export(exported.with_name("again.zip"))
    home.empty()
    home.enrol("Zoe", *vectors(1))
    home.bring(again)
    assert home.rows("SELECT count(*) FROM cohorts WHERE seen = -1") == [(4,)]


# -- writing --


def test_a_file_that_is_there_is_kept_unless_told(home: Home, exported: Path) -> None:
    assert stat.S_IMODE(exported.stat().st_mode) == 0o600
    was = exported.read_bytes()
    with pytest.raises(FileNotWritten, match="--force"):
        home.export(exported)
    assert exported.read_bytes() == was
    home.export(exported, force=True)
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing(home: Home, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"0")

    monkeypatch.setattr(archive.Writer, "write", full)
    with pytest.raises(FileNotWritten, match=r"There is no room for .*nothing was left behind"):
        home.export(exported.with_name("new.zip"))
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


# -- files that are not right --


def edit(member: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], object]:
    def change(members: dict[str, bytes]) -> None:
        assert old in members[member]
        members[member] = members[member].replace(old, new, 1)

    return change


def matrix(edit_rows: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[dict[str, bytes]], object]:
    def change(members: dict[str, bytes]) -> None:
        rows = np.load(io.BytesIO(members["embeddings.npy"]))
        changed = edit_rows(rows)
        buffer = io.BytesIO()
        np.save(buffer, rows if changed is None else changed, allow_pickle=True)
        members["embeddings.npy"] = buffer.getvalue()

    return change


def put(place: tuple[int, int], value: float) -> Callable[[dict[str, bytes]], object]:
    return matrix(lambda rows: rows.__setitem__(place, value))


def twice(members: dict[str, bytes]) -> None:
    members["people.jsonl"] = members["people.jsonl"].replace(b'"Berta"', b'"ANNA"')


WRONG = {
    "newer": (edit("manifest.json", b'"format_version": [\n    1', b'"format_version": [\n    2'), "version 2.1"),
    "no manifest": (lambda members: members.pop("manifest.json"), "no manifest.json"),
    "other": (edit("manifest.json", b"recognizer-export", b"something-else"), "`format`"),
    "missing": (lambda members: members.pop("faces.jsonl"), "faces.jsonl: it is not there"),
    "nan": (put((2, 5), np.nan), r"embeddings.npy, row 3: .*NaN"),
    "infinity": (put((0, 0), np.inf), r"embeddings.npy, row 1: .*infinity"),
    "too long": (matrix(lambda rows: rows * 1000), r"row 1: the vector's length"),
    "zero": (matrix(lambda rows: rows * 0), "length is 0"),
    "127": (matrix(lambda rows: rows[:, :127]), r"shape \(6, 128\)"),
    "float64": (matrix(lambda rows: rows.astype(float)), "float32"),
    "objects": (matrix(lambda rows: rows.astype(object)), "float32"),
    "five rows": (matrix(lambda rows: rows[:5]), r"shape \(6, 128\)"),
    "no json": (edit("people.jsonl", b"{", b"<"), r"people.jsonl, line 1: .*JSON"),
    "a line less": (lambda m: m.update({"people.jsonl": m["people.jsonl"].split(b"\n", 1)[1]}), "its person|lines"),
    "names twice": (twice, r"people.jsonl, lines \d and \d: both have the same name"),
    "nul": (edit("people.jsonl", b"S\xc3\xbcd", b"\\u0000"), "NUL"),
    "no name": (edit("people.jsonl", b'"Berta"', b'""'), r"line \d: `name`"),
    "box": (edit("faces.jsonl", b'"left":1', b'"left":99'), r"faces.jsonl, line 1: `box`"),
    "model": (lambda m: [edit(name, b"5pt-", b"68pt-")(m) for name in ("faces.jsonl",)], "cannot be compared"),
    "models": (edit("manifest.json", b"5pt-", b"68pt-"), "cannot be compared"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_right_is_refused_and_nothing_is_written(home: Home, exported: Path, case: str) -> None:
    change, said = WRONG[case]
    file = rewritten(exported, change)
    home.empty()
    with pytest.raises(FileRefused, match=said):
        home.bring(file)
    assert counts(home) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("keep", [0, 10, 200, 1500, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(home: Home, exported: Path, keep: float) -> None:
    content = exported.read_bytes()
    exported.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    home.empty()
    with pytest.raises(FileRefused):
        home.bring(exported)
    assert counts(home) == (0, 0, 0, 0, 0)


def test_every_changed_byte_of_a_member_is_found(home: Home, exported: Path) -> None:
    for member in ("people.jsonl", "faces.jsonl", "embeddings.npy", "rejections.npy"):

        def change(members: dict[str, bytes], member: str = member) -> None:
            content = bytearray(members[member])
            content[-2] ^= 1
            members[member] = bytes(content)

        with pytest.raises(FileRefused, match=f"{member}: its checksum is wrong"):
            home.bring(rewritten(exported, change, honest=False))


def test_a_bomb_is_refused_before_it_is_unpacked(home: Home, exported: Path) -> None:
    bomb = exported.with_name("bomb.zip")
    with zipfile.ZipFile(exported) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_STORED)
        target.writestr("zeros.npy", bytes(10_000_000))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(FileRefused, match=r"zeros\.npy: it is compressed"):
        home.bring(bomb)


def test_members_that_lie_in_each_other_are_refused(home: Home, exported: Path) -> None:
    with zipfile.ZipFile(exported, "a") as archive:
        twin = copy.copy(archive.getinfo("embeddings.npy"))
        twin.filename = "twin"
        archive.filelist.append(twin)
        archive.writestr("last", b"")  # so that the list of members is written again
    with pytest.raises(FileRefused, match="lie in each other"):
        home.bring(exported)


def test_names_in_the_zip_are_no_paths_and_unknown_members_are_passed_over(home: Home, exported: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        members["../../evil"] = b"x"
        manifest = json.loads(members["manifest.json"])
        manifest["later"], manifest["format_version"] = True, [1, 9]
        members["manifest.json"] = json.dumps(manifest).encode()
        members["people.jsonl"] = members["people.jsonl"].replace(b'{"id"', b'{"later":1,"id"')

    assert home.bring(rewritten(exported, change)).tally.people_there == 3
    assert {path.name for path in exported.parent.iterdir()} == {"people.zip", "changed.zip"}


def test_the_model_is_named_on_both_sides(home: Home, exported: Path) -> None:
    file = rewritten(exported, edit("manifest.json", b"5pt-", b"68pt-"))
    with pytest.raises(FileRefused) as refused:
        home.bring(file)
    assert MODEL_ID in str(refused.value)
    assert MODEL_ID.replace("5pt-", "68pt-") in str(refused.value)


def test_exports_and_imports_are_told_of_in_the_audit_trail(home: Home, exported: Path) -> None:
    home.empty()
    home.bring(exported)
    home.bring(exported)  # nothing is new
    told = home.rows("SELECT action, collection, subject, detail FROM audit ORDER BY number DESC LIMIT 20")
    mine = [row for row in told if row[0] in ("exported", "imported")][:2]
    assert [(action, collection, subject) for action, collection, subject, _ in mine] == [
        ("imported", "default", None),
        ("exported", "default", None),
    ]
    assert json.loads(str(mine[0][3])) == {
        "people": 3,
        "people_completed": 0,
        "faces": 6,
        "rejections": 1,
        "photos": 0,
    }


def test_encrypted_embeddings_leave_as_they_are_and_are_encrypted_again_where_they_arrive(
    home: Home, exported: Path
) -> None:
    home.gallery.change_collection("default", {"encrypt_embeddings": True}, Deadline(30))
    encrypted = home.export(exported.with_name("encrypted.zip"))
    with zipfile.ZipFile(exported) as one, zipfile.ZipFile(encrypted) as other:
        for name in ("embeddings.npy", "rejections.npy"):
            assert one.read(name) == other.read(name)
    home.empty()
    assert home.bring(encrypted, "doors").kept_settings == {}
    assert home.gallery.collection("doors", Deadline(30)).encrypt_embeddings
    for table in ("faces", "templates", "rejections"):
        assert home.rows(f"SELECT count(embedding), count(sealed) > 0 FROM {table}") == [(0, True)], table
    again = home.export(exported.with_name("again.zip"), "doors")
    with zipfile.ZipFile(encrypted) as one, zipfile.ZipFile(again) as other:
        assert one.read("embeddings.npy") == other.read("embeddings.npy")


def test_more_faces_than_can_be_encrypted_are_refused_before_anything_is_written(
    home: Home, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.gallery.create_collection("doors", {"encrypt_embeddings": True}, Deadline(30))
    monkeypatch.setattr(sealing, "MAX_FACES", 5)
    with pytest.raises(Conflict, match="at most 5 faces"):
        home.bring(exported, "doors")
    assert home.gallery.collection_overview("doors", Deadline(30)).people == 0


def test_the_index_of_the_templates_stays_where_those_who_come_are_not_in_it(home: Home, exported: Path) -> None:
    home.gallery.create_collection("doors", {"encrypt_embeddings": True}, Deadline(30))

    class Untouchable(TemplateIndex):
        def apart(self, coming: int) -> AbstractContextManager[Making | None]:
            raise AssertionError(coming)

    assert home.bring(exported, "doors", index=Untouchable("")).tally.people == 3
    with pytest.raises(AssertionError):
        home.bring(exported, "copy", index=Untouchable(""))


def test_a_collection_that_is_there_stays_encrypted_or_plain_as_it_is(home: Home, exported: Path) -> None:
    home.gallery.create_collection("doors", {"encrypt_embeddings": True}, Deadline(30))
    assert home.bring(exported, "doors").kept_settings == {"encrypt_embeddings": True}
    assert home.gallery.collection("doors", Deadline(30)).encrypt_embeddings
    assert home.rows("SELECT count(*) FROM faces WHERE sealed IS NOT NULL") == [(6,)]


def test_an_import_does_not_begin_to_keep_photos(home: Home, exported: Path) -> None:
    home.rows("UPDATE collections SET keep_photos = true, retention_days = 30 RETURNING 1")
    again = home.export(exported.with_name("again.zip"))
    home.empty()
    home.rows("UPDATE collections SET keep_photos = false, retention_days = NULL RETURNING 1")
    home.bring(again)
    assert home.rows("SELECT keep_photos, retention_days FROM collections") == [(False, 30)]
