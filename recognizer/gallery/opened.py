"""The embeddings of encrypted collections as one worker has them in memory: decrypted, brought up to date, let go.

They are read when somebody searches, and again, only those of people who have changed since, when the collection's
revision has moved. A thread of its own lets go of what nobody has used for a while and of people who were erased from
collections that nobody searches just now. Nothing of all this is ever written or logged.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Self

import numpy as np
from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import DeadlineExceeded, RecognizerError
from recognizer.gallery import sealing
from recognizer.gallery.connection import keyring_of
from recognizer.gallery.pool import Pool
from recognizer.gallery.snapshot import OpenPerson, Snapshot

LOGGER = logging.getLogger(__name__)

BUDGET_BYTES = 256 * 2**20
"""What all collections together may take in a worker; beyond, those that were not used for longest are let go. One
alone may always stay: `sealing.MAX_FACES` bounds it."""

UNUSED_SECONDS = 600.0
"""What was not searched for so long is let go."""

LOOK_SECONDS = 20.0
"""So often is everything compared with the database, whether anybody searches or not."""

OUT_OF_SIGHT_SECONDS = 60.0
"""What could not be compared for so long, because the database is away, is let go: somebody in it may be erased."""

BATCH = 1_000
"""So many people are read at a time."""

STATE = """
    SELECT pg_postmaster_start_time(), collection.revision, space.people
    FROM spaces AS space JOIN collections AS collection ON collection.id = space.collection_id
    WHERE space.id = %s AND collection.encrypt_embeddings
"""

CHANGED = "SELECT person_id FROM templates WHERE space_id = %s AND sealed IS NOT NULL AND revision > %s"

TEMPLATES = """
    SELECT person_id, sealed FROM templates
    WHERE space_id = %(space_id)s AND person_id = ANY (%(people)s::uuid[]) AND sealed IS NOT NULL
"""

# The model is compared in a way that no index has: without statistics the planner would read all faces of the model.
FACES = """
    SELECT face.person_id, face.id, face.sealed
    FROM spaces AS space
    JOIN faces AS face ON face.person_id = ANY (%(people)s::uuid[]) AND ARRAY[face.model_id] <@ space.model_ids
    WHERE space.id = %(space_id)s AND face.sealed IS NOT NULL
    ORDER BY face.person_id, face.id
"""

PEOPLE = "SELECT person_id FROM templates WHERE space_id = %s"


@dataclass(eq=False)
class _Held:
    """What is held of one space; whoever changes it has the turn."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    snapshot: Snapshot | None = None
    used_at: float = field(default_factory=time.monotonic)
    seen_at: float = field(default_factory=time.monotonic)
    """When it was last known to be as in the database."""


