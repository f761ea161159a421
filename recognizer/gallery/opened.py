"""The embeddings of encrypted collections as one worker has them in memory: decrypted, brought up to date, let go.

They are read when somebody searches, and again, only those of people who have changed since, when the collection's
revision has moved. A thread of its own lets go of what nobody has used for a while and of people who were erased from
collections that nobody searches just now. Nothing of all this is ever written or logged.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Self

import numpy as np
from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import DeadlineExceeded, EncryptionKeyMissing, RecognizerError, SealBroken
from recognizer.gallery import sealing
from recognizer.gallery.connection import keyring_of
from recognizer.gallery.pool import Pool
from recognizer.gallery.snapshot import OpenPerson, Snapshot

LOGGER = logging.getLogger(__name__)

BUDGET_BYTES = 256 * 2**20
"""What all collections together may take in a worker, unless somebody says otherwise; beyond, those that were not used
for longest are let go. One alone may always stay: `sealing.MAX_FACES` bounds it."""

READ_SECONDS = 60.0
"""So long may a collection be read at least: a request with less time fails, the next one has its result."""

BROKEN_SECONDS = 10.0
"""So long it is not tried again to read what could not be decrypted."""

UNUSED_SECONDS = 600.0
"""What was not searched for so long is let go."""

LOOK_SECONDS = 20.0
"""So often is everything compared with the database, whether anybody searches or not."""

OUT_OF_SIGHT_SECONDS = 60.0
"""What could not be compared for so long, because the database is away, is let go: somebody in it may be erased."""

TELL_SECONDS = 3600.0
"""So often is said at most that the budget is too small."""

BATCH_FACES = 4096
"""About so many faces are read at a time."""

STATE = """
    SELECT pg_postmaster_start_time(), collection.revision, space.people
    FROM spaces AS space JOIN collections AS collection ON collection.id = space.collection_id
    WHERE space.id = %s AND collection.encrypt_embeddings
