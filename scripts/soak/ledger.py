"""The ledger: which enrolments and deletions the service has acknowledged, in our own books.

An entry is in one hand at a time. What was sent and not answered stays open (`enrolling`, `leaving`) and is sent again
with the same Idempotency-Key until it is answered; only then does the person's face become free for another name.
"""

from __future__ import annotations

import itertools
import random
import secrets
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from soak.photos import Photo

ENROLLING, ENROLLED, LEAVING, GONE, REFUSED = "enrolling", "enrolled", "leaving", "gone", "refused"


@dataclass
class Entry:
    """One person under one name: what we asked for and what was acknowledged."""

    serial: int
    name: str
    photo: Photo
    key: str
    state: str = ENROLLING
    person_id: str = ""
    face_ids: frozenset[str] = frozenset()
    attempts: int = 0
    in_hand: bool = field(default=True, repr=False)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "photo": f"{self.photo.person}/{self.photo.label}",
            "state": self.state,
            "person_id": self.person_id,
            "face_ids": sorted(self.face_ids),
            "attempts": self.attempts,
        }


class Ledger:
    """All entries; safe to use from many threads."""

    def __init__(self, prefix: str, photos: Sequence[Photo]) -> None:
        self.counts: Counter[str] = Counter()
        self.entries: list[Entry] = []
        self.proved: set[str] = set()
        """People whose photo has been enrolled once: it is good enough, and always will be."""
        self._prefix = prefix
        self._photos = {photo.person: photo for photo in photos}
        self._free = sorted(self._photos)
        self._open: dict[int, Entry] = {}  # all but those that are gone for good
        self._serials = itertools.count(1)
        self._lock = threading.Lock()

    def begin(self, chance: random.Random) -> Entry | None:
        """A new entry, in hand, for somebody who is not enrolled; None when everybody is."""
        with self._lock:
            if not self._free:
                return None
            person = self._free.pop(chance.randrange(len(self._free)))
            serial = next(self._serials)
            entry = Entry(serial, f"{self._prefix}-{serial}", self._photos[person], secrets.token_hex(12))
            self.entries.append(entry)
            self._open[serial] = entry
            return entry

    def pick(self, chance: random.Random, *states: str) -> Entry | None:
        """Take an entry in one of these states into the hand; None when there is none, or all are in other hands."""
        with self._lock:
            found = [entry for entry in self._open.values() if entry.state in states and not entry.in_hand]
            if not found:
                return None
            entry = chance.choice(found)
            entry.in_hand = True
            return entry

    def let_go(self, entry: Entry) -> None:
        """The entry is free for other hands; the face of one who is gone, for another name."""
        with self._lock:
            entry.in_hand = False
            if entry.state == GONE:
                self._open.pop(entry.serial, None)
                self._free.append(entry.photo.person)
            elif entry.state == REFUSED:  # a photo that cannot be enrolled is not tried again
                self._open.pop(entry.serial, None)

    def enrolled(self, entry: Entry, answer: Mapping[str, Any]) -> str | None:
        """An enrolment was acknowledged; what is wrong with the answer, seen from here."""
        try:
            person_id = str(answer["person"]["id"])
            count, name = int(answer["person"]["faces"]), answer["person"]["name"]
            face_ids = frozenset(str(face["face_id"]) for face in answer["enrolled"])
        except (KeyError, TypeError, ValueError):
            return "an enrolment's answer makes no sense"
        if entry.state == ENROLLED:
            return None if (person_id, face_ids) == (entry.person_id, entry.face_ids) else "a retry enrolled again"
        entry.state, entry.person_id, entry.face_ids = ENROLLED, person_id, face_ids
        self._count("enrolments")
        self.proved.add(entry.photo.person)
        if name != entry.name:
            return "enrolled under another name"
        return None if count == len(face_ids) == 1 else "enrolled with another number of faces"

    def refused(self, entry: Entry) -> None:
        """The photo cannot be enrolled."""
        entry.state = REFUSED
        self._count("photos refused")

    def left(self, entry: Entry) -> None:
        """A deletion was acknowledged."""
        entry.state = GONE
        self._count("deletions")

    def summary(self) -> dict[str, Any]:
        """Figures for the report, and the entries that are not simply gone."""
        states = Counter(entry.state for entry in self.entries)
        kept = [entry for entry in self.entries if entry.state != GONE]
        return {
            "enrolments_acknowledged": self.counts["enrolments"],
            "deletions_acknowledged": self.counts["deletions"],
            "retried": sum(entry.attempts > 1 for entry in self.entries),
            "unanswered": states[ENROLLING] + states[LEAVING],
            "photos_refused": states[REFUSED],
            "enrolled_at_the_end": states[ENROLLED],
            "entries": [entry.as_json() for entry in kept],
        }

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
