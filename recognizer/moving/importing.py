"""Bringing the people of a file into a collection: first all is checked, then it is written, some people at a time."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recognizer.deadline import Deadline
from recognizer.errors import FileRefused
from recognizer.faces import space_of
from recognizer.gallery import arrivals, sealing, transfer_in
from recognizer.gallery.arrivals import Arrival, Tally
from recognizer.gallery.pool import Pool
from recognizer.gallery.template_index import Making, TemplateIndex
from recognizer.gallery.transfer import CollectionRecord, Incoming, evidence_constants
from recognizer.gallery.transfer_in import Target
from recognizer.moving.progress import Advance, Progress
from recognizer.moving.repeats import Checks

if TYPE_CHECKING:  # it loads the libraries that find faces
    from recognizer.moving.anew import Anew

FACES_AT_ONCE, PEOPLE_AT_ONCE, PHOTO_BYTES_AT_ONCE = 200, 500, 64 * 2**20
"""What is written in one transaction: cameras that enrol wait no longer than for that."""

FACES_ANEW_AT_ONCE = 32
"""The same where faces are encoded anew: a few seconds' work, so that no more is lost when it is cut off."""

BYTES_PER_FACE = 4_000
"""What a face of a person of its own takes in the database, while it comes in; the index and the log of writes too."""

BATCH_SECONDS = 120.0
"""How long one batch may take, the wait for the collection included."""


class Source(Protocol):
    """A file of people."""

    path: Path
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
    rejections_left_out: int
    """Of other models, where faces are encoded anew."""


