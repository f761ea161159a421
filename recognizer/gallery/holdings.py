"""What is held on a person, handed out: every time, the audit trail tells of it."""

from __future__ import annotations

from recognizer.deadline import Deadline
from recognizer.gallery import audit, people, photos
from recognizer.gallery.photos import KeptImage, Kind
from recognizer.gallery.pool import Pool
from recognizer.keyring import Keyring


class Holdings:
    """Hands out what is held; safe to use from many threads.

    Every method may raise `DatabaseUnavailable` and `DeadlineExceeded`. `collection` is the one that the caller may
    see, all by default.
    """

    def __init__(self, pool: Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring

    def photo(
        self, person_id: str, face_id: str, kind: Kind, deadline: Deadline, *, collection: str | None = None
    ) -> KeptImage:
        """What is kept of the photo that a face was enrolled by: the photo itself, or the chip.

        Raises:
            PersonNotFound
            PhotoNotFound: nothing is kept of this face, or the person has no such face.
            EncryptionKeyMissing: it was encrypted with a key that is not here.
            SealBroken: it was changed since.
        """
        with self._pool.connection(deadline) as connection, connection.cursor() as cursor:
            person_id = people.require(cursor, person_id, collection)
            found = photos.read(cursor, self._keyring, person_id, face_id, kind)
            where = people.home(cursor, person_id, None)
            audit.append(cursor, "looked_up", person_id=person_id, collection=where, what=kind)
            return found
