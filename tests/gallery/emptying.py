"""Taking everything out of a gallery that many tests share, so that none finds what another has left."""

from __future__ import annotations

from contextlib import closing, suppress

import psycopg2
import psycopg2.errors

from recognizer.gallery.collections import CHANGEABLE

EMPTY = f"""
    DELETE FROM api_keys;
    DELETE FROM people;
    DELETE FROM spaces;
    DELETE FROM collections WHERE name_key <> 'default';
    UPDATE collections SET {", ".join(f"{setting} = DEFAULT" for setting in CHANGEABLE)};
"""
"""People, keys and collections, and whatever is set for the one that is always there."""


def empty(url: str) -> None:
    """Empty the gallery of an app that may be at work."""
    with closing(psycopg2.connect(url)) as connection:
        for _ in range(20):
            with suppress(psycopg2.errors.DeadlockDetected), connection, connection.cursor() as cursor:
                cursor.execute(EMPTY)
                return
    raise AssertionError("the keeper of the app's cohorts holds the rows whenever they are to be deleted")
