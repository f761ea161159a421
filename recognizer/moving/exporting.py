"""Writing a collection to a file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import cast
from uuid import UUID

import numpy as np

from recognizer.deadline import Deadline
from recognizer.errors import SealBroken
from recognizer.gallery.photos import place
from recognizer.gallery.pool import Pool
from recognizer.gallery.transfer import CollectionRecord, ImageType, PhotoRecord, Record, Vectors
from recognizer.gallery.transfer_out import SealedPhoto, Snapshot, note_export, snapshot
from recognizer.keyring import Keyring
from recognizer.moving.archive import Writer, written
from recognizer.moving.manifest import (
    EMBEDDINGS,
    FACES,
    FORMAT,
    MANIFEST,
    PEOPLE,
    PHOTOS,
    REJECTED,
    REJECTIONS,
    VERSION,
    Manifest,
    picture,
)
from recognizer.moving.progress import Advance, Progress, silent

LINES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Export:
    """What is in a file that was written, and how many photos are not, because they cannot be decrypted."""

    collection: CollectionRecord
    damaged_photos: int


def export(
    pool: Pool,
    collection: str,
    path: Path,
    deadline: Deadline,
    *,
    photos: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> Export:
    """Write all people of a collection, in the state in which it is now, to a new file.

    Args:
        photos: kept photos go along, in clear.
        force: replace a file that is there.

    Raises:
        CollectionNotFound, DatabaseUnavailable, DeadlineExceeded
        EncryptionKeyMissing: some photos need a key that is not there.
        FileNotWritten: nothing is left behind then.
    """
    with written(path, force=force) as writer:
        with snapshot(pool, collection, deadline) as state:
            kept = state.photo_keys() if photos else {}
            if kept:
                pool.keyring.require(kept)
            found = state.collection
            total = found.people + 2 * found.faces + 2 * found.rejections + sum(kept.values())
            with progress("Exporting", "row", total) as advance:
                _write_members(writer, state, advance)
                with_photo = _write_photos(writer, state.photos(), pool.keyring, advance) if kept else 0
        found = found.model_copy(update={"photos": with_photo})
        manifest = Manifest(
            format=FORMAT,
            format_version=VERSION,
            exported_at=datetime.now(UTC),
            collection=found,
            members=dict(writer.members),
        )
        writer.write(MANIFEST, [manifest.model_dump_json(indent=2).encode()])
        note_export(pool, found, deadline)  # whoever cannot write that down gets no file
    return Export(found, sum(kept.values()) - with_photo)


def _write_members(writer: Writer, state: Snapshot, advance: Advance) -> None:
    found = state.collection
    writer.write(PEOPLE, _lines(state.people(), advance))
    writer.write(FACES, _lines(state.faces(), advance))
    writer.write(EMBEDDINGS, _array(state.embeddings(), found.faces, advance))
    writer.write(REJECTIONS, _lines(state.rejections(), advance))
    writer.write(REJECTED, _array(state.rejected(), found.rejections, advance))


def _write_photos(writer: Writer, photos: Iterable[SealedPhoto], keyring: Keyring, advance: Advance) -> int:
    """Write what can be decrypted, and return how many photos that are."""
    lines: list[bytes] = []
    for sealed in photos:
        face_id = sealed.face_id
        try:
            photo = keyring.open(bytes(sealed.photo), place("photo", face_id))
            chip = keyring.open(bytes(sealed.chip), place("chip", face_id))
        except SealBroken:
            continue
        record = PhotoRecord(
            face_id=UUID(face_id),
            media_type=cast(ImageType, sealed.media_type),
            photo=writer.add(picture("photo", face_id), [photo]),
            chip=writer.add(picture("chip", face_id), [chip]),
        )
        lines.append(record.model_dump_json().encode() + b"\n")
        advance(1)
    writer.write(PHOTOS, lines)
    return len(lines)


def _lines(records: Iterable[Record], advance: Advance) -> Iterator[bytes]:
    """JSON, one record a line."""
    remaining = iter(records)
    while some := [record.model_dump_json() for record in islice(remaining, LINES_AT_ONCE)]:
        yield ("\n".join(some) + "\n").encode()
        advance(len(some))


def _array(blocks: Iterable[Vectors], count: int, advance: Advance) -> Iterator[bytes]:
    """A float32 array of shape (count, 128) as NumPy's format 1.0 has it."""
    header = io.BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": (count, 128)}
    np.lib.format.write_array_header_1_0(header, form)
    yield header.getvalue()
    for block in blocks:
        yield block.astype("<f4").tobytes()
        advance(len(block))
