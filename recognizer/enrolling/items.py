"""The words of a mass enrolment: a photo to enrol, where it comes from, what came of it, who enrols it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Status = Literal["enrolled", "already_enrolled", "would_enrol", "refused", "skipped", "failed"]

NOT_A_PHOTO = "not_a_photo"
"""The one reason to be skipped that leaves no photo out."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a photo.

    `reasons` are code words: why it is not enrolled, or what is to be looked at though it is. The issues of a face's
    quality are in capitals, such as LOW_SHARPNESS. `detail` is a sentence for people.
    """

    status: Status
    reasons: tuple[str, ...] = ()
    detail: str = ""
    person_id: str = ""
    face_id: str = ""
    quality: float | None = None

    @property
    def is_left_out(self) -> bool:
        """Whether a photo is not enrolled that was to be."""
        return self.status in ("refused", "failed") or (self.status == "skipped" and NOT_A_PHOTO not in self.reasons)


class NoPhoto(Exception):
    """A photo cannot be had; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Item:
    """A photo of a person: `label` says in the report which one it is; `read` gets its bytes, or raises `NoPhoto`."""

    label: str
    person: str
    read: Callable[[], bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report."""

    label: str
    person: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Manner:
    """How photos are enrolled; `actor` is who does it, for the audit trail of this installation."""

    collection: str
    create_collection: bool = False
    largest_face: bool = False
    dry_run: bool = False
    actor: str = "recognizer enroll"


class Source(Protocol):
    """Where photos come from. Whoever reads it is in one thread; `Item.read` is called in others."""

    def count(self) -> int:
        """How many photos, and rows for what is none, there are about."""

    def __iter__(self) -> Iterator[Item | Row]:
        """The photos, those of a person one after the other, and what is known to be none."""


class Enroller(Protocol):
    """Remembers photos; used by several threads at a time."""

    batch: int
    """So many photos of a person it takes at once, at most."""

    def enrol(self, person: str, photos: Sequence[bytes]) -> list[Outcome]:
        """What came of each photo, in order.

        Raises:
            RecognizerError: there is no use in going on.
        """
