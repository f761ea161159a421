"""Kept photos and chips: stored with their face, encrypted, in the transaction that stores it; read one at a time."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Literal, NamedTuple

from psycopg2 import Binary
from psycopg2.extensions import cursor as Cursor

from recognizer.errors import PhotoNotFound
from recognizer.faces import KeptPhoto, NewFace
from recognizer.gallery.connection import keyring_of

Kind = Literal["photo", "chip"]
"""The photo as it was sent, or the 150 x 150 pixels of it that the embedding was made of."""

CHIP_TYPE = "image/png"

NO_SUCH_PHOTO = "No photo of this face is kept; its collection must have had keep_photos on when it was enrolled."

KEEP = """
    INSERT INTO photos (face_id, person_id, collection_id, media_type, photo, chip)
    VALUES (%s, %s, %s, %s, %s, %s)
"""

FIND = """
    SELECT media_type, CASE %(kind)s WHEN 'photo' THEN photo ELSE chip END
    FROM photos WHERE face_id = %(face_id)s AND person_id = %(person_id)s
"""

FORGET = "DELETE FROM photos WHERE collection_id = %s"


class KeptImage(NamedTuple):
    """An image that was kept, as the bytes of a file."""

    media_type: str
    data: bytes


def keep(cursor: Cursor, collection_id: int, person_id: str, face_ids: Sequence[str], faces: Sequence[NewFace]) -> None:
    """Store the photos of new faces, which have got these ids, if the collection keeps photos; its lock is held.

    A face that was seen while the collection did not keep any comes without, and stays without.

    Raises:
        EncryptionKeyMissing
    """
    cursor.execute("SELECT keep_photos FROM collections WHERE id = %s", (collection_id,))
    if not cursor.fetchall()[0][0]:
        return
    for face_id, face in zip(face_ids, faces, strict=True):
        if face.kept is not None:
            add(cursor, collection_id, person_id, face_id, face.kept)


def add(cursor: Cursor, collection_id: int, person_id: str, face_id: str, kept: KeptPhoto) -> None:
    """Store the photo of a face that has none, encrypted; raises EncryptionKeyMissing."""
    keyring = keyring_of(cursor)
    photo, chip = keyring.seal(kept.photo, place("photo", face_id)), keyring.seal(kept.chip, place("chip", face_id))
    cursor.execute(KEEP, (face_id, person_id, collection_id, kept.media_type, Binary(photo), Binary(chip)))


def read(cursor: Cursor, person_id: str, face_id: str, kind: Kind) -> KeptImage:
    """What is kept of a person's face, decrypted.

    Raises:
        PhotoNotFound, EncryptionKeyMissing, SealBroken
    """
    try:
        face_id = str(uuid.UUID(face_id))
    except ValueError as error:
        raise PhotoNotFound(NO_SUCH_PHOTO) from error
    cursor.execute(FIND, {"kind": kind, "face_id": face_id, "person_id": person_id})
    if (row := cursor.fetchone()) is None:
        raise PhotoNotFound(NO_SUCH_PHOTO)
    media_type, sealed = row
    opened = keyring_of(cursor).open(bytes(sealed), place(kind, face_id))
    return KeptImage(media_type if kind == "photo" else CHIP_TYPE, opened)


def place(kind: Kind, face_id: str) -> str:
    """Where a kept image was sealed for."""
    return f"{kind}:{face_id}"
