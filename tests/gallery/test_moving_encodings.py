"""Encodings of face_recognition come in from every shape that is documented; pickles and what is no encoding do not."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from moving_home import MODEL_ID, Home

from recognizer.calibration import calibrate
from recognizer.calibration.written import as_json
from recognizer.deadline import Deadline
from recognizer.errors import FileRefused

NAMES = ["Anna", "Berta", "anna", "Çelik"]


@pytest.fixture
def rows(vectors: Callable[[int], np.ndarray]) -> np.ndarray:
    return vectors(4)


def npz(folder: Path, rows: np.ndarray) -> tuple[Path, None]:
    np.savez_compressed(folder / "e.npz", names=np.array(NAMES), encodings=rows.astype(np.float64))
    return folder / "e.npz", None


def npy(folder: Path, rows: np.ndarray) -> tuple[Path, Path]:
    np.save(folder / "e.npy", np.asfortranarray(rows))
    (folder / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    return folder / "e.npy", folder / "names.txt"


def text(folder: Path, rows: np.ndarray, header: bool) -> tuple[Path, None]:
    with (folder / "e.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(["name", *(f"v{n}" for n in range(128))])
        writer.writerows([name, *row.tolist()] for name, row in zip(NAMES, rows, strict=True))
    return folder / "e.csv", None


def objects(folder: Path, rows: np.ndarray) -> tuple[Path, None]:
    listed = [{"name": name, "encoding": row.tolist()} for name, row in zip(NAMES, rows, strict=True)]
    (folder / "e.json").write_text(json.dumps(listed), encoding="utf-8")
    return folder / "e.json", None


def members(folder: Path, rows: np.ndarray) -> tuple[Path, None]:
    pairs = (f"{json.dumps(name)}: [{json.dumps(row.tolist())}]" for name, row in zip(NAMES, rows, strict=True))
    (folder / "e.json").write_text("{" + ", ".join(pairs) + "}", encoding="utf-8")
    return folder / "e.json", None


SHAPES = {
    "npz": npz,
    "npy": npy,
    "csv": lambda folder, rows: text(folder, rows, header=False),
    "csv with header": lambda folder, rows: text(folder, rows, header=True),
    "objects": objects,
    "members": members,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_brings_the_same_people_once(home: Home, rows: np.ndarray, tmp_path: Path, shape: str) -> None:
    file, names = SHAPES[shape](tmp_path, rows)
    done = home.bring(file, names=names)
    assert (done.tally.people, done.tally.faces) == (3, 4)
    assert home.rows("SELECT name FROM people ORDER BY name_key") == [("Anna",), ("Berta",), ("Çelik",)]
    stored = home.rows("SELECT embedding, model_id, photo_sha256 FROM faces")
    assert {row.tobytes() for row in rows} == {vector.to_numpy().tobytes() for vector, _, _ in stored}
    assert all(bytes(sha) == hashlib.sha256(vector.to_numpy().tobytes()).digest() for vector, _, sha in stored)
    assert {model for _, model, _ in stored} == {MODEL_ID}
    found = home.gallery.nearest("default", [rows[1]], MODEL_ID, 1, Deadline(30))
    assert (found.of_probes[0][0].name, found.of_probes[0][0].distance) == ("Berta", 0.0)
    assert home.bring(file, names=names).tally.changes == 0


def test_a_row_that_repeats_another_of_its_name_is_left_out(home: Home, rows: np.ndarray, tmp_path: Path) -> None:
    rows[2] = rows[0]
    file, _ = npz(tmp_path, rows)
    assert home.bring(file).tally.faces == 3


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/this-pickle-was-read"),))


def test_pickles_are_refused_unread_with_the_way_to_convert_them(home: Home, tmp_path: Path) -> None:
    Path("/tmp/this-pickle-was-read").unlink(missing_ok=True)
    for protocol in range(6):
        for name in ("e.pickle", "e.pkl", "e.dat", "e.csv", "e.json", "e"):
            (tmp_path / name).write_bytes(pickle.dumps({"names": NAMES, "encodings": [Evil()]}, protocol))
            with pytest.raises(FileRefused, match=r"pickle|none of what can be imported|CSV|JSON"):
                home.bring(tmp_path / name)
    np.save(tmp_path / "o.npy", np.array([Evil()] * 4, object), allow_pickle=True)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    with pytest.raises(FileRefused, match=r"Python objects.*numpy\.savez"):
        home.bring(tmp_path / "o.npy", names=tmp_path / "names.txt")
    np.savez(tmp_path / "o.npz", names=np.array(NAMES, object), encodings=np.ones((4, 128)))
    with pytest.raises(FileRefused, match="Python objects"):
        home.bring(tmp_path / "o.npz")
    assert not Path("/tmp/this-pickle-was-read").exists()


def test_what_is_no_encoding_is_refused_with_its_place(home: Home, rows: np.ndarray, tmp_path: Path) -> None:
    def refused(name: str, content: str | bytes, said: str) -> None:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(FileRefused, match=said):
            home.bring(file)

    numbers = ",".join(["0.1"] * 127)
    refused("a.csv", f"Anna,{numbers}\n", "name 1: an encoding has 128 numbers, here are 127")
    refused("a.csv", f"Anna,{numbers},0.1\nBerta,{numbers},x\n", "name 2: .* one here is none")
    refused("a.csv", f"Anna,{numbers},nan\n", "row 1: .*NaN")
    refused("a.csv", f"Anna,{numbers},1e39\n", "row 1: .*infinity")
    refused("a.csv", f"Anna\x00,{numbers},0.1\n", "control or invisible")
    refused("a.json", "[1, 2]", "JSON has to be")
    refused("a.json", '{"Anna": [[1, 2]]}', "128 numbers, here are 2")
    refused("a.json", '{"Anna": ', "not valid JSON")
    refused("a.json", "[" * 100_000, "not valid JSON")
    refused("a.txt", "hello", "none of what can be imported")
    with pytest.raises(FileRefused, match="recognizer enroll"):
        home.bring(tmp_path)
    np.savez_compressed(tmp_path / "bomb.npz", names=np.array(["x"] * 200_000), encodings=np.zeros((200_000, 128)))
    with pytest.raises(FileRefused, match="packed far more tightly"):
        home.bring(tmp_path / "bomb.npz")
    whole = npz(tmp_path, rows)[0].read_bytes()
    refused("cut.npz", whole[: len(whole) // 2], "cannot be read")
    assert home.rows("SELECT count(*) FROM people") == [(0,)]


def test_calibration_counts_them_as_it_counts_faces_of_photos(home: Home, rows: np.ndarray, tmp_path: Path) -> None:
    file, names = npz(tmp_path, rows)
    home.bring(file, collection="imported", names=names)
    home.gallery.create_collection("enrolled", {}, Deadline(30))
    for name, embedding in zip(NAMES, rows, strict=True):
        home.enrol(name, embedding, collection="enrolled")
    found = [
        calibrate(home.gallery.embeddings(collection, MODEL_ID, Deadline(30)), 0.01, Deadline(60))
        for collection in ("imported", "enrolled")
    ]
    counted = [as_json(report) for report in found]
    assert counted[0]["people"] == counted[1]["people"] == {"enrolled": 3, "used": 3, "with_two_photos": 1}
    assert counted[0]["photos"] == counted[1]["photos"] == {"enrolled": 4, "used": 4}
    assert found[0].genuine == found[1].genuine
