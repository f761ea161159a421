"""A PostgreSQL for a benchmark: the bundled one, in a temporary folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recognizer.host import datadir
from recognizer.host.account import database_account
from recognizer.postgres.server import BundledPostgres


@contextlib.contextmanager
def database(url: str | None = None) -> Iterator[tuple[str, int | None]]:
    """A database of our own, or the one that is given: its URL and, if it is ours, the server's process id."""
    if url:
        yield url, None
        return
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # PostgreSQL may run as another user
        data = Path(folder) / "data"
        datadir.prepare(data, database_account())
        with BundledPostgres(data) as server:
            yield server.url, server.pid