"""

CHANGED = "SELECT person_id, faces FROM templates WHERE space_id = %s AND sealed IS NOT NULL AND revision > %s"

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
    broken: EncryptionKeyMissing | SealBroken | None = None
    broken_at: float = 0.0
    """Why it could not be decrypted, and when."""

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        snapshot = self.snapshot  # another thread may take it away meanwhile
        return 0 if snapshot is None else snapshot.bytes


class Opened:
    """Holds what is open, by space; safe to use from many threads. Entered, it also tidies up by itself."""

    def __init__(self, pool: Pool, budget_bytes: int = BUDGET_BYTES) -> None:
        self._pool = pool
        self._budget_bytes = budget_bytes
        self._told_at = -math.inf
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
    def current(
        self, space_id: int, deadline: Deadline, only_if: Callable[[Cursor], bool] = lambda _: True
    ) -> Iterator[tuple[Cursor, Snapshot | None]]:
        """A space as it is now, and a cursor that sees just that state.

        There is None of a space that is gone, or whose collection is not encrypted (any more). What took longer to read
        than the deadline allows is kept for whoever asks next.

        Args:
            only_if: asked in the same transaction before anything is read; else there is None.

        Raises:
            EncryptionKeyMissing, SealBroken: it cannot be decrypted.
            DatabaseUnavailable, DeadlineExceeded
        """
        with self._lock:
            held = self._held.setdefault(space_id, _Held())
        held.used_at = time.monotonic()
        # nobody holds a connection while waiting for another who is reading everything
        if not held.turn.acquire(timeout=deadline.remaining_seconds()):
            raise DeadlineExceeded("Decrypting the collection's embeddings takes too long; try again in a few seconds.")
        try:
            with self._reading(deadline) as (cursor, reading):
                if only_if(cursor):
                    self._refresh(cursor, space_id, held, reading)
                    deadline.check()
                    yield cursor, held.snapshot
                else:
                    yield cursor, None
        finally:
            held.turn.release()
        self._make_room(but=space_id)

    @property
    def bytes(self) -> int:
        """About how much memory everything takes that is open."""
        with self._lock:
            return sum(held.bytes for held in self._held.values())

    def tidy(self) -> None:
        """Let go of what is unused, gone or out of sight, and bring the rest up to date, who was erased above all."""
        with self._lock:
            spaces = dict(self._held)
        for space_id, held in spaces.items():
            if held.used_at < time.monotonic() - UNUSED_SECONDS:
                self._let_go(space_id, held)
            elif held.snapshot is not None and held.turn.acquire(blocking=False):  # else somebody is reading it
                try:
                    self._look_at(space_id, held)
                finally:
                    held.turn.release()

    def _look_at(self, space_id: int, held: _Held) -> None:
        try:
            with self._reading(Deadline(LOOK_SECONDS)) as (cursor, reading):
                self._refresh(cursor, space_id, held, reading)
        except Exception as error:  # whatever it is: the other spaces are looked at, and whoever searches is told
            LOGGER.log(
                logging.DEBUG if isinstance(error, RecognizerError) else logging.WARNING,
                "What is open of a collection cannot be compared with the database: %s",
                error,
                exc_info=not isinstance(error, RecognizerError),  # what nobody has thought of
            )
            if held.seen_at < time.monotonic() - OUT_OF_SIGHT_SECONDS:
                self._let_go(space_id, held)

    @contextlib.contextmanager
    def _reading(self, deadline: Deadline) -> Iterator[tuple[Cursor, Deadline]]:
        """A cursor that sees one state, and until when it may be read."""
        reading = Deadline(max(deadline.remaining_seconds(), READ_SECONDS))
        with self._pool.connection(reading, is_long=True) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield cursor, reading

    def _refresh(self, cursor: Cursor, space_id: int, held: _Held, deadline: Deadline) -> None:
        """Bring what is held up to date; the caller has the turn."""
        if held.broken is not None and time.monotonic() < held.broken_at + BROKEN_SECONDS:
            raise type(held.broken)(str(held.broken))
        try:
            held.snapshot, held.broken = refreshed(cursor, space_id, held.snapshot, deadline), None
        except (EncryptionKeyMissing, SealBroken) as error:
            held.broken, held.broken_at = type(error)(str(error)), time.monotonic()
            raise
        held.seen_at = time.monotonic()
        if held.snapshot is None:
            self._let_go(space_id, held)

    def _let_go(self, space_id: int, held: _Held) -> None:
        with self._lock:
            if self._held.get(space_id) is held:
                del self._held[space_id]

    def _make_room(self, but: int) -> None:
        now, needed = time.monotonic(), False
        with self._lock:
            latest_first = sorted(self._held.items(), key=lambda item: item[1].used_at, reverse=True)
            room = self._budget_bytes
            for space_id, held in latest_first:
                room -= held.bytes
                if room < 0 and space_id != but:
                    del self._held[space_id]
                    needed = needed or held.used_at > now - OUT_OF_SIGHT_SECONDS
        if needed and now > self._told_at + TELL_SECONDS:
            self._told_at = now
            LOGGER.warning(
                "The encrypted collections that are searched do not all fit into a quarter of worker_memory_bytes and "
                "are decrypted again and again. Set it higher."
            )

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
            self.tidy()


def refreshed(cursor: Cursor, space_id: int, known: Snapshot | None, deadline: Deadline) -> Snapshot | None:
    """The space as the cursor's transaction sees it; None: it is not there, or not encrypted.

    Args:
        known: what is in memory of it, in any state.

    Raises:
        EncryptionKeyMissing, SealBroken, DeadlineExceeded
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
    snapshot = known
    for people in _batches(cursor.fetchall()):
        deadline.check()
        snapshot = snapshot.changed(set(people), _people(cursor, space_id, people))
    if snapshot.count != count:  # everybody who is there is in it, and somebody else, who is gone
        cursor.execute(PEOPLE, (space_id,))
        gone = set(snapshot.people) - {person_id for (person_id,) in cursor.fetchall()}
        snapshot = snapshot.changed(gone)
    return replace(snapshot, revision=revision)


def _batches(changed: list[tuple[str, int]]) -> Iterator[list[str]]:
    """People, so many that about BATCH_FACES are read at a time."""
    batch: list[str] = []
    faces = 0
    for person_id, count in changed:
        batch.append(person_id)
        faces += count
        if faces >= BATCH_FACES:
            yield batch
            batch, faces = [], 0
    if batch:
        yield batch


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
