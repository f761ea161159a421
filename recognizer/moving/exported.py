"""Reading an export: people one after the other, each with faces and rejections, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar
from uuid import UUID

import numpy as np

from recognizer.errors import FileRefused
from recognizer.faces import Embedding
from recognizer.gallery.photos import Kind
from recognizer.gallery.transfer import (
    CollectionRecord,
    FaceRecord,
    Incoming,
    IncomingPhoto,
    PersonRecord,
    PhotoRecord,
    RejectionRecord,
    VectorRecord,
    Vectors,
)
from recognizer.moving.archive import Archive
from recognizer.moving.manifest import EMBEDDINGS, FACES, PEOPLE, REJECTED, REJECTIONS, parsed, picture
from recognizer.moving.progress import Progress
from recognizer.moving.vectors import check_faces, check_rejections

OfPerson = TypeVar("OfPerson", bound=VectorRecord)


class Exported:
    """An export as a source of people; `read` may be called again."""

    def __init__(self, path: Path, archive: Archive) -> None:
        self.path = path
        self._archive = archive
        self.collection: CollectionRecord = archive.manifest.collection
        self.remarks: tuple[str, ...] = ()

    def verify(self, progress: Progress) -> None:
        """Compare the file with its checksums.

        Raises:
            FileRefused
        """
        with progress("Verifying", "B", self._archive.size_bytes) as advance:
            self._archive.verify(advance)

    def read(self) -> Iterator[Incoming]:
        """Everybody in the file.

        Raises:
            FileRefused: a line or a row is not what it has to be; the message has its place.
        """
        found = self.collection
        faces = _Beside(
            FaceRecord,
            self._archive.lines(FACES, found.faces),
            _rows(self._archive.vectors(EMBEDDINGS, found.faces), EMBEDDINGS, check_faces),
        )
        rejections = _Beside(
            RejectionRecord,
            self._archive.lines(REJECTIONS, found.rejections),
            _rows(self._archive.vectors(REJECTED, found.rejections), REJECTED, check_rejections),
        )
        photos = _Photos(self._archive)
        for place, line in self._archive.lines(PEOPLE, found.people):
            person = parsed(PersonRecord, place, line)
            of_person, embeddings = faces.of(person)
            rejected_of_person, rejected = rejections.of(person)
            kept = photos.of(of_person)
            yield Incoming(place, person, of_person, embeddings, rejected_of_person, rejected, kept)
        faces.end()
        photos.end()
        rejections.end()


class _Beside(Generic[OfPerson]):
    """Lines that go with the rows of an array, taken person by person."""

    def __init__(self, kind: type[OfPerson], lines: Iterator[tuple[str, bytes]], rows: Iterator[Embedding]) -> None:
        self._kind = kind
        self._lines = lines
        self._rows = rows
        self._next: tuple[str, OfPerson] | None = self._parse_next()

    def of(self, person: PersonRecord) -> tuple[tuple[OfPerson, ...], Vectors]:
        """What is the person's, if it comes next."""
        records: list[OfPerson] = []
        rows: list[Embedding] = []
        while self._next is not None and self._next[1].person_id == person.id:
            records.append(self._next[1])
            rows.append(next(self._rows))
            self._next = self._parse_next()
        return tuple(records), np.array(rows, np.float32).reshape(-1, 128)

    def end(self) -> None:
        """Nothing may be left over."""
        if self._next is not None:
            raise FileRefused(
                f"{self._next[0]}: its person is not in {PEOPLE} or not at this place; lines have to be in the order "
                "of the people, all of a person together."
            )

    def _parse_next(self) -> tuple[str, OfPerson] | None:
        if (following := next(self._lines, None)) is None:
            return None
        return following[0], parsed(self._kind, *following)


class _Photos:
    """Lines about kept photos, taken person by person."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lines = archive.photos()
        self._next = next(self._lines, None)

    def of(self, faces: tuple[FaceRecord, ...]) -> dict[UUID, IncomingPhoto]:
        """The photos of a person's faces, if they come next; some faces have none."""
        found: dict[UUID, IncomingPhoto] = {}
        for face in faces:
            if self._next is not None and self._next[1].face_id == face.id:
                place, record = self._next
                if record.photo.sha256 != face.photo_sha256:
                    raise FileRefused(f"{place}: this is not the photo of the face, whose photo_sha256 is another.")
                found[face.id] = IncomingPhoto(record, self._reader(record))
                self._next = next(self._lines, None)
        return found

    def end(self) -> None:
        """Nothing may be left over."""
        if self._next is not None:
            raise FileRefused(
                f"{self._next[0]}: its face is not in {FACES} or not at this place; lines have to be in the order of "
                "the faces."
            )

    def _reader(self, record: PhotoRecord) -> Callable[[Kind], bytes]:
        members = {"photo": record.photo, "chip": record.chip}
        return lambda kind: self._archive.picture(picture(kind, record.face_id), members[kind])


def _rows(blocks: Iterator[Vectors], member: str, check: Callable[[str, int, Vectors], None]) -> Iterator[Embedding]:
    """Row by row, each one checked."""
    done = 0
    for block in blocks:
        check(member, done + 1, block)
        done += len(block)
        yield from block
