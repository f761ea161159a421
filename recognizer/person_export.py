"""All that is held on a person as a ZIP file, for whoever it is about to read; made one photo at a time.

Nothing of it is ever on a disk, and no more of it in memory than a photo and what is known beside photos.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from recognizer import __version__
from recognizer.errors import EncryptionKeyMissing, PhotoNotFound, SealBroken
from recognizer.gallery.holdings import Held
from recognizer.gallery.photos import KeptImage, Kind

PIECE_BYTES = 2**16

SUFFIXES = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/bmp": "bmp",
    "image/tiff": "tif",
}

README = """\
What this service holds on {name}
{line}

This file was made on {made} (UTC) by the face recognition service "recognizer", version {version}. It holds everything
that the service has stored about one person. The service recognises faces: it compares the faces in new photos with
faces that were given to it before, together with a name. To give it a face with a name is called to enrol.

Number of faces enrolled: {faces}. Number of photos kept: {photos}.

The files
---------

photos/       The photos that were enrolled, exactly as they were sent. {photos_say}
chips/        Of each of these photos the part with the face, turned upright, 150 pixels wide. This small picture is
              what the service really looks at.
person.json   Everything else, as text. Any text editor opens it. What is in it is explained below.
numbers.json  The faces as numbers, 128 for each. A computer made them of the small pictures, such that two photos of
              one person have similar numbers. They are what the service compares. A single one of them means nothing,
              it is not the width of a nose or the colour of an eye; but all together they recognise a person, so they
              should be treated as carefully as a photo.

What person.json holds
----------------------

people            The person: name, the collection (the group of people that is searched together), external_id and
                  metadata (what the operator of the service has noted), and since when the person is known.
                  name_key is the name as it is compared, in small letters.
faces             Each face that was enrolled: where in its photo it is (box_left, box_top, box_right, box_bottom, in
                  pixels from the top left corner), how good the picture is (quality_score from 0, useless, to 1, and
                  quality_issues, what is wrong with it), which version of the software has looked at it (model_id),
                  and photo_sha256, a fingerprint by which the same photo is known again; the photo cannot be made of
                  it. files says which files belong to it here, or why there are none.
photos            What is noted of kept photos beside the pictures: their kind, and by which key they are encrypted.
templates         What the faces of the person have in common, as numbers (in numbers.json), and of how many faces it
                  was made.
cohorts           How similar the person is to those who look most alike in the same collection, as one number. Nobody
                  else is named.
rejections        Faces of which somebody has said that they are not this person, kept so that the service does not
                  make that mistake again. They are faces of somebody else.
idempotency_keys  The answers to enrolments of the last day, kept so that a request that is sent twice by accident is
                  not carried out twice.
audit             What was done with the data of this person: when (at), what (action), and by whom (actor: the id of
                  a key that a program or a person uses the service with). subject stands for the person.

All times are in UTC. Names that end in _id and hash are internal numbers.

Whoever operates the service can correct all this, and erase it.
"""


class _Sink(io.RawIOBase):
    """Where the ZIP file is written to: it keeps what was written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        held, self._held = bytes(self._held), bytearray()
        return held


def export(held: Held, image: Callable[[str, Kind], KeptImage]) -> Iterator[bytes]:
    """The ZIP file in pieces of some tens of kilobytes.

    Args:
        image: reads a kept image, by the face's id; a photo that was erased since, or cannot be decrypted, is left out,
            and person.json says so.
    """
    sink = _Sink()
    made = datetime.now(UTC)
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("README.txt", made), _readme(held, made))
        yield sink.take()
        files: dict[str, list[str]] = {}
        for face_id in held.kept:
            files[face_id] = []
            for kind in ("photo", "chip"):
                yield from _add_image(archive, sink, made, face_id, kind, image, files[face_id])
        numbers, plain = _split(held.tables)
        for face in plain["faces"]:
            face["files"] = files.get(face["id"], [])
        about = {"format": "recognizer person 1", "made_at": made.isoformat(), "person_id": held.person_id}
        for name, content in (("person.json", {**about, **plain}), ("numbers.json", {**about, **numbers})):
            text = json.dumps(content, ensure_ascii=False, indent=2 if name == "person.json" else None)
            archive.writestr(_entry(name, made), text)
            yield from _pieces(sink.take())
    yield sink.take()


def _add_image(
    archive: zipfile.ZipFile,
    sink: _Sink,
    made: datetime,
    face_id: str,
    kind: Kind,
    image: Callable[[str, Kind], KeptImage],
    files: list[str],
) -> Iterator[bytes]:
    try:
        found = image(face_id, kind)
    except (PhotoNotFound, SealBroken, EncryptionKeyMissing) as error:
        files.append(f"no {kind}: {error}")
        return
    name = f"{kind}s/{face_id}.{SUFFIXES.get(found.media_type, 'bin')}"
    entry = _entry(name, made)
    entry.compress_type = zipfile.ZIP_STORED  # it is compressed already
    entry.file_size = len(found.data)
    with archive.open(entry, "w") as file:
        for piece in _pieces(found.data):
            file.write(piece)
            yield sink.take()
    files.append(name)


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


def _entry(name: str, made: datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, made.timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def _readme(held: Held, made: datetime) -> str:
    title = f"What this service holds on {held.name}"
    return README.format(
        name=held.name,
        line="=" * len(title),
        made=f"{made:%Y-%m-%d %H:%M}",
        version=__version__,
        faces=len(held.tables["faces"]),
        photos=len(held.kept),
        photos_say="Each has the number (id) of its face as its name."
        if held.kept
        else "None are kept of this person; the service needs only the numbers.",
    )


def _split(tables: Mapping[str, list[dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The embeddings, and everything else, by table."""
    numbers: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for table, rows in tables.items():
        plain[table] = [{name: value for name, value in row.items() if name != "embedding"} for row in rows]
        if any("embedding" in row for row in rows):
            numbers[table] = [
                {name: value for name, value in row.items() if name in IDENTITY or name == "embedding"} for row in rows
            ]
    return numbers, plain


IDENTITY = ("id", "person_id", "space_id", "model_id")
"""By what a row of numbers is told from others."""
