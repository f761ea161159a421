"""Synthetic embeddings that lie to each other as dlib's do, and a quick way to get many into a gallery.

Made after dlib's embeddings of 516 press photos of 200 people. All lie around one mean of length 1.3. What makes
people different is a normal distribution whose variance (0.245 in all) is held by few directions: 8 of the 128 hold
half of it, 32 nine tenths. What makes one person's photos different (0.10 in all) is spread wider: 8 directions hold
an eighth of it, 32 half. So it comes to the same distances (same person 0.45, different people 0.82, 0.6 to the
nearest of 200 strangers) and about the same local dimension (21, dlib's 19), which is what makes searching hard.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from psycopg2.extensions import cursor as Cursor

from recognizer.faces import space_of
from recognizer.gallery.templates import NOISE

MODEL_ID = "dlib-resnet-v1-synthetic/5pt-synthetic/chip150-0.25/1crop"

Vectors = NDArray[np.float32]
"""(n, 128) float32"""


class Population:
    """Draws people and their faces; the same seed draws the same ones."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        axis = np.arange(128)
        between, within = np.exp(-axis / 30) / (axis + 3), np.exp(-axis / 45)
        turned = np.linalg.qr(self.random.normal(size=(128, 128)))[0]
        self._between = (np.sqrt(0.245 * between / between.sum())[:, None] * turned).astype(np.float32)
        self._within = (np.sqrt(0.10 * within / within.sum())[:, None] * turned).astype(np.float32)
        mean = self.random.normal(size=128)
        self._mean = (1.3 * mean / np.linalg.norm(mean)).astype(np.float32)

    def people(self, count: int) -> Vectors:
        """What is common to the faces of each of so many people."""
        return self._mean + self.random.standard_normal((count, 128), np.float32) @ self._between

    def faces(self, people: Vectors) -> Vectors:
        """A new face of each."""
        return people + self.random.standard_normal((len(people), 128), np.float32) @ self._within


def load(cursor: Cursor, faces: Vectors, templates: Vectors, random: np.random.Generator) -> None:
    """Copy people with faces and templates into the collection `default`; each person's faces follow on each other."""
    cursor.execute("SELECT id FROM collections WHERE name_key = 'default'")
    ((collection_id,),) = cursor.fetchall()
    cursor.execute(
        "INSERT INTO spaces (collection_id, name, model_ids, people, faces, changes)"
        " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
        (collection_id, space_of(MODEL_ID), [MODEL_ID], len(templates), len(faces), len(templates)),
    )
    ((space_id,),) = cursor.fetchall()
    faces_per_person = len(faces) // len(templates)
    for start in range(0, len(faces), 20_000 * faces_per_person):
        batch = faces[start : start + 20_000 * faces_per_person]
        people = _uuids(len(batch) // faces_per_person, random)
        numbers = range(start // faces_per_person, start // faces_per_person + len(people))
        names = "".join(
            f"{person.hex()}\t{collection_id}\tp {n}\tp {n}\n" for person, n in zip(people, numbers, strict=True)
        )
        cursor.copy_expert("COPY people (id, collection_id, name, name_key) FROM STDIN", io.StringIO(names))
        owners = np.repeat(np.array(people, "V16"), faces_per_person)
        columns = "id, person_id, collection_id, embedding, model_id, box_left, box_top, box_right, box_bottom"
        cursor.copy_expert(
            f"COPY faces ({columns}, quality_score, photo_sha256) FROM STDIN WITH (FORMAT binary)",
            io.BytesIO(_binary(list(_columns(batch, owners, collection_id, random)))),
        )
        made = templates[start // faces_per_person :][: len(people)]
        cursor.copy_expert(
            "COPY templates (person_id, space_id, collection_id, embedding, faces) FROM STDIN WITH (FORMAT binary)",
            io.BytesIO(_binary(_template_columns(made, people, space_id, collection_id, faces_per_person, random))),
        )
    cursor.execute(
        "INSERT INTO cohorts (person_id, space_id, made, seen) SELECT person_id, space_id, 0, -1 FROM templates"
    )


def _template_columns(
    templates: Vectors, people: list[bytes], space_id: int, collection_id: int, faces: int, random: np.random.Generator
) -> list[NDArray]:
    """The values of each column of `templates`, with the noise that the gallery adds."""
    vectors = np.zeros(len(templates), [("dim", ">i2"), ("unused", ">i2"), ("values", ">f2", 128)])
    vectors["dim"], vectors["values"] = 128, templates + random.uniform(-NOISE, NOISE, templates.shape)
    ids = (np.full(len(templates), each, ">i8") for each in (space_id, collection_id))
    return [np.array(people, "V16"), *ids, vectors, np.full(len(templates), faces, ">i4")]


def _uuids(count: int, random: np.random.Generator) -> list[bytes]:
    return [random.bytes(16) for _ in range(count)]


def _columns(faces: Vectors, owners: NDArray[np.void], collection_id: int, random: np.random.Generator) -> Iterator:
    """The values of each column as PostgreSQL's binary format has them."""
    vectors = np.zeros(len(faces), [("dim", ">i2"), ("unused", ">i2"), ("values", ">f4", 128)])
    vectors["dim"], vectors["values"] = 128, faces
    yield np.array(_uuids(len(faces), random), "V16")
    yield owners
    yield np.full(len(faces), collection_id, ">i8")
    yield vectors
    yield np.full(len(faces), MODEL_ID.encode(), f"S{len(MODEL_ID)}")
    for edge in (1, 2, 101, 102):
        yield np.full(len(faces), edge, ">i4")
    yield np.ones(len(faces), ">f8")
    yield np.frombuffer(random.bytes(32 * len(faces)), "V32")


def _binary(columns: list[NDArray]) -> bytes:
    kinds = [kind for n, column in enumerate(columns) for kind in ((f"len{n}", ">i4"), (f"value{n}", column.dtype))]
    rows = np.zeros(len(columns[0]), [("columns", ">i2"), *kinds])
    rows["columns"] = len(columns)
    for n, column in enumerate(columns):
        rows[f"len{n}"], rows[f"value{n}"] = column.dtype.itemsize, column
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"
