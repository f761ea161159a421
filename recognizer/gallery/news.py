"""News that every process of the service hears at once, through PostgreSQL's NOTIFY. Nothing is kept.

Whoever listens holds a shared advisory lock. Whoever has news tries to take it alone, which is possible only while
nobody listens; so news costs one short statement, and goes no further, as long as nobody does.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Self

import psycopg2
from psycopg2.extensions import cursor as Cursor

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import ConfigError, DatabaseUnavailable
from recognizer.gallery.connection import NO_ANSWER, connect, connection_arguments
from recognizer.gallery.pool import Pool
from recognizer.gallery.watchdog import Watchdog

CHANNEL = "recognizer_news"
SOMEBODY_LISTENS = 0x7265_636F_676E
"""The advisory lock of whoever listens; PostgreSQL's advisory locks are a database's own."""


class Ticket(NamedTuple):
    """What somebody listens with: an API key's id and when it got its secret; None: no key, while there is none."""

    key_id: str | None
    rotated_at: datetime | None = None


def publish(pool: Pool, payloads: Sequence[str], deadline: Deadline) -> None:
    """Tell everybody who listens, if anybody does. No payload twice at a time, each below 8,000 bytes.

    Raises:
        DatabaseUnavailable, DeadlineExceeded
    """
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload
            WHERE NOT pg_try_advisory_xact_lock(%s)
            """,
            (CHANNEL, list(payloads), SOMEBODY_LISTENS),
        )


class Listener:
    """Listens on a connection of its own while entered; of one thread.

    Entering and every method may raise `DatabaseUnavailable`, after `connect_timeout_seconds` at the latest.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ConfigError("The setting `database_url` is missing.")
        self._arguments = connection_arguments(settings.database_url.get_secret_value())
        self._patience_seconds = settings.connect_timeout_seconds
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            self._connection = connect(self._arguments, self._patience_seconds)
            opening.callback(self._connection.close)
            self._connection.autocommit = True
            self._watchdog = Watchdog()
            opening.callback(self._watchdog.close)
            with self._statement() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
                cursor.execute("SELECT pg_advisory_lock_shared(%s)", (SOMEBODY_LISTENS,))
            self._poller = opening.enter_context(selectors.DefaultSelector())
            self._poller.register(self._connection.fileno(), selectors.EVENT_READ)
            self._closing = opening.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def wait(self, seconds: float) -> list[str]:
        """What has been told, after `seconds` at the latest."""
        with self._in_our_words():
            if not self._connection.notifies:
                self._poller.select(seconds)
                self._connection.poll()
        told = [notice.payload for notice in self._connection.notifies]
        self._connection.notifies.clear()
        return told

    def valid(self, tickets: Sequence[Ticket]) -> set[Ticket]:
        """Which of these still allow to listen."""
        with self._statement() as cursor:
            cursor.execute(
                """
                SELECT ticket.key_id, ticket.rotated_at
                FROM unnest(%s::text[], %s::timestamptz[]) AS ticket (key_id, rotated_at)
                LEFT JOIN api_keys AS key ON key.id = ticket.key_id
                WHERE CASE WHEN ticket.key_id IS NULL THEN NOT EXISTS (SELECT FROM api_keys)
                      ELSE key.rotated_at IS NOT DISTINCT FROM ticket.rotated_at AND key.revoked_at IS NULL
                           AND coalesce(key.expires_at > now(), key.id IS NOT NULL) END
                """,
                ([ticket.key_id for ticket in tickets], [ticket.rotated_at for ticket in tickets]),
            )
            return {Ticket(*row) for row in cursor.fetchall()}

    @contextlib.contextmanager
    def _statement(self) -> Iterator[Cursor]:
        """A cursor whose statements together end in time, even where the server is frozen."""
        until = time.monotonic() + self._patience_seconds
        with (
            self._in_our_words(),
            self._watchdog.watching(self._connection, until),
            self._connection.cursor() as cursor,
        ):
            yield cursor

    @staticmethod
    @contextlib.contextmanager
    def _in_our_words() -> Iterator[None]:
        try:
            yield
        except psycopg2.Error as error:
            raise DatabaseUnavailable(NO_ANSWER) from error
