"""Bringing the people of a file into a collection: first all is checked, then it is written, some people at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from recognizer.deadline import Deadline
from recognizer.errors import FileRefused
from recognizer.faces import space_of
from recognizer.gallery import arrivals, transfer_in
from recognizer.gallery.arrivals import Tally
from recognizer.gallery.pool import Pool
from recognizer.gallery.template_index import Making, TemplateIndex
from recognizer.gallery.transfer import CollectionRecord, Incoming, evidence_constants
from recognizer.gallery.transfer_in import Target
from recognizer.moving.manifest import FACES, PEOPLE, REJECTIONS
from recognizer.moving.progress import Advance, Progress
from recognizer.moving.repeats import Repeats

FACES_AT_ONCE, PEOPLE_AT_ONCE = 200, 500
"""What is written in one transaction: cameras that enrol wait no longer than for that."""

BYTES_PER_FACE = 4_000
"""What a face of a person of its own takes in the database, while it comes in; the index and the log of writes too."""

BATCH_SECONDS = 120.0
"""How long one batch may take, the wait for the collection included."""


class Source(Protocol):
    """A file of people."""

    collection: CollectionRecord
    remarks: tuple[str, ...]
    """What whoever imports it should know."""

    def verify(self, progress: Progress) -> None:
        """Compare the file with its checksums, if it has any."""

    def read(self) -> Iterator[Incoming]:
        """Everybody in the file; may be called again."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What was done, or would be done: `made` says that the collection is new."""

    collection: str
    made: bool
    tally: Tally
    kept_settings: dict[str, Any]
    """What is set for the collection, and otherwise in the file."""


@dataclass(frozen=True, slots=True)
class Import:
    """A file, where its people are to go, and the model whose space they have to be in."""

    pool: Pool
    source: Source
    collection: str
    model_id: str
    progress: Progress
    index: TemplateIndex | None = None
    """None: the people come into the templates' index one by one, however many they are."""
    free_bytes: int | None = None
    """On the database's disk; None: nobody knows."""

    def preview(self) -> Imported:
        """Say what `run` would do, without writing anything; raises as `run` does."""
        into, expected = self._examine()
        return self._report(into, expected, made=into.id is None)

    def run(self) -> Imported:
        """Check everything and then write it.

        What was cut off, even by kill -9, is done again from the beginning and goes on where it was.

        Raises:
            FileRefused: nothing is written, unless somebody changed the collection meanwhile.
            DatabaseUnavailable, DeadlineExceeded, InvalidRequest
        """
        into, expected = self._examine()
        with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
            made = transfer_in.prepare(cursor, self.collection, self.source.collection.settings)
        figures = self._figures_from(into, expected)
        with self._index_apart(expected) as making:
            done = self._write(figures)
            if figures is not None:
                with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
                    transfer_in.finish(cursor, self.collection, self.source.collection)
            if making is not None:
                self._make_index(making)
        return self._report(into, done, made)

    def _write(self, figures: Mapping[str, int] | None) -> Tally:
        done = Tally()
        with self._progress("Importing") as advance:
            for batch in batches(self.source.read()):
                deadline = Deadline(BATCH_SECONDS)
                with self.pool.connection(deadline, is_long=True) as connection, connection.cursor() as cursor:
                    done.add(transfer_in.write(cursor, self.collection, batch, figures))
                advance(_size(batch))
        return done

    def _index_apart(self, expected: Tally) -> AbstractContextManager[Making | None]:
        return nullcontext() if self.index is None else self.index.apart(expected.templates_made)

    def _make_index(self, making: Making) -> None:
        with self.progress("Indexing", "person", making.people()) as advance:
            for more in making.steps():
                advance(more)

    def _examine(self) -> tuple[Target, Tally]:
        """Check everything, and count what would be done; nothing is written."""
        for model_id, count in self.source.collection.models.items():
            self._require_comparable("The file", model_id, f"{count:,} faces")
        self.source.verify(self.progress)
        with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
            into = transfer_in.target(cursor, self.collection)
        checks = _Checks()
        tally = Tally()
        with self._progress("Checking") as advance:
            for batch in batches(map(self._checked, self.source.read())):
                for incoming in batch:
                    checks.note(incoming)
                with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
                    tally.add(arrivals.compare(cursor, into.id, batch)[1])
                advance(_size(batch))
        checks.require_single(tally)
        self._require_room(tally)
        return into, tally

    def _require_room(self, expected: Tally) -> None:
        wanted = expected.faces * BYTES_PER_FACE
        if self.free_bytes is not None and wanted > self.free_bytes:
            raise FileRefused(
                f"{expected.faces:,} faces take about {wanted / 1e9:.1f} GB in the database, and its disk has "
                f"{self.free_bytes / 1e9:.1f} GB free; free some, or import into an installation on a larger disk."
            )

    def _report(self, into: Target, tally: Tally, made: bool) -> Imported:
        """What is to be said of it."""
        settings = {} if made or not into.people else into.settings
        of_file = self.source.collection.settings
        kept = {member: value for member, value in settings.items() if of_file.get(member, value) != value}
        return Imported(self.collection, made, tally, kept)

    def _figures_from(self, into: Target, expected: Tally) -> dict[str, int] | None:
        """See `transfer_in.write`: the figures of a file hold in a collection that will have nobody else."""
        found = self.source.collection
        if into.people != expected.same_people or found.constants != evidence_constants():
            return None
        return {
            space.name: into.changes.get(space.name, 0) + expected.templates[space.name] - space.changes
            for space in found.spaces
        }

    def _checked(self, incoming: Incoming) -> Incoming:
        photos = {face.photo_sha256 for face in incoming.faces}
        if len(photos) < len(incoming.faces):
            raise FileRefused(f"{incoming.place}: this person has two faces of one photo (photo_sha256); remove one.")
        for model_id in {face.model_id for face in incoming.faces}:
            self._require_comparable(incoming.place, model_id, "a face")
        return incoming

    def _require_comparable(self, place: str, model_id: str, what: str) -> None:
        if space_of(model_id) != space_of(self.model_id):
            raise FileRefused(
                f"{place} has {what} of the model {model_id}, which cannot be compared with those of this "
                f"installation, {self.model_id}; enrol the photos anew, or import it where that model is used."
            )

    def _progress(self, what: str) -> AbstractContextManager[Advance]:
        found = self.source.collection
        return self.progress(what, "face", found.people + found.faces)


def batches(people: Iterable[Incoming]) -> Iterator[list[Incoming]]:
    """Whole people, so many that a batch is written quickly."""
    batch: list[Incoming] = []
    faces = 0
    for incoming in people:
        if batch and (faces + len(incoming.faces) > FACES_AT_ONCE or len(batch) >= PEOPLE_AT_ONCE):
            yield batch
            batch, faces = [], 0
        batch.append(incoming)
        faces += len(incoming.faces)
    if batch:
        yield batch


def _size(batch: list[Incoming]) -> int:
    return len(batch) + sum(len(incoming.faces) for incoming in batch)


class _Checks:
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
