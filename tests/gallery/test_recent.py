"""What the database said a moment ago, and who may go on with it while the database is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from database_proxy import Proxy

from recognizer.deadline import Deadline
from recognizer.errors import DatabaseUnavailable, DeadlineExceeded
from recognizer.gallery.keys import Keys
from recognizer.gallery.pool import Pool
from recognizer.gallery.recent import MEMORY_SECONDS, PATIENCE_SECONDS, Recent

OpenPool = Callable[..., Pool]

AWAY = (DatabaseUnavailable, DeadlineExceeded)


class Database:
    """Answers, or is away."""

    def __init__(self, answer: str | None) -> None:
        self.answer, self.away = answer, False

    def __call__(self, deadline: Deadline | None) -> str | None:
        if self.away:
            raise DatabaseUnavailable("Away.")
        return self.answer


def nobody(since: float, wait_seconds: float) -> bool:
    """Is answered by a database that is away."""
    return False


def test_an_answer_does_for_a_minute_and_no_longer() -> None:
    now, database = [0.0], Database("yes")
    recent = Recent[str](nobody, lambda: now[0])
    recent.ask("?", database, None, may_recall=False)
    database.away = True
    now[0] = MEMORY_SECONDS
    assert recent.ask("?", database, None, may_recall=True) == "yes"
    now[0] += 0.1
    with pytest.raises(DatabaseUnavailable):
        recent.ask("?", database, None, may_recall=True)


def test_only_who_may_recalls_and_only_what_was_asked() -> None:
    database = Database("yes")
    recent = Recent[str](nobody)
    recent.ask("?", database, None, may_recall=False)
    database.away = True
    for question, may_recall in (("?", False), ("another?", True)):
        with pytest.raises(DatabaseUnavailable):
            recent.ask(question, database, None, may_recall=may_recall)


def test_the_database_that_is_there_is_believed_and_what_it_knows_nothing_of_is_forgotten() -> None:
    database = Database("yes")
    recent = Recent[str](nobody)
    for database.answer in ("yes", "no", None):
        assert recent.ask("?", database, None, may_recall=True) == database.answer
    database.away = True
    with pytest.raises(DatabaseUnavailable):
        recent.ask("?", database, None, may_recall=True)


def test_a_key_goes_on_without_the_database_where_it_may(proxy: Proxy, open_pool: OpenPool) -> None:
    keys = Keys(open_pool(proxy.url, connect_timeout_seconds=1.0))
    record, right = keys.create(scopes=["recognize"])
    ended, revoked = keys.create(scopes=["recognize"])
    keys.revoke(ended.id)
    _, unseen = keys.create(scopes=["recognize"])
    expiring, expired = keys.create(scopes=["recognize"], expires_at=datetime.now(UTC) + timedelta(seconds=0.5))
    for key in (right, revoked, expired):
        keys.verify(key)
    time.sleep(max(0.0, (expiring.expires_at - datetime.now(UTC)).total_seconds()))
    proxy.shut()
    assert keys.verify(right, Deadline(10), may_recall=True) == record
    with pytest.raises(AWAY):
        keys.verify(right, Deadline(10))
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    assert keys.verify(expired, Deadline(10), may_recall=True) is None
    for key in (wrong, revoked, unseen):  # nobody finds out which of them there are
        with pytest.raises(AWAY):
            keys.verify(key, Deadline(10), may_recall=True)


def test_a_database_that_is_only_busy_is_believed(open_pool: OpenPool) -> None:
    pool = open_pool(maximum=1)
    keys, elsewhere = Keys(pool), Keys(open_pool())
    record, key = keys.create(scopes=["recognize"])
    keys.verify(key)
    elsewhere.revoke(record.id)
    taken = threading.Event()

    def work() -> None:
        with pool.connection() as connection, connection.cursor() as cursor:
            taken.set()
            cursor.execute(f"SELECT pg_sleep({2 * PATIENCE_SECONDS})")

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work)
        taken.wait()
        assert keys.verify(key, Deadline(30), may_recall=True) is None
        working.result()


def test_a_frozen_database_is_waited_for_a_moment_only(proxy: Proxy, open_pool: OpenPool) -> None:
    keys = Keys(open_pool(proxy.url))
    record, right = keys.create(scopes=["recognize"])
    keys.verify(right)
    proxy.freeze()
    began = time.monotonic()
    assert keys.verify(right, Deadline(30), may_recall=True) == record
    assert time.monotonic() - began < 5, "one second, and patience for slow machines"


def test_local_mode_goes_on_only_where_there_was_no_key(proxy: Proxy, open_pool: OpenPool) -> None:
    keys = Keys(open_pool(proxy.url))
    assert not keys.any_created()
    proxy.shut()
    assert not keys.any_created(Deadline(10), may_recall=True)
    with pytest.raises(AWAY):
        keys.any_created(Deadline(10))
    proxy.open()
    Keys(open_pool()).create(scopes=["recognize"])  # by another worker
    while True:
        try:
            if keys.any_created():
                break
        except DatabaseUnavailable:
            time.sleep(0.02)
    proxy.shut()
    with pytest.raises(AWAY):
        keys.any_created(Deadline(10), may_recall=True)
