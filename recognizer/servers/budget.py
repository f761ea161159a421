"""The memory that one worker may have; a worker beyond it finishes its requests and makes room for a fresh one."""

from __future__ import annotations

import logging
import time

import psutil

LOGGER = logging.getLogger(__name__)

YOUNG_SECONDS = 30.0
"""A worker is not replaced before: a budget below what the models need must not become an endless restart."""

PAUSE_SECONDS = 5.0


class MemoryBudget:
    """Looks at this process's resident memory every few seconds; open it after the fork."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._process = psutil.Process()
        self._next = time.monotonic() + YOUNG_SECONDS

    def is_spent(self) -> bool:
        """Whether the worker should go; cheap enough to be asked at every turn of a loop."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + PAUSE_SECONDS
        memory = self._process.memory_info().rss
        if memory <= self._max_bytes:
            return False
        LOGGER.warning(
            "This worker has %d MB, its budget is %d MB; it finishes its requests and is replaced",
            memory >> 20,
            self._max_bytes >> 20,
        )
        return True
