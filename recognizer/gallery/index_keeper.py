"""Makes the index of the templates where an import that took it away was cut off, in the background.

Workers, of replicas too, take turns, and never beside an import that has it away. A worker that ends meanwhile leaves
the database to finish.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import Self

from recognizer.deadline import Deadline
from recognizer.errors import RecognizerError
from recognizer.gallery.pool import Pool
from recognizer.gallery.template_index import TemplateIndex, is_missing

LOGGER = logging.getLogger(__name__)

EVERY_SECONDS, LONGEST_SECONDS = 60.0, 3600.0
LOOK_SECONDS = 10.0
STOP_SECONDS = 2.0


class IndexKeeper:
    """Does that from a thread of its own while entered."""

    def __init__(self, pool: Pool, index: TemplateIndex) -> None:
        self._pool = pool
        self._index = index
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(STOP_SECONDS)  # a daemon: if it waits for the database, it ends with the process

    def _run(self) -> None:
        pause = EVERY_SECONDS
        while not self._stop.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311 (not all at once)
            try:
                if self._is_missing() and self._index.mend():
                    LOGGER.info("The index of the templates, which an interrupted import had left out, is there again")
                pause = EVERY_SECONDS
            except Exception as error:  # whatever it is, it passes or somebody reads this; searches work without it
                LOGGER.warning(
                    "The index of the templates is missing, so that searches are slow, and cannot be made: %s",
                    error,
                    exc_info=not isinstance(error, RecognizerError),  # what nobody has thought of
                )
                pause = min(2 * pause, LONGEST_SECONDS)  # each attempt may take a core, and fill a disk

    def _is_missing(self) -> bool:
        with self._pool.connection(Deadline(LOOK_SECONDS)) as connection, connection.cursor() as cursor:
            return is_missing(cursor)