@dataclass(frozen=True, slots=True)
class Import:
    """A file, where its people are to go, and the model whose space they have to be in.

    Attributes:
        max_photo_bytes: what this installation takes of a photo.
        anew: encodes the faces anew from the file's photos; without it the embeddings of the file are taken.
        index: the templates'; without it people come into it one by one, however many they are.
        free_bytes: on the database's disk; None: nobody knows.
    """

    pool: Pool
    source: Source
    collection: str
    model_id: str
    progress: Progress
    max_photo_bytes: int
    anew: Anew | None = None
    index: TemplateIndex | None = None
    free_bytes: int | None = None

    def preview(self) -> Imported:
        """Say what `run` would do, without writing anything; raises as `run` does."""
        into, expected = self._examine()
        if self.anew is not None:
            expected = self._bring(into.id, None, write=False)
        return self._report(into, expected, made=into.id is None)

    def run(self) -> Imported:
        """Check everything and then write it.

        What was cut off, even by kill -9, is done again from the beginning and goes on where it was.

        Raises:
            FileRefused: nothing is written, unless somebody changed the collection meanwhile.
            DatabaseUnavailable, DeadlineExceeded, InvalidRequest
            Conflict: these are more faces than can be encrypted.
            EncryptionKeyMissing: photos are to be kept, or embeddings to be encrypted.
        """
        into, expected = self._examine()
        with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
            made = transfer_in.prepare(cursor, self.collection, self.source.collection.settings)
            now = transfer_in.target(cursor, self.collection)
        figures = self._figures_from(into, expected)
        with self._index_apart(now, expected) as making:
            done = self._bring(now.id, figures, write=True)
            if figures is not None:
                with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
                    transfer_in.finish(cursor, self.collection, self.source.collection)
            if making is not None:
                self._make_index(making)
        return self._report(into, done, made)

    def _index_apart(self, now: Target, expected: Tally) -> AbstractContextManager[Making | None]:
        """The templates' index away, if that pays; encrypted ones are in none."""
        if self.index is None or now.settings["encrypt_embeddings"]:
            return nullcontext()
        return self.index.apart(expected.templates_made)

    def _make_index(self, making: Making) -> None:
        with self.progress("Indexing", "person", making.people()) as advance:
            for more in making.steps():
                advance(more)

    def _bring(self, collection_id: int | None, figures: dict[str, int] | None, *, write: bool) -> Tally:
        """Take person after person out of the file, encode their faces anew if that is wanted, and write them."""
        done = Tally()
        with self._progress("Importing" if self.anew is None else "Encoding anew") as advance:
            for batch in self._batches():
                if self.anew is None:
                    done.add(self._written(batch, figures))
                    advance(_size(batch))
                    continue
                people, looked = self.anew.encode(self._compared(collection_id, batch)[0], advance)
                done.add(self._written(people, None) if write else self._compared(collection_id, people)[1])
                for each in looked:
                    self.anew.tell(each)
                there = sum(each.is_there for each in looked)
                done.faces_there += there
                advance(len(batch) + there)
        return done

    def _batches(self) -> Iterator[list[Incoming]]:
        return batches(self._people(), FACES_AT_ONCE if self.anew is None else FACES_ANEW_AT_ONCE)

    def _people(self) -> Iterator[Incoming]:
        people = self.source.read()
        return people if self.anew is None else map(self.anew.comparable, people)

    def _compared(self, collection_id: int | None, batch: list[Incoming]) -> tuple[list[Arrival], Tally]:
        with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
            return arrivals.compare(cursor, collection_id, batch)

    def _written(self, batch: list[Incoming], figures: dict[str, int] | None) -> Tally:
        deadline = Deadline(BATCH_SECONDS)
        with self.pool.connection(deadline, is_long=True) as connection, connection.cursor() as cursor:
            return transfer_in.write(cursor, self.collection, batch, figures)

    def _examine(self) -> tuple[Target, Tally]:
        """Check everything, and count what would be done; nothing is written."""
        found = self.source.collection
        if self.anew is not None:
            self.anew.require_photos(found.photos)
        for model_id, count in found.models.items():
            self._require_comparable("The file", model_id, f"{count:,} faces")
        self.source.verify(self.progress)
        with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
            into = transfer_in.target(cursor, self.collection)
        encrypted = (found if into.id is None else into).settings.get("encrypt_embeddings")
        if encrypted or (into.keeps_photos and found.photos):
            self.pool.keyring.require()
        checks = Checks()
        tally = Tally()
        with self._progress("Checking") as advance:
            for batch in batches(self._checked(each, into) for each in self._people()):
                for incoming in batch:
                    checks.note(incoming)
                tally.add(self._compared(into.id, batch)[1])
                advance(_size(batch))
        checks.require_single(tally)
        if encrypted:
            with self.pool.connection(Deadline(BATCH_SECONDS)) as connection, connection.cursor() as cursor:
                sealing.require_room(cursor, into.id, tally.faces)
        self._require_room(tally)
        return into, tally

    def _require_room(self, expected: Tally) -> None:
        wanted = expected.faces * BYTES_PER_FACE + expected.photo_bytes
        if self.free_bytes is not None and wanted > self.free_bytes:
            raise FileRefused(
                f"{expected.faces:,} faces and {expected.photos:,} photos take about {wanted / 1e9:.1f} GB in the "
                f"database, and its disk has {self.free_bytes / 1e9:.1f} GB free; free some, or import into an "
                "installation on a larger disk."
            )

    def _report(self, into: Target, tally: Tally, made: bool) -> Imported:
        """What is to be said of it."""
        own = {} if made else into.settings
        of_file = self.source.collection.settings
        kept = {
            member: value
            for member, value in own.items()
            if of_file.get(member, value) != value and (value is not None or into.people)
        }
        rejections = self.source.collection.rejections - tally.rejections - tally.rejections_there
        return Imported(self.collection, made, tally, kept, rejections)

    def _figures_from(self, into: Target, expected: Tally) -> dict[str, int] | None:
        """See `transfer_in.write`: the figures of a file hold in a collection that will have nobody else."""
        found = self.source.collection
        if self.anew is not None or into.people != expected.same_people or found.constants != evidence_constants():
            return None
        return {
            space.name: into.changes.get(space.name, 0) + expected.templates[space.name] - space.changes
            for space in found.spaces
        }

    def _checked(self, incoming: Incoming, into: Target) -> Incoming:
        photos = {face.photo_sha256 for face in incoming.faces}
        if len(photos) < len(incoming.faces):
            raise FileRefused(f"{incoming.place}: this person has two faces of one photo (photo_sha256); remove one.")
        for model_id in {face.model_id for face in incoming.faces}:
            self._require_comparable(incoming.place, model_id, "a face")
        largest = max((photo.record.photo.bytes for photo in incoming.photos.values()), default=0)
        if into.keeps_photos and self.anew is None and largest > self.max_photo_bytes:
            raise FileRefused(
                f"{incoming.place}: a photo of this person has {largest:,} bytes, and this installation takes "
                f"{self.max_photo_bytes:,}; set max_image_bytes higher."
            )
        return incoming

    def _require_comparable(self, place: str, model_id: str, what: str) -> None:
        if self.anew is not None or space_of(model_id) == space_of(self.model_id):
            return
        if self.source.collection.photos:
            command = ["recognizer", "import", str(self.source.path), "--re-embed"]
            if self.collection != self.source.collection.name:
                command += ["--collection", self.collection]
            advice = f"encode the faces anew, from the photos that the file holds: {shlex.join(command)}"
        else:
            advice = (
                "export it again with --photos where it was made, if photos are kept there, and import that with "
                "--re-embed; or enrol the photos anew (recognizer enroll)."
            )
        raise FileRefused(
            f"{place} has {what} of the model {model_id}, which cannot be compared with those of this "
            f"installation, {self.model_id}; {advice}"
        )

    def _progress(self, what: str) -> AbstractContextManager[Advance]:
        found = self.source.collection
        return self.progress(what, "face", found.people + found.faces)


def batches(people: Iterable[Incoming], faces_at_once: int = FACES_AT_ONCE) -> Iterator[list[Incoming]]:
    """Whole people, so many that a batch is written quickly."""
    batch: list[Incoming] = []
    faces = photo_bytes = 0
    for incoming in people:
        faces += len(incoming.faces)
        photo_bytes += (more := sum(photo.record.photo.bytes for photo in incoming.photos.values()))
        if batch and (faces > faces_at_once or photo_bytes > PHOTO_BYTES_AT_ONCE or len(batch) >= PEOPLE_AT_ONCE):
            yield batch
            batch, faces, photo_bytes = [], len(incoming.faces), more
        batch.append(incoming)
    if batch:
        yield batch


def _size(batch: list[Incoming]) -> int:
    return len(batch) + sum(len(incoming.faces) for incoming in batch)
