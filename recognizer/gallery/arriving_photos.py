"""Photos that come into a collection with the faces of a file: kept, encrypted, where the collection keeps photos.

A face of the file that is there already, but without its photo, gets it; the photo's hash says that it is that face's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg2.extensions import cursor as Cursor

from recognizer.faces import KeptPhoto
from recognizer.gallery import photos
from recognizer.gallery.transfer import Incoming, IncomingPhoto

KEEPS = "SELECT keep_photos FROM collections WHERE id = %s"

BARE = """
    SELECT person_id, encode(photo_sha256, 'hex'), id FROM faces
    WHERE person_id = ANY (%s::uuid[]) AND NOT EXISTS (SELECT FROM photos WHERE face_id = faces.id)
"""

Kept = tuple[str, IncomingPhoto]
"""The id that a face has here, and its photo."""


class Wanted:
    """Which photos of a batch are to be kept."""

    def __init__(
        self, cursor: Cursor, collection_id: int | None, batch: Sequence[Incoming], there: Sequence[str]
    ) -> None:
        """Look, if any come, whether photos are kept and which faces of the people who are `there` have none."""
        self.are_kept = False
        self._bare: dict[tuple[str, str], str] = {}
        if collection_id is not None and any(each.photos for each in batch):
            cursor.execute(KEEPS, (collection_id,))
            self.are_kept = bool(cursor.fetchall()[0][0])
        if self.are_kept and there:
            cursor.execute(BARE, (list(there),))
            self._bare = {(person_id, digest): face_id for person_id, digest, face_id in cursor.fetchall()}

    def of(self, incoming: Incoming, person_id: str | None, new: Iterable[Kept]) -> list[Kept]:
        """The photos of new faces, and of those that the person has without."""
        if not self.are_kept:
            return []
        found = list(new)
        if person_id is not None:
            for photo in incoming.photos.values():
                if (face_id := self._bare.get((person_id, photo.record.photo.sha256))) is not None:
                    found.append((face_id, photo))
        return found


def write(cursor: Cursor, collection_id: int, person_id: str, kept: Iterable[Kept]) -> None:
    """Store a person's, one at a time in memory; their faces are there, and the collection's lock is held.

    Raises:
        EncryptionKeyMissing
        FileRefused: a photo cannot be read any more.
    """
    for face_id, photo in kept:
        both = KeptPhoto(photo.record.media_type, photo.read("photo"), photo.read("chip"))
        photos.add(cursor, collection_id, person_id, face_id, both)
