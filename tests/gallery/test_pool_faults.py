"""The pool in foul weather: databases that die, freeze, come back, or never answer."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from database_proxy import Proxy

from recognizer.deadline import Deadline
from recognizer.errors import DatabaseUnavailable, DeadlineExceeded, RecognizerError, Unavailable
from recognizer.gallery.pool import Pool
from recognizer.postgres.server import BundledPostgres

OpenPool = Callable[..., Pool]
Sql = Callable[[str], list[tuple[object, ...]]]
Eventually = Callable[..., None]

UNREACHABLE = "postgresql://nobody:nothing@127.0.0.1:1/nowhere"


def one(pool: Pool, statement: str = "SELECT 1", deadline: Deadline | None = None) -> Any:
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()[0][0]


def works(pool: Pool) -> bool:
    with contextlib.suppress(Unavailable):
        return one(pool) == 1
    return False


def all_slots_work(pool: Pool) -> bool:
    """Whether every connection that the pool may lend can be lent at the same time."""
    with contextlib.ExitStack() as lent:
        for _ in range(pool.statistics().maximum):
            connection = lent.enter_context(pool.connection())
            connection.cursor().execute("SELECT 1")
    return True


def outcome(pool: Pool, deadline_seconds: float) -> tuple[str, float]:
    """The error that one call ends with, and after how long."""
    began = time.monotonic()
    try:
        one(pool, deadline=Deadline(deadline_seconds))
    except RecognizerError as error:
        return type(error).__name__, time.monotonic() - began
    return "served", time.monotonic() - began


def test_opening_a_pool_on_a_database_that_is_down_succeeds(open_pool: OpenPool) -> None:
    pool = open_pool(UNREACHABLE, minimum=2)
    with pytest.raises(DatabaseUnavailable):
        one(pool)


def test_callers_are_refused_at_once_while_the_database_is_known_to_be_away(
    open_pool: OpenPool, proxy: Proxy, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pool = open_pool(proxy.url, minimum=2)
    eventually(lambda: pool.statistics().idle == 2)
    proxy.shut()
    eventually(lambda: not works(pool) and pool.statistics().away)
    refused = pool.statistics().refused
    for _ in range(100):
        assert not works(pool)
    assert pool.statistics().refused >= refused + 90, "nearly all are refused without an attempt"
    assert pool.statistics().in_use == 0
    proxy.open()
    eventually(lambda: works(pool), within_seconds=10)
    assert all_slots_work(pool)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("recognizer")]
    assert len(said) == 2, "once when it goes, once when it is back"
    assert "127.0.0.1" in said[0], "operators learn which server, and why"


def test_it_comes_back_without_anybody_asking(open_pool: OpenPool, proxy: Proxy, eventually: Eventually) -> None:
    pool = open_pool(proxy.url, minimum=2)
    eventually(lambda: pool.statistics().idle == 2)
    proxy.shut()
    eventually(lambda: not works(pool) and pool.statistics().away)
    proxy.open()
    eventually(lambda: not pool.statistics().away and pool.statistics().idle == 2, within_seconds=10)
    assert one(pool) == 1


def test_one_probe_at_a_time(open_pool: OpenPool, proxy: Proxy, eventually: Eventually) -> None:
    pool = open_pool(proxy.url, maximum=4, connect_timeout_seconds=0.5)
    proxy.freeze()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: works(pool), range(4)))
    assert pool.statistics().away
    before, began = proxy.accepted, time.monotonic()
    while time.monotonic() < began + 2:
        assert not works(pool)
        time.sleep(0.001)
    assert proxy.accepted - before <= 4, "attempts do not grow with the callers"
    proxy.open()
    eventually(lambda: works(pool))


def test_callers_of_a_database_that_never_answers_fail_together(open_pool: OpenPool, proxy: Proxy) -> None:
    proxy.freeze()
    pool = open_pool(proxy.url, maximum=4, timeout_seconds=30, connect_timeout_seconds=1.5)
    with ThreadPoolExecutor(12) as threads:
        ends = list(threads.map(lambda _: outcome(pool, 30), range(12)))
    assert {name for name, _ in ends} == {"DatabaseUnavailable"}
    assert max(seconds for _, seconds in ends) < 4, "not one connect timeout after the other"
    assert pool.statistics().in_use == 0


def test_connecting_ends_with_the_deadline(open_pool: OpenPool, proxy: Proxy) -> None:
    proxy.freeze()
    pool = open_pool(proxy.url, connect_timeout_seconds=30)
    name, seconds = outcome(pool, 0.3)
    assert name == "DeadlineExceeded"
    assert seconds < 5


def test_connections_that_all_died_are_replaced_unseen(
    open_pool: OpenPool, proxy: Proxy, eventually: Eventually
) -> None:
    pool = open_pool(proxy.url, minimum=4, maximum=4)
    eventually(lambda: pool.statistics().idle == 4)
    proxy.shut()
    proxy.open()  # as after a quick restart of the server
    assert one(pool) == 1
    assert all_slots_work(pool)


def test_a_transaction_that_loses_its_server_leaves_nothing(open_pool: OpenPool, proxy: Proxy, sql: Sql) -> None:
    pool = open_pool(proxy.url)
    with pytest.raises(DatabaseUnavailable), pool.connection() as connection:
        cursor = connection.cursor()
        cursor.execute("UPDATE collections SET revision = 7")
        proxy.shut()
        cursor.execute("UPDATE collections SET revision = 8")
    assert sql("SELECT revision FROM collections") == [(0,)]
    assert pool.statistics().in_use == 0


def test_a_server_that_freezes_during_a_call_holds_nobody_beyond_the_deadline(
    open_pool: OpenPool, proxy: Proxy, eventually: Eventually
) -> None:
    pool = open_pool(proxy.url, minimum=4, maximum=4, connect_timeout_seconds=1)
    eventually(lambda: pool.statistics().idle == 4)
    proxy.freeze()
    with ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(lambda _: outcome(pool, 1.0), range(8)))
    assert {name for name, _ in ends} <= {"DeadlineExceeded", "DatabaseUnavailable"}
    assert max(seconds for _, seconds in ends) < 5
    eventually(lambda: pool.statistics().away)
    proxy.open()
    eventually(lambda: works(pool), within_seconds=10)
    assert all_slots_work(pool)


def test_without_a_deadline_the_statement_timeout_bounds_a_frozen_server(
    open_pool: OpenPool, proxy: Proxy, eventually: Eventually
) -> None:
    pool = open_pool(proxy.url, minimum=1, maximum=1, statement_timeout_seconds=0.5)
    eventually(lambda: pool.statistics().idle == 1)
    proxy.freeze()
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        one(pool)
    assert time.monotonic() - began < 8


def test_a_commit_on_a_frozen_server_is_bounded(open_pool: OpenPool, proxy: Proxy) -> None:
    pool = open_pool(proxy.url)
    with pytest.raises(DeadlineExceeded), pool.connection(Deadline(1.0)) as connection:
        connection.cursor().execute("UPDATE collections SET revision = 7")
        proxy.freeze()


def test_waiting_for_slots_of_a_frozen_database_finds_it_out(
    open_pool: OpenPool, proxy: Proxy, eventually: Eventually
) -> None:
    pool = open_pool(proxy.url, maximum=1, timeout_seconds=0.2, connect_timeout_seconds=0.5)
    with pool.connection():
        proxy.freeze()
        with pytest.raises(DatabaseUnavailable):
            one(pool)  # nobody has seen a call fail so far
        eventually(lambda: pool.statistics().away)
        proxy.open()


def test_closing_during_an_outage_is_bounded(open_pool: OpenPool, proxy: Proxy) -> None:
    proxy.freeze()
    pool = open_pool(proxy.url, minimum=2, connect_timeout_seconds=1)
    began = time.monotonic()
    pool.close(wait_seconds=2)
    assert time.monotonic() - began < 5


def test_what_the_database_lacks_is_told_in_the_log_once_in_a_while_and_without_the_statement(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            one(pool, "SET TRANSACTION READ ONLY; DELETE FROM people WHERE name = 'Ada'")
    (said,) = [record.getMessage() for record in caplog.records if record.name == "recognizer.gallery.pool"]
    assert said == "The database cannot do this now: cannot execute DELETE in a read-only transaction (25006)"


def test_of_several_hosts_a_silent_one_does_not_hide_the_others(
    open_pool: OpenPool, proxy: Proxy, database_url: str
) -> None:
    with Proxy(database_url) as silent:
        silent.freeze()
        pair = proxy.url.replace("@127.0.0.1:", f"@127.0.0.1:{silent.port},127.0.0.1:")
        pool = open_pool(f"{pair}?target_session_attrs=read-write", connect_timeout_seconds=3)
        assert one(pool) == 1
        assert silent.accepted == 1


def test_a_slow_network_is_no_absence(open_pool: OpenPool, proxy: Proxy) -> None:
    proxy.delay_seconds = 0.05
    pool = open_pool(proxy.url, minimum=1)
    assert [one(pool) for _ in range(3)] == [1] * 3
    statistics = pool.statistics()
    assert (statistics.away, statistics.broken, statistics.refused) == (False, 0, 0)


@pytest.fixture
def frozen_server(
    postgres_process: psutil.Process, eventually: Eventually
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Stops every process of the server for the length of a `with` block."""

    @contextlib.contextmanager
    def freeze() -> Iterator[None]:
        stopped = [postgres_process, *postgres_process.children(recursive=True)]
        try:
            for process in stopped:
                process.suspend()
            eventually(lambda: all(process.status() == psutil.STATUS_STOPPED for process in stopped))
            yield
        finally:
            for process in stopped:
                process.resume()

    return freeze


