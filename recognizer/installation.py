"""The installation that a command is about: its database, whether the service runs or not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from recognizer.config import Settings, available_cores
from recognizer.deadline import Deadline
from recognizer.gallery.direct import connections_of_worker, direct_connection
from recognizer.gallery.migrate import migrate
from recognizer.gallery.template_index import Means
from recognizer.host import datadir
from recognizer.host.account import database_account, existing_account
from recognizer.host.datadir import AlreadyRunning
from recognizer.postgres.server import BundledPostgres

MIGRATION_SECONDS = 600.0

SPARE_CONNECTIONS = 10
"""Beyond the workers' pools: commands, dumps, what PostgreSQL reserves."""


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The URL of the database, at this version's schema, for a command: the given one, or the bundled one.

    The bundled one is that of the running service, or it is started for as long as the block lasts.

    Raises:
        DatabaseUnavailable: the given database does not answer.
        StartupError: the bundled one cannot be used, or the schema cannot be brought up to date.
    """
    deadline = Deadline(settings.start_timeout_seconds)
    with ExitStack() as closing:
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            url = _join_or_start(settings, deadline, closing)
        with direct_connection(url, deadline):
            pass  # it is there; bringing a large gallery up to date may take longer than that may
        migrate(url, MIGRATION_SECONDS)
        yield url


def index_means(settings: Settings) -> Means:
    """What making the index of the templates may take of the machine that the database is on."""
    if settings.database_url is not None:
        return Means()  # its machine is another one, perhaps
    return Means(memory_bytes=_free_memory_bytes() // 2, helpers=available_cores() - 1)


def _free_memory_bytes() -> int:
    """The machine's, or what is left of the container's."""
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no container, or no limit ("max")
        limit, used = (int(Path("/sys/fs/cgroup", f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(0, limit - used))
    return free


def free_bytes(settings: Settings) -> int | None:
    """What is free on the bundled database's disk; None for another database."""
    return None if settings.database_url is not None else shutil.disk_usage(settings.data_dir).free


@contextmanager
def lone_database(settings: Settings) -> Iterator[str]:
    """The URL of the database, as it is, while no service works on this data directory.

    Raises:
        AlreadyRunning: one does; the message says which, and to stop it.
        DatabaseUnavailable: the given database does not answer.
        StartupError: the bundled database cannot be started.
    """
    with ExitStack() as closing:
        datadir.prepare(settings.data_dir, existing_account() if settings.database_url else database_account())
        closing.enter_context(datadir.locked(settings.data_dir, address=None))
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            url = closing.enter_context(bundled_postgres(settings)).url
        with direct_connection(url, Deadline(settings.start_timeout_seconds)):
            pass
        yield url


def _join_or_start(settings: Settings, deadline: Deadline, closing: ExitStack) -> str:
    datadir.prepare(settings.data_dir, database_account())
    postgres = bundled_postgres(settings)
    while True:
        try:
            closing.enter_context(datadir.locked(settings.data_dir, address=None))
        except AlreadyRunning:
            _, address = datadir.holder(settings.data_dir)
            if address and postgres.attach():
                return postgres.url
            if not deadline.remaining_seconds():  # the service never got that far, or another command is slow
                raise
            time.sleep(0.1)
        else:
            return closing.enter_context(postgres).url


def bundled_postgres(settings: Settings) -> BundledPostgres:
    """The PostgreSQL of this data directory, with connections for as many workers as there may be."""
    of_one_server = settings.workers * connections_of_worker(settings.pool_max)  # two, while one follows the other
    return BundledPostgres(settings.data_dir, max_connections=2 * of_one_server + SPARE_CONNECTIONS)
