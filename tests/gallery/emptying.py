"""Taking everything out of a gallery that many tests share, so that none finds what another has left."""

from __future__ import annotations

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from recognizer.gallery.collections import CHANGEABLE

EMPTY = f"""
    DELETE FROM api_keys;
    DELETE FROM people;
    DELETE FROM spaces;
    DELETE FROM collections WHERE name_key <> 'default';
    UPDATE collections SET {", ".join(f"{setting} = DEFAULT" for setting in CHANGEABLE)};
"""
"""People, keys and collections, and whatever is set for the one that is always there."""


_CONNECTIONS: dict[str, psycopg2.extensions.connection] = {}
"""Kept, by URL: to connect takes longer than to empty."""


def empty(url: str, also: str = "") -> None:
    """Empty the gallery of an app that may be at work, then run another statement."""
    for _ in range(20):
        connection = _CONNECTIONS.get(url) or psycopg2.connect(url)
        _CONNECTIONS[url] = connection
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(f"{EMPTY} {also}")
                return
        except psycopg2.errors.DeadlockDetected:
            pass  # with the keeper of the app's cohorts
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            del _CONNECTIONS[url]  # a test has done harm to the server
    raise AssertionError("the keeper of the app's cohorts holds the rows whenever they are to be deleted")