def test_a_stopped_server_bounds_calls_and_connects_and_is_used_again_when_it_continues(
    open_pool: OpenPool, frozen_server: Callable[[], Any], eventually: Eventually
) -> None:
    pool = open_pool(minimum=2, maximum=4, connect_timeout_seconds=1)
    eventually(lambda: pool.statistics().idle == 2)
    with frozen_server():
        with ThreadPoolExecutor(8) as threads:
            ends = list(threads.map(lambda _: outcome(pool, 1.0), range(8)))
        assert "served" not in {name for name, _ in ends}
        assert max(seconds for _, seconds in ends) < 5
        eventually(lambda: pool.statistics().away)
    eventually(lambda: works(pool), within_seconds=10)
    assert all_slots_work(pool)


def test_a_server_that_was_stopped_and_started_is_used_again(
    open_pool: OpenPool, postgres: BundledPostgres, eventually: Eventually
) -> None:
    pool = open_pool(minimum=2, maximum=4)
    eventually(lambda: pool.statistics().idle == 2)
    postgres.stop()
    try:
        eventually(lambda: not works(pool) and pool.statistics().away)
    finally:
        postgres.start()
    eventually(lambda: works(pool), within_seconds=10)
    assert all_slots_work(pool)


def test_a_killed_backend_costs_only_its_own_call(pool: Pool, sql: Sql, eventually: Eventually) -> None:
    with pytest.raises(DatabaseUnavailable), pool.connection() as connection:
        sql(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")
        connection.cursor().execute("SELECT 1")
    eventually(lambda: works(pool))
    assert all_slots_work(pool)
