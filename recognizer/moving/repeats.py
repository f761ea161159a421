"""Finding what is in a file twice that may be there once, in 16 bytes for each line."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from recognizer.errors import FileRefused
from recognizer.gallery.arrivals import Tally
from recognizer.gallery.transfer import Incoming
from recognizer.moving.manifest import FACES, PEOPLE, REJECTIONS


class Repeats:
    """The values of one column of a member, line by line."""

    def __init__(self, member: str, what: str, advice: str) -> None:
        self._member, self._what, self._advice = member, what, advice
        self._digests = bytearray()

    def add(self, value: str | None) -> None:
        """Note the value of the next line; None is never the same as another."""
        text = f"v{value}" if value is not None else f"n{len(self._digests)}"
        self._digests += _digest(text)

    def check(self) -> None:
        """Look whether any is there twice.

        Raises:
            FileRefused: with the numbers of two lines.
        """
        noted = self._noted()
        order = np.lexsort((noted[:, 1], noted[:, 0]))
        same = (noted[order[1:]] == noted[order[:-1]]).all(axis=1)
        if (places := np.flatnonzero(same)).size:
            first, second = sorted(int(line) + 1 for line in order[places[0] : places[0] + 2])
            raise FileRefused(f"{self._member}, lines {first} and {second}: {self._what}; {self._advice}")

    def __contains__(self, value: str) -> bool:
        wanted = np.frombuffer(_digest(f"v{value}"), "<u8")
        return bool((self._noted() == wanted).all(axis=1).any())

    def _noted(self) -> NDArray[np.uint64]:
        return np.frombuffer(self._digests, "<u8").reshape(-1, 2)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Checks:
    """What may be in a file only once."""

    def __init__(self) -> None:
        once = "each may be there once."
        self._names = Repeats(PEOPLE, "both have the same name, compared without case", "make them one, or rename one.")
        self._people = Repeats(PEOPLE, "both have the same id", once)
        self._external_ids = Repeats(PEOPLE, "both have the same external_id", once)
        self._faces = Repeats(FACES, "both have the same id", once)
        self._rejections = Repeats(REJECTIONS, "both have the same id", once)

    def note(self, incoming: Incoming) -> None:
        """Remember one person."""
        self._names.add(incoming.person.name_key)
        self._people.add(str(incoming.person.id))
        self._external_ids.add(incoming.person.external_id)
        for face in incoming.faces:
            self._faces.add(str(face.id))
        for said in incoming.rejections:
            self._rejections.add(str(said.id))

    def require_single(self, tally: Tally) -> None:
        """Look at all that was noted.

        Raises:
            FileRefused
        """
        for each in (self._names, self._people, self._external_ids, self._faces, self._rejections):
            each.check()
        for place, name_key in tally.renamed:
            if name_key in self._names:
                raise FileRefused(
                    f"{place}: this person has another name in the collection, which somebody else has in the file; "
                    "rename one of the two there."
                )
