"""How an embedding is stored: plain, or encrypted where its collection says so. The one place that knows both forms.

Of the columns `embedding` and `sealed` of a row exactly one holds something. What is sealed opens only for the row it
was sealed for. The keys come with the connection, so that whoever has a cursor can read what it brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from pgvector import HalfVector, Vector
from psycopg2.extensions import cursor as Cursor

from recognizer.errors import Conflict, InvalidRequest, SealBroken
from recognizer.faces import Embedding
from recognizer.gallery.connection import keyring_of
from recognizer.keyring import Keyring

MAX_FACES = 200_000
"""So many faces a collection with encrypted embeddings holds at most, because each worker that searches it has them all
in memory: 0.6 KB a face and as much again a person."""

DIMENSIONS = 128


class Stored(NamedTuple):
    """What the two columns of a row hold; one of them is None."""

    embedding: Embedding | None
    sealed: bytes | None


def face_place(face_id: str) -> str:
    """Where a face's embedding is sealed for."""
    return f"embedding:{face_id}"


def template_place(person_id: str, space_id: int) -> str:
    """Where a template is sealed for."""
    return f"template:{person_id}:{space_id}"


def rejection_place(rejection_id: str) -> str:
    """Where the embedding of a rejection is sealed for."""
    return f"rejection:{rejection_id}"


class Table(NamedTuple):
    """A table with embeddings: what its rows are, what is plain in it, and what they are sealed for."""

    name: str
    what: str
    key: Mapping[str, str]
    """The columns of the primary key and their types; the first one is a uuid."""
    plain: str
    """What a plain embedding is cast to."""
    place: Callable[..., str]
    """Of a row's key."""


TABLES = (
    Table("faces", "embeddings", {"id": "uuid"}, "vector", face_place),
    Table(
        "templates",
        "templates",
        {"person_id": "uuid", "space_id": "bigint"},
        "vector::halfvec(128)",
        template_place,
    ),
    Table("rejections", "rejected faces", {"id": "uuid"}, "vector", rejection_place),
)
"""All tables that hold embeddings; whatever comes to hold some is added here."""


def is_encrypted(cursor: Cursor, collection_id: int) -> bool:
    """Whether what is written into the collection has to be sealed; true until the commit for whoever has its lock."""
    cursor.execute("SELECT encrypt_embeddings FROM collections WHERE id = %s", (collection_id,))
    return bool(cursor.fetchall()[0][0])


def stored(cursor: Cursor, place: str, embedding: Embedding, encrypted: bool) -> Stored:
    """What to write of an embedding, (128,) float32.

    Raises:
        EncryptionKeyMissing
        InvalidRequest: that is no embedding.
    """
    if not encrypted:
        return Stored(embedding, None)
    plain = np.asarray(embedding, "<f4")
    if plain.shape != (DIMENSIONS,) or not np.isfinite(plain).all():  # of others the database sees to it
        raise InvalidRequest(f"An embedding is {DIMENSIONS} finite numbers.")
    return Stored(None, keyring_of(cursor).seal(plain.tobytes(), place))


def stored_template(cursor: Cursor, place: str, template: Embedding, encrypted: bool) -> Stored:
    """The same of a template, which is rounded to half precision in either form: the search finds the same."""
    return stored(cursor, place, template.astype(np.float16).astype(np.float32) if encrypted else template, encrypted)


def read(
    cursor: Cursor, place: str, embedding: Vector | HalfVector | None, sealed: memoryview | bytes | None
) -> Embedding:
    """An embedding, (128,) float32, from what the two columns of its row hold.

    Raises:
        EncryptionKeyMissing: it was sealed with a key that is not here.
        SealBroken: it was changed since, or moved to another row.
    """
    if sealed is None:
        assert embedding is not None  # the database sees to it
        return np.asarray(embedding.to_numpy(), np.float32)
    return opened(keyring_of(cursor), place, sealed)


def opened(keyring: Keyring, place: str, sealed: memoryview | bytes) -> Embedding:
    """A sealed embedding, (128,) float32; raises as `read` does."""
    plain = np.frombuffer(keyring.open(bytes(sealed), place), "<f4")
    if len(plain) != DIMENSIONS:
        raise SealBroken("What is stored encrypted is no embedding; restore a backup.")
    return plain


def require_room(cursor: Cursor, collection_id: int | None, more_faces: int) -> None:
    """See to it that a collection whose embeddings are encrypted stays small enough to be searched in memory.

    `collection_id` is None of one that is yet to be made.

    Raises:
        Conflict
    """
    cursor.execute("SELECT coalesce(sum(faces), 0) FROM spaces WHERE collection_id = %s", (collection_id,))
    if cursor.fetchall()[0][0] + more_faces > MAX_FACES:
        raise Conflict(
            f"With encrypted embeddings a collection holds at most {MAX_FACES:,} faces; enrol into another "
            "collection, or switch encrypt_embeddings off here."
        )
