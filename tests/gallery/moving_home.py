"""A gallery to export from and to import into, and exports that somebody has changed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recognizer.deadline import Deadline
from recognizer.faces import Box, NewFace, Quality
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery
from recognizer.moving.exporting import export
from recognizer.moving.importing import Import, Imported
from recognizer.moving.progress import Progress, silent
from recognizer.moving.sources import opened
from recognizer.vision.analysis import model_id

MODEL_ID = model_id("55533b28", "hog", 1)


@dataclass
class Home:
    """What is done with a database."""

    pool: Pool

    @property
    def gallery(self) -> Gallery:
        return Gallery(self.pool)

    def enrol(self, name: str, *embeddings: np.ndarray, collection: str = "default", **given: object) -> str:
        faces = [
            NewFace(n, Box(1, 2, 30, 40), Quality(0.75, ("TOO_DARK",)), embedding, MODEL_ID, bytes(np.random.bytes(32)))
            for n, embedding in enumerate(embeddings)
        ]
        return self.gallery.enrol(collection, faces, name=name, deadline=Deadline(30), **given).person_id

    def export(self, path: Path, collection: str = "default", **options: Any) -> Path:
        export(self.pool, collection, path, Deadline(60), **options)
        return path

    def bring(
        self,
        path: Path,
        collection: str | None = None,
        *,
        names: Path | None = None,
        dry_run: bool = False,
        progress: Progress = silent,
        **how: Any,
    ) -> Imported:
        with opened(path, names, MODEL_ID) as source:
            into = collection or source.collection.name
            how = {"max_photo_bytes": 1_000_000, **how}
            work = Import(self.pool, source, into, MODEL_ID, progress, **how)
            return work.preview() if dry_run else work.run()

    def empty(self) -> None:
        """As a new installation is."""
        self.gallery.delete_collection("default", Deadline(30))
        self.rows("UPDATE collections SET revision = 0, threshold = NULL, target_fpir = NULL RETURNING 1")

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        with self.pool.connection(Deadline(30)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()


def rewritten(path: Path, change: Callable[[dict[str, bytes]], object], *, honest: bool = True) -> Path:
    """A copy whose members are changed; with checksums that fit them, if `honest`."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    if honest and "manifest.json" in members:
        manifest = json.loads(members["manifest.json"])
        for name in manifest["members"]:
            if name in members:
                digest = hashlib.sha256(members[name]).hexdigest()
                manifest["members"][name] = {"bytes": len(members[name]), "sha256": digest}
        members["manifest.json"] = json.dumps(manifest).encode()
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target
