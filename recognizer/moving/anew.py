"""The faces of a file whose embeddings cannot be used here, encoded anew from the photos that are in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from recognizer.errors import DeadlineExceeded, FileRefused, ImageTooLarge, PhotoNotFound, RecognizerError, Unusable
from recognizer.faces import Face, space_of
from recognizer.gallery.arrivals import Arrival
from recognizer.gallery.transfer import FaceRecord, Incoming, IncomingPhoto
from recognizer.moving.progress import Advance
from recognizer.re_embedding import seen_again
from recognizer.vision.engine import Engine


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of a face: the face anew, or why there is none; neither where it is in the collection already."""

    name: str
    face: FaceRecord
    anew: Face | None = None
    refused: RecognizerError | None = None

    @property
    def is_there(self) -> bool:
        """Whether the collection has it already."""
        return self.anew is None and self.refused is None


@dataclass(frozen=True, slots=True)
class Anew:
    """Encodes the faces of people who arrive.

    Attributes:
        tell: told of every face, by one thread, once it is in the collection or will not be.
        threads: photos at a time; each is in memory as a whole.
        max_photo_bytes: larger ones are not even read.
    """

    engine: Engine
    tell: Callable[[Looked], object]
    threads: int
    max_photo_bytes: int

    def require_photos(self, count: int) -> None:
        """See to it that there is something to encode; raises FileRefused."""
        if not count:
            raise FileRefused(
                "The file holds no photos, so nothing in it can be encoded anew; export it with --photos where it was "
                "made and photos are kept, or enrol the photos (recognizer enroll)."
            )

    def comparable(self, incoming: Incoming) -> Incoming:
        """A person without the rejections of other models, which nothing can be made of: they come without photos."""
        here = space_of(self.engine.model_id)
        stay = [number for number, said in enumerate(incoming.rejections) if space_of(said.model_id) == here]
        return replace(
            incoming, rejections=tuple(incoming.rejections[n] for n in stay), rejected=incoming.rejected[stay]
        )

    def encode(self, arrivals: Sequence[Arrival], advance: Advance) -> tuple[list[Incoming], list[Looked]]:
        """People with those of their new faces that are found again; faces that are there already stay as they are.

        Args:
            advance: told of each face that was looked at.

        Raises:
            FileRefused: the file cannot be read any more.
        """
        people, looked = [], []
        threads = ThreadPoolExecutor(self.threads)
        try:
            begun = [
                (each.incoming, threads.map(partial(self._look, each.incoming), [face for _, face, _ in each.faces]))
                for each in arrivals
            ]
            for incoming, results in begun:
                found = []
                for one in results:
                    found.append(one)
                    advance(1)
                new = {each.face.id for each in found}
                there = [Looked(incoming.person.name, face) for face in incoming.faces if face.id not in new]
                people.append(self._with(incoming, found))
                looked += [*found, *there]
        finally:  # after Ctrl-C nothing is begun any more
            threads.shutdown(cancel_futures=True)
        return people, looked

    def _look(self, incoming: Incoming, face: FaceRecord) -> Looked:
        name = incoming.person.name
        try:
            photo = self._photo(incoming.photos.get(face.id))
            return Looked(name, face, seen_again(self.engine, photo, face.box))
        except (Unusable, PhotoNotFound, DeadlineExceeded) as error:
            return Looked(name, face, refused=error)

    def _photo(self, photo: IncomingPhoto | None) -> bytes:
        if photo is None:
            raise PhotoNotFound("The file has no photo of this face; enrol its person's photos.")
        if photo.record.photo.bytes > self.max_photo_bytes:
            raise ImageTooLarge(f"The photo has more than {self.max_photo_bytes:,} bytes (max_image_bytes).")
        return photo.read("photo")

    def _with(self, incoming: Incoming, looked: Sequence[Looked]) -> Incoming:
        """A person with new faces only; of faces that are there, and may have none yet, the photos come along."""
        seen = [(each.face, each.anew) for each in looked if each.anew is not None]
        refused = {each.face.id for each in looked if each.anew is None}
        return replace(
            incoming,
            faces=tuple(
                face.model_copy(
                    update={"model_id": self.engine.model_id, "box": anew.box, "quality": anew.quality},
                )
                for face, anew in seen
            ),
            embeddings=np.array([anew.embedding for _, anew in seen], np.float32).reshape(-1, 128),
            photos={face_id: photo for face_id, photo in incoming.photos.items() if face_id not in refused},
        )
