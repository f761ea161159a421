"""Writing a collection to a file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np

from recognizer.deadline import Deadline
from recognizer.gallery.pool import Pool
from recognizer.gallery.transfer import Record, Vectors
from recognizer.gallery.transfer_out import Snapshot, note_export, snapshot
from recognizer.moving.archive import Writer, written
from recognizer.moving.manifest import (
    EMBEDDINGS,
    FACES,
    FORMAT,
    MANIFEST,
    PEOPLE,
    REJECTED,
    REJECTIONS,
    VERSION,
    Manifest,
)
from recognizer.moving.progress import Advance, Progress, silent

LINES_AT_ONCE = 1000


def export(
    pool: Pool, collection: str, path: Path, deadline: Deadline, *, force: bool = False, progress: Progress = silent
) -> Manifest:
    """Write all people of a collection, in the state in which it is now, to a new file.

    Args:
        force: replace a file that is there.

    Raises:
        CollectionNotFound, DatabaseUnavailable, DeadlineExceeded
        FileNotWritten: nothing is left behind then.
    """
    with written(path, force=force) as writer:
        with snapshot(pool, collection, deadline) as state:
            found = state.collection
            total = found.people + 2 * found.faces + 2 * found.rejections
            with progress("Exporting", "row", total) as advance:
                _write_members(writer, state, advance)
        manifest = Manifest(
            format=FORMAT,
            format_version=VERSION,
            exported_at=datetime.now(UTC),
            collection=found,
            members=dict(writer.members),
        )
        writer.write(MANIFEST, [manifest.model_dump_json(indent=2).encode()])
        note_export(pool, found, deadline)  # whoever cannot write that down gets no file
    return manifest


def _write_members(writer: Writer, state: Snapshot, advance: Advance) -> None:
    found = state.collection
    writer.write(PEOPLE, _lines(state.people(), advance))
    writer.write(FACES, _lines(state.faces(), advance))
    writer.write(EMBEDDINGS, _array(state.embeddings(), found.faces, advance))
    writer.write(REJECTIONS, _lines(state.rejections(), advance))
    writer.write(REJECTED, _array(state.rejected(), found.rejections, advance))


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
