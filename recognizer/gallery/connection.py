"""A connection to PostgreSQL: opened within a time, and such that another thread can cut it off."""

from __future__ import annotations

import contextlib
import math
import random
import select
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import psycopg2
import psycopg2.extensions
from numpy.typing import NDArray
from pgvector.psycopg2 import register_vector
from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor

from recognizer.errors import ConfigError, DatabaseUnavailable
from recognizer.keyring import Keyring

NO_ANSWER = "The database does not answer; try again in a few seconds."

DEFAULTS = {
    "application_name": "recognizer",
    "client_encoding": "UTF8",  # names are Unicode whatever the database's own encoding
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
"""What a connection has unless the URL says otherwise."""

MAX_AGE_SECONDS = 3600.0
"""About when a connection is renewed; jittered, so that not all are renewed at once."""


class Connection(psycopg2.extensions.connection):
    """psycopg2's connection, with a second handle on its socket by which another thread can cut it off."""

    def __init__(self, dsn: str, **arguments: Any) -> None:
        super().__init__(dsn, **arguments)
        self.keyring = Keyring()  # what is stored encrypted is read and written with it; the pool has the keys
        self.returned_at = time.monotonic()
        self.expires_at = self.returned_at + MAX_AGE_SECONDS * random.uniform(0.9, 1.0)  # noqa: S311 (jitter)
        # A duplicate: libpq closes its own descriptor whenever it likes, and the number may then be
        # somebody else's file by the time the watchdog wants to shut it down. (The family is a label.)
        self._wire = socket.fromfd(self.fileno(), socket.AF_INET, socket.SOCK_STREAM)

    def cut(self) -> None:
        """Shut the socket down: a call that waits on it in any thread fails at once."""
        with contextlib.suppress(OSError):  # it is down already
            self._wire.shutdown(socket.SHUT_RDWR)

    def is_quiet(self) -> bool:
        """Whether nothing has come in unasked; something has when the server ended the connection."""
        try:
            readable, _, _ = select.select([self._wire], [], [], 0)
        except (OSError, ValueError):  # closed; or a descriptor beyond select's reach: ask the server
            return False
        return not readable

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._wire.close()


def keyring_of(cursor: Cursor) -> Keyring:
    """The keys that came with the cursor's connection."""
    connection = cursor.connection
    assert isinstance(connection, Connection)  # the pool has no others
    return connection.keyring


def connection_arguments(url: str) -> dict[str, Any]:
    """What `connect` needs to know, taken from the database's URL.

    Raises:
        ConfigError: the URL cannot be understood.
    """
    try:
        return {**DEFAULTS, **psycopg2.extensions.parse_dsn(url)}
    except psycopg2.ProgrammingError:
        # not chained: the driver's message may quote the password
        raise ConfigError(
            "Impossible setting `database_url`: it must look like postgresql://user:password@host:5432/name."
        ) from None


def connect(arguments: Mapping[str, Any], timeout_seconds: float) -> Connection:
    """Open a connection, not set up yet, within the time, whatever name servers or the database do.

    Raises:
        DatabaseUnavailable: it cannot be opened, or not in time.
    """
    attempt: Future[Connection] = Future()
    # its own limit ends the thread, the wait below ends the caller's patience
    arguments = {**arguments, "connect_timeout": _seconds_for_each(arguments, timeout_seconds)}
    threading.Thread(target=_open, args=(attempt, arguments), name="database-connect", daemon=True).start()
    try:
        return attempt.result(timeout_seconds)
    except TimeoutError as error:
        attempt.add_done_callback(_close_unwanted)
        raise DatabaseUnavailable(NO_ANSWER) from error
    except (psycopg2.Error, OSError, ValueError) as error:
        raise DatabaseUnavailable(NO_ANSWER) from error


def _seconds_for_each(arguments: Mapping[str, Any], timeout_seconds: float) -> int:
    """libpq's limit, which begins anew for each host and each address of its name; whole seconds, 0 is for ever.

    Of several hosts each gets its share: behind one that is silent, the others would never be asked.
    """
    hosts = str(arguments.get("hostaddr") or arguments.get("host") or "").count(",") + 1
    return max(1, math.ceil(timeout_seconds) if hosts == 1 else int(timeout_seconds / hosts))


def _open(attempt: Future[Connection], arguments: Mapping[str, Any]) -> None:
    try:
        attempt.set_result(psycopg2.connect(connection_factory=Connection, **arguments))
    except (psycopg2.Error, OSError, ValueError) as error:  # ValueError: a message that is not UTF-8
        attempt.set_exception(error)


def _close_unwanted(attempt: Future[Connection]) -> None:
    if attempt.exception() is None:
        attempt.result().close()


class VectorLiteral:
    """A vector of numpy in SQL; nine digits tell each float32 from all others.

    pgvector's own writes twice as many, in three times the time, which was a quarter of an import.
    """

    def __init__(self, vector: NDArray[Any]) -> None:
        self._numbers = tuple(vector.astype("f4", copy=False).tolist())

    def getquoted(self) -> bytes:
        """The literal."""
        return b"'[" + b",".join([b"%.9g"] * len(self._numbers)) % self._numbers + b"]'"


SET_UP = """
    SELECT set_config('statement_timeout', %(limit)s, false),
           set_config('idle_in_transaction_session_timeout', %(limit)s, false),
           set_config('default_transaction_isolation', 'read committed', false),  -- a writer that waited sees the rest
           set_config('TimeZone', 'UTC', false),
           set_config('jit', 'off', false),  -- compiling a search takes longer than the search
           CASE WHEN version() !~* 'windows|visual|msvc|mingw'  -- a server there cannot look
                THEN set_config('client_connection_check_interval', '1s', false)  -- notices when it is cut off
           END
"""


def set_up(connection: Connection, statement_timeout_seconds: float) -> None:
    """Give a new connection its limits and teach it pgvector's types.

    Raises:
        psycopg2.Error: the server fails, or the database has no pgvector (ProgrammingError).
    """
    connection.autocommit = True  # a rollback would undo the settings
    with connection.cursor() as cursor:
        cursor.execute(SET_UP, {"limit": str(math.ceil(statement_timeout_seconds * 1000))})
    register_vector(connection)
    psycopg2.extensions.register_adapter(np.ndarray, VectorLiteral)
    connection.autocommit = False


def allow(connection: Connection, seconds: float) -> None:
    """Let each statement of this transaction take so long; the transaction's isolation can be set after it."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = %s", (math.ceil(seconds * 1000),))


def cause_of(error: BaseException) -> str:
    """What the driver said, in one line for the log; it may name the host and the user, never the password."""
    return " ".join(str(error.__cause__ or error).split())


def is_unavailability(error: psycopg2.Error) -> bool:
    """Whether `error` is the database's state (away, full, read-only, too slow), not a mistake in SQL."""
    return isinstance(error, psycopg2.OperationalError | errors.ReadOnlySqlTransaction)
