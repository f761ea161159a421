"""How much a worker takes on at a time, from the settings and what the system allows."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass

from recognizer.config import Settings

FILES = 2**16
"""File descriptors a worker asks for; the soft limit of 1,024 that is common is kept for programs that use select()."""

SPARE_FILES = 256  # models, database connections, log, metrics
REFERENCE_SECONDS = 60.0  # the reference engine takes half a minute for one large photo


@dataclass(frozen=True, slots=True)
class Limits:
    """What the reception of a worker allows."""

    threads: int
    queue_length: int
    connections: int
    request_bytes: int
    held_bytes: int
    idle_seconds: float
    receive_seconds: float
    queue_seconds: float
    send_seconds: float
    stuck_seconds: float

    @classmethod
    def of(cls, settings: Settings, *, threads: int, connections: int, idle_seconds: float) -> Limits:
        """The limits of one worker; the arguments are gunicorn's options, which the operator may have changed."""
        stuck = 2 * settings.request_timeout_seconds
        return cls(
            threads=threads,
            queue_length=settings.queue_length,
            connections=max(8, min(connections, allowed_files() - SPARE_FILES)),
            request_bytes=settings.max_request_bytes,
            held_bytes=max(2 * settings.max_request_bytes, settings.worker_memory_bytes // 4),
            idle_seconds=idle_seconds,
            receive_seconds=settings.request_timeout_seconds,
            queue_seconds=settings.queue_timeout_seconds,
            send_seconds=settings.request_timeout_seconds,
            stuck_seconds=stuck if settings.engine == "onnx" else max(stuck, REFERENCE_SECONDS),
        )


def allowed_files() -> int:
    """Raise the limit of open files as far as we may, and return it."""
    if sys.platform == "win32":
        return FILES  # it has no such limit
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return FILES if soft == resource.RLIM_INFINITY else soft
