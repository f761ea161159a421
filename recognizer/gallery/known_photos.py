"""Which photos are enrolled already, so that nobody has to look at them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from recognizer.deadline import Deadline
from recognizer.gallery.names import comparable
from recognizer.gallery.pool import Pool

KNOWN = """
    SELECT face.photo_sha256, face.id, person.id
    FROM collections AS collection
    JOIN people AS person ON person.collection_id = collection.id AND person.name_key = %s
    JOIN faces AS face ON face.person_id = person.id AND face.photo_sha256 = ANY(%s)
    WHERE collection.name_key = %s
"""


class KnownPhoto(NamedTuple):
    """The face that is stored of a photo, and whose it is."""

    face_id: str
    person_id: str


def known_photos(
    pool: Pool, collection: str, name: str, photos: Sequence[bytes], deadline: Deadline
) -> dict[bytes, KnownPhoto]:
    """Those of the photos (the SHA-256 of each) that are enrolled for the person of that name in the collection.

    Raises:
        DatabaseUnavailable, DeadlineExceeded
    """
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        cursor.execute(KNOWN, (comparable(name), list(photos), comparable(collection)))
        return {bytes(photo): KnownPhoto(face_id, person_id) for photo, face_id, person_id in cursor.fetchall()}