class Opened:
    """Holds what is open, by space; safe to use from many threads. Entered, it also tidies up by itself."""

    def __init__(self, pool: Pool, budget_bytes: int = BUDGET_BYTES) -> None:
        self._pool = pool
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="opened", daemon=True)

    def at_hand(self, space_id: int) -> Snapshot | None:
        """What is in memory of a space, which may be older than the database."""
        with self._lock:
            held = self._held.get(space_id)
        if held is None:
            return None
        held.used_at = time.monotonic()
        return held.snapshot

    @contextlib.contextmanager
    def current(self, space_id: int, deadline: Deadline) -> Iterator[tuple[Cursor, Snapshot | None]]:
        """A space as it is now, and a cursor that sees just that state.

        There is None of a space that is gone, or whose collection is not encrypted (any more).

        Raises:
            EncryptionKeyMissing, SealBroken: it cannot be decrypted.
            DatabaseUnavailable, DeadlineExceeded
        """
        with self._lock:
            held = self._held.setdefault(space_id, _Held())
        held.used_at = time.monotonic()
        with self._refreshed(space_id, held, deadline) as (cursor, snapshot):
            yield cursor, snapshot
        self._make_room(but=space_id)

    @property
    def bytes(self) -> int:
        """About how much memory everything takes that is open."""
        with self._lock:
            return sum(held.snapshot.bytes for held in self._held.values() if held.snapshot is not None)

    def tidy(self) -> None:
        """Let go of what is unused, gone or out of sight, and bring the rest up to date, who was erased above all."""
        with self._lock:
            spaces = dict(self._held)
        for space_id, held in spaces.items():
            if held.used_at < time.monotonic() - UNUSED_SECONDS:
                self._let_go(space_id)
                continue
            try:
                with self._refreshed(space_id, held, Deadline(LOOK_SECONDS), thoroughly=True):
                    pass
            except RecognizerError as error:  # whoever searches is told, too
                LOGGER.debug("What is open of a collection cannot be compared with the database: %s", error)
                if held.seen_at < time.monotonic() - OUT_OF_SIGHT_SECONDS:
                    self._let_go(space_id)

    @contextlib.contextmanager
    def _refreshed(
        self, space_id: int, held: _Held, deadline: Deadline, *, thoroughly: bool = False
    ) -> Iterator[tuple[Cursor, Snapshot | None]]:
        # nobody holds a connection while waiting for another who is reading everything
        if not held.turn.acquire(timeout=deadline.remaining_seconds()):
            raise DeadlineExceeded("Decrypting the collection's embeddings takes too long; try again in a few seconds.")
        try:
            with self._pool.connection(deadline, is_long=True) as connection, connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                held.snapshot = refreshed(cursor, space_id, held.snapshot, deadline, thoroughly=thoroughly)
                held.seen_at = time.monotonic()
                yield cursor, held.snapshot
        finally:
            held.turn.release()
            if held.snapshot is None:
                self._let_go(space_id)

    def _let_go(self, space_id: int) -> None:
        with self._lock:
            self._held.pop(space_id, None)

    def _make_room(self, but: int) -> None:
        with self._lock:
            oldest_first = sorted(self._held.items(), key=lambda item: item[1].used_at, reverse=True)
            room = self._budget_bytes
            for space_id, held in oldest_first:
                room -= held.snapshot.bytes if held.snapshot is not None else 0
                if room < 0 and space_id != but:
                    del self._held[space_id]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(LOOK_SECONDS)
        with self._lock:
            self._held.clear()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.tidy()
            except Exception:  # whatever nobody has thought of: it passes or a request will tell; we go on
                LOGGER.warning("What is open of encrypted collections cannot be tidied up.", exc_info=True)


def refreshed(
    cursor: Cursor, space_id: int, known: Snapshot | None, deadline: Deadline, *, thoroughly: bool = False
) -> Snapshot | None:
    """The space as the cursor's transaction sees it; None: it is not there, or not encrypted.

    Args:
        known: what is in memory of it, in any state.
        thoroughly: when anything has changed, all ids are compared. Else that is only done where the number of people
            says that somebody is gone.

    Raises:
        EncryptionKeyMissing, SealBroken
    """
    cursor.execute(STATE, (space_id,))
    if (row := cursor.fetchone()) is None:
        return None
    server, revision, count = row
    if known is None or known.server != server or known.revision > revision:
        known = Snapshot(server)
    if known.revision == revision:
        return known
    cursor.execute(CHANGED, (space_id, known.revision))
    changed = [person_id for (person_id,) in cursor.fetchall()]
    snapshot = known
    for start in range(0, len(changed), BATCH):
        deadline.check()
        batch = changed[start : start + BATCH]
        snapshot = snapshot.changed(set(batch), _people(cursor, space_id, batch))
    if thoroughly or snapshot.count != count:
        cursor.execute(PEOPLE, (space_id,))
        gone = set(snapshot.people) - {person_id for (person_id,) in cursor.fetchall()}
        snapshot = snapshot.changed(gone)
    return replace(snapshot, revision=revision)


def _people(cursor: Cursor, space_id: int, people: list[str]) -> list[OpenPerson]:
    keyring = keyring_of(cursor)
    asked = {"space_id": space_id, "people": people}
    cursor.execute(TEMPLATES, asked)
    templates = {
        person_id: sealing.opened(keyring, sealing.template_place(person_id, space_id), sealed)
        for person_id, sealed in cursor.fetchall()
    }
    cursor.execute(FACES, asked)
    return [
        OpenPerson(
            person_id,
            templates[person_id],
            tuple(face_id for _, face_id, _ in rows),
            np.array([sealing.opened(keyring, sealing.face_place(face_id), sealed) for _, face_id, sealed in rows]),
        )
        for person_id, rows in ((each, list(found)) for each, found in groupby(cursor.fetchall(), itemgetter(0)))
    ]
