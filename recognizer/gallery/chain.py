"""The chain of the audit trail, walked from its first entry to its last: is every entry as it was written?

Whoever can write to the database can make the whole chain anew. That is seen only by who has kept the head of it,
number and hash, elsewhere: an anchor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg2.extensions import cursor as Cursor

from recognizer.deadline import Deadline
from recognizer.errors import InvalidRequest
from recognizer.gallery.pool import Pool
from recognizer.gallery.trail import kept

AT_A_TIME = 2_000
READ_SECONDS = 30.0

WRITTEN_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})", re.ASCII)

# One statement, one state: who appends meanwhile adds to both. Beyond the head there is nothing, nor before number 1.
HEADS = """
    SELECT number, hash, (SELECT min(number) FROM audit WHERE number > head.number),
           (SELECT min(number) FROM audit WHERE number < 1)
    FROM audit_head AS head
"""

# What no timestamp of Python's is comes as NULL, which no entry was written with.
ENTRIES = """
    SELECT number, CASE WHEN at BETWEEN '0001-01-02' AND '9999-12-30' THEN at END,
           actor, action, collection, subject, detail, request_id, coalesce(hash, '')
    FROM audit WHERE number BETWEEN %s AND %s ORDER BY number
"""


class Head(NamedTuple):
    """The last entry of a trail; of an empty one, number 0 and 32 bytes of zero."""

    number: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.number}:{self.hash.hex()}"

    @classmethod
    def read(cls, text: str) -> Head:
        """The head that `str` has written.

        Raises:
            InvalidRequest
        """
        if (found := WRITTEN_HEAD.fullmatch(text.strip())) is None:
            raise InvalidRequest("A head of the audit trail is written NUMBER:HASH, as `recognizer audit verify` does.")
        return cls(int(found[1]), bytes.fromhex(found[2]))


EMPTY = Head(0, bytes(32))


class Anchor(NamedTuple):
    """A head that was seen before, and where it was kept."""

    head: Head
    source: str


class Verdict(NamedTuple):
    """What was found: the head that was reached, the times of the first and the last entry, and what is wrong."""

    head: Head
    first: datetime | None = None
    last: datetime | None = None
    fault: str | None = None
    is_of_anchor: bool = False
    """Whether the trail is sound in itself, and wrong only by what an anchor says."""


def verify(pool: Pool, anchors: Sequence[Anchor], progress: Callable[[int, int], None]) -> Verdict:
    """Walk the whole chain, to the first thing that is wrong.

    Args:
        progress: is told how many entries have been looked at, and of how many.

    Raises:
        DatabaseUnavailable, DeadlineExceeded
    """
    with pool.connection(Deadline(READ_SECONDS)) as connection, connection.cursor() as cursor:
        cursor.execute(HEADS)
        heads = cursor.fetchall()
    if len(heads) != 1:
        return Verdict(EMPTY, fault=f"The table audit_head has {len(heads)} rows instead of one; somebody changed it.")
    number, stored, beyond, before = heads[0]
    end = Head(number, bytes(stored))
    if before is not None:
        return Verdict(EMPTY, fault=f"Entry {before} was put in: numbers begin with 1.")
    walk = _Walk(anchors)
    while walk.at.number < end.number and walk.fault is None:
        with pool.connection(Deadline(READ_SECONDS)) as connection, connection.cursor() as cursor:
            walk.go_on(cursor, end.number)
        progress(walk.at.number, end.number)
    return walk.verdict(end, beyond)


class _Walk:
    def __init__(self, anchors: Sequence[Anchor]) -> None:
        self.at = EMPTY
        self.fault: str | None = None
        self._anchors = anchors
        self._missed: Anchor | None = None
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._compare()

    def go_on(self, cursor: Cursor, end: int) -> None:
        """Look at some more entries, up to the number `end`."""
        until = min(self.at.number + AT_A_TIME, end)
        cursor.execute(ENTRIES, (self.at.number + 1, until))
        for row in cursor.fetchall():
            self._look_at(row)
            if self.fault is not None:
                return
        if self.at.number < until:
            self.fault = self._gap(cursor, end)

    def _look_at(self, row: tuple[Any, ...]) -> None:
        number, at = row[:2]
        expected = self.at.number + 1
        if number > expected:
            self.fault = f"Entry {expected} is missing; the next one is {number}."
        elif number < expected:
            self.fault = f"There is a second entry {number}."
        elif None in row[1:4] or row[6] is None or kept(row).entry.hash(self.at.hash) != bytes(row[-1]):
            self.fault = (
                f"Entry {number} is not as it was written: it was changed or put in, or another one was taken out "
                "before it."
            )
        else:
            self.at = Head(number, bytes(row[-1]))
            self._first, self._last = self._first or at, at
            self._compare()

    def _compare(self) -> None:
        for anchor in self._anchors:
            if anchor.head.number == self.at.number and anchor.head.hash != self.at.hash:
                self._missed = self._missed or anchor

    def _gap(self, cursor: Cursor, end: int) -> str:
        missing = self.at.number + 1
        cursor.execute("SELECT min(number) FROM audit WHERE number BETWEEN %s AND %s", (missing, end))
        ((later,),) = cursor.fetchall()
        if later is not None:
            return f"Entry {missing} is missing; the next one is {later}."
        return f"Entry {missing} is missing: the trail was cut off there, {end} was its last entry."

    def verdict(self, end: Head, beyond: int | None) -> Verdict:
        """What there is to say at the end of the walk."""
        found = Verdict(self.at, self._first, self._last)
        if self.fault is not None:
            return found._replace(fault=self.fault)
        if end.hash != self.at.hash:
            return found._replace(fault=f"The table audit_head has another hash than its entry {end.number}.")
        if beyond is not None:
            return found._replace(fault=f"Entry {beyond} was put in: the last one that was written is {end.number}.")
        longest = max(self._anchors, key=lambda anchor: anchor.head.number, default=Anchor(EMPTY, ""))
        if self._missed is not None:
            number, source = self._missed.head.number, self._missed.source
            fault = f"Entry {number} is another one than {source} says: the trail was made anew, there or before."
        elif longest.head.number > end.number:
            fault = (
                f"Entry {end.number + 1} is missing: by {longest.source} there were {longest.head.number}. The trail "
                "was cut off, or an older backup restored."
            )
        else:
            return found
        return found._replace(fault=fault, is_of_anchor=True)
