"""When each key was last used: remembered here, and written for all keys at once, now and then."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import Self

from recognizer.deadline import Deadline
from recognizer.errors import DatabaseUnavailable, DeadlineExceeded
from recognizer.gallery.pool import Pool

LOGGER = logging.getLogger(__name__)

FLUSH_SECONDS = 60.0
WRITE_SECONDS = 5.0


class KeyUses:
    """Takes note of uses, and writes them from a thread of its own while entered, and at its end.

    What a killed process has not written is lost, and what cannot be written is let go: it is a hint for people.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._last: dict[str, datetime] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-uses", daemon=True)

    def note(self, key_id: str) -> None:
        """Remember that the key is used at this moment."""
        with self._lock:
            self._last[key_id] = datetime.now(UTC)

    def flush(self) -> None:
        """Write what has been noted. A key that another worker is writing just now is passed over."""
        with self._lock:
            last, self._last = self._last, {}
        if not last:
            return
        try:
            with self._pool.connection(Deadline(WRITE_SECONDS)) as connection, connection.cursor() as cursor:
                cursor.execute(
                    """
                    UPDATE api_keys AS key SET last_used_at = used.at
                    FROM unnest(%s::text[], %s::timestamptz[]) AS used (id, at)
                    WHERE key.id = used.id AND coalesce(key.last_used_at < used.at, true)
                      AND key.id IN (SELECT id FROM api_keys WHERE id = ANY (%s) FOR UPDATE SKIP LOCKED)
                    """,
                    (list(last), list(last.values()), list(last)),
                )
        except (DatabaseUnavailable, DeadlineExceeded) as error:
            LOGGER.debug("The last use of %d keys could not be written: %s", len(last), error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(WRITE_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self.flush()
        self.flush()
