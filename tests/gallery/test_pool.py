"""The pool in fair weather: slots, transactions, renewal, statistics, closing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from psycopg2 import errors

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import (
    ConfigError,
    DatabaseUnavailable,
    DeadlineExceeded,
    NotFound,
    StartupError,
)
from recognizer.gallery import supply
from recognizer.gallery.direct import check_connection_limit
from recognizer.gallery.pool import Pool

OpenPool = Callable[..., Pool]
Sql = Callable[[str], list[tuple[object, ...]]]
Eventually = Callable[..., None]


def one(pool: Pool, statement: str = "SELECT 1", deadline: Deadline | None = None) -> object:
    with pool.connection(deadline) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()[0][0] if cursor.description else None


def test_a_block_that_succeeds_is_committed(pool: Pool, sql: Sql) -> None:
    one(pool, "UPDATE collections SET revision = 7")
    assert sql("SELECT revision FROM collections") == [(7,)]


def test_a_block_that_raises_is_rolled_back_and_keeps_its_connection(open_pool: OpenPool, sql: Sql) -> None:
    pool = open_pool(maximum=1)
    backend = one(pool, "SELECT pg_backend_pid()")
    with pytest.raises(NotFound), pool.connection() as connection:
        connection.cursor().execute("UPDATE collections SET revision = 7")
        raise NotFound("no such thing")
    assert sql("SELECT revision FROM collections") == [(0,)]
    assert one(pool, "SELECT pg_backend_pid()") == backend


def test_an_error_of_the_database_gives_the_slot_back_and_drops_the_connection(open_pool: OpenPool) -> None:
    pool = open_pool(maximum=1)
    for _ in range(3):
        with pytest.raises(errors.UndefinedTable):
            one(pool, "SELECT * FROM nothing_of_this_name")
    assert one(pool) == 1
    assert pool.statistics().broken == 3
    assert pool.statistics().in_use == 0


def test_violated_constraints_pass_through(pool: Pool) -> None:
    with pytest.raises(errors.UniqueViolation):
        one(pool, "INSERT INTO collections (name, name_key) VALUES ('Default', 'default')")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SET TRANSACTION READ ONLY; DELETE FROM people",
        "SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)",
        "SET LOCAL lock_timeout = 1; DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'too_many_connections'; END $$",
    ],
)
def test_what_the_database_cannot_do_now_is_unavailability(pool: Pool, statement: str) -> None:
    with pytest.raises(DatabaseUnavailable) as raised:
        one(pool, statement)
    assert isinstance(raised.value.__cause__, psycopg2.Error)
    assert one(pool) == 1


def test_an_exhausted_pool_times_out_and_recovers(open_pool: OpenPool) -> None:
    pool = open_pool(maximum=1, timeout_seconds=0.1)
    with pool.connection(), pytest.raises(DatabaseUnavailable, match="in use"):
        one(pool)
    assert pool.statistics().timeouts == 1
    assert one(pool) == 1


def test_waiting_for_a_slot_ends_with_the_deadline(open_pool: OpenPool) -> None:
    pool = open_pool(maximum=1, timeout_seconds=60)
    with pool.connection(), pytest.raises(DatabaseUnavailable):
        one(pool, deadline=Deadline(0.1))


def test_a_deadline_that_has_passed_takes_no_slot(pool: Pool) -> None:
    with pytest.raises(DeadlineExceeded):
        one(pool, deadline=Deadline(0))


def test_a_waiting_caller_gets_the_slot_that_comes_free(open_pool: OpenPool, eventually: Eventually) -> None:
    pool = open_pool(maximum=1)
    with ThreadPoolExecutor(1) as threads:
        with pool.connection():
            waiting = threads.submit(one, pool)
            eventually(lambda: pool.statistics().waiting == 1)
        assert waiting.result(10) == 1


def test_many_threads_share_few_connections(open_pool: OpenPool) -> None:
    pool = open_pool(minimum=3, maximum=3)
    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(lambda n: one(pool, f"SELECT {n}"), range(400))) == sum(range(400))
    statistics = pool.statistics()
    assert (statistics.in_use, statistics.waiting, statistics.broken) == (0, 0, 0)
    assert statistics.idle <= 3
    assert statistics.opened <= 4, "what comes back is kept, not opened again and again"


def test_a_call_that_outlives_the_deadline_is_cut_off(pool: Pool) -> None:
    with pytest.raises(DeadlineExceeded):
        one(pool, "SELECT pg_sleep(30)", Deadline(0.3))
    assert pool.statistics().cut_off == 1
    assert one(pool) == 1


def test_the_server_drops_a_call_that_was_cut_off(pool: Pool, sql: Sql, eventually: Eventually) -> None:
    with pytest.raises(DeadlineExceeded):
        one(pool, "SELECT pg_sleep(60), 'marker'", Deadline(0.3))
    left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60), ''mark%'"
    eventually(lambda: sql(left) == [(0,)], within_seconds=8)  # sooner than statement_timeout


def test_the_server_ends_statements_that_take_too_long(open_pool: OpenPool) -> None:
    pool = open_pool(statement_timeout_seconds=0.2)
    with pytest.raises(DatabaseUnavailable) as raised:
        one(pool, "SELECT pg_sleep(30)")
    assert isinstance(raised.value.__cause__, errors.QueryCanceled)
    assert pool.statistics().cut_off == 0


def test_what_is_long_is_bounded_by_its_deadline_alone_and_the_next_as_ever(open_pool: OpenPool) -> None:
    pool = open_pool(maximum=1, statement_timeout_seconds=1.0)
    with pool.connection(Deadline(30), is_long=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1.5)")  # longer than a frozen server would get, too
    with pytest.raises(DatabaseUnavailable):
        one(pool, "SELECT pg_sleep(30)")
    with pytest.raises(DeadlineExceeded), pool.connection(Deadline(0.5), is_long=True) as connection:
        connection.cursor().execute("SELECT pg_sleep(30)")


def test_the_minimum_is_opened_before_it_is_needed(open_pool: OpenPool, eventually: Eventually) -> None:
    pool = open_pool(minimum=3, maximum=5)
    eventually(lambda: pool.statistics().idle == 3)


def test_a_connection_that_died_while_idle_is_replaced_unseen(open_pool: OpenPool, sql: Sql) -> None:
    pool = open_pool(maximum=1)
    backend = one(pool, "SELECT pg_backend_pid()")
    sql(f"SELECT pg_terminate_backend({backend}, 5000)")
    assert one(pool, "SELECT pg_backend_pid()") != backend
    assert pool.statistics().in_use == 0


def test_after_a_long_rest_a_connection_is_asked_first(open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = open_pool(maximum=1)
    backend = one(pool, "SELECT pg_backend_pid()")
    monkeypatch.setattr(supply, "IDLE_CHECK_SECONDS", -1.0)
    assert one(pool, "SELECT pg_backend_pid()") == backend


def test_an_old_connection_is_renewed(open_pool: OpenPool) -> None:
    pool = open_pool(maximum=1)
    with pool.connection() as connection:
        backend = connection.info.backend_pid
        connection.expires_at = time.monotonic()
    assert one(pool, "SELECT pg_backend_pid()") != backend
    assert pool.statistics().broken == 0


def test_connections_beyond_the_minimum_are_closed_when_not_needed(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = open_pool(minimum=1, maximum=3)
    with pool.connection(), pool.connection(), pool.connection():
        pass
    assert pool.statistics().idle == 3
    monkeypatch.setattr(supply, "MAX_IDLE_SECONDS", -1.0)
    for _ in range(5):
        one(pool)
    assert pool.statistics().idle == 1


def test_vectors_and_utc_on_every_connection(pool: Pool) -> None:
    vector = one(pool, "SELECT '[1,2.5]'::vector")
    assert vector.to_list() == [1, 2.5]
    assert str(one(pool, "SELECT now()").tzinfo) == "UTC"


def test_statistics_say_what_is_in_use(open_pool: OpenPool) -> None:
    pool = open_pool(maximum=2)
    with pool.connection():
        statistics = pool.statistics()
    assert (statistics.maximum, statistics.in_use, statistics.away) == (2, 1, False)
    assert pool.statistics().in_use == 0


def test_a_closed_pool_refuses_and_closing_twice_is_fine(open_pool: OpenPool) -> None:
    pool = open_pool(minimum=2)
    one(pool)
    pool.close()
    pool.close()
    assert pool.statistics().idle == 0
    with pytest.raises(DatabaseUnavailable, match="shutting down"):
        one(pool)


def test_closing_wakes_who_waits_and_closes_what_comes_back_later(open_pool: OpenPool, eventually: Eventually) -> None:
    pool = open_pool(maximum=1, timeout_seconds=60)
    with ThreadPoolExecutor(1) as threads, pool.connection() as connection:
        waiting = threads.submit(one, pool)
        eventually(lambda: pool.statistics().waiting == 1)
        pool.close(wait_seconds=0)
        with pytest.raises(DatabaseUnavailable):
            waiting.result(10)
        assert not connection.closed
    assert connection.closed
    assert pool.statistics().idle == 0


def test_closing_leaves_no_threads_and_no_descriptors(open_pool: OpenPool, eventually: Eventually) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def use_one() -> None:
        pool = open_pool(minimum=2)
        one(pool)
        pool.close()

    use_one()
    threads, open_files = threading.active_count(), descriptors()
    for _ in range(20):
        use_one()
    eventually(lambda: threading.active_count() <= threads and descriptors() <= open_files)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_use_after_a_fork_is_refused_and_leaves_the_parent_alone(open_pool: OpenPool) -> None:
    pool = open_pool(maximum=1)
    backend = one(pool, "SELECT pg_backend_pid()")
    child = os.fork()
    if child == 0:
        try:
            one(pool)
        except RuntimeError:
            pool.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert one(pool, "SELECT pg_backend_pid()") == backend


def test_opening_takes_the_settings_and_refuses_an_impossible_url(database_url: str) -> None:
    with Pool.open(Settings(pool_min=1, pool_max=3, database_url=database_url)) as pool:
        assert one(pool) == 1
        assert pool.statistics().maximum == 3
    with pytest.raises(ConfigError):
        Pool.open(Settings())
    with pytest.raises(ConfigError) as raised:
        Pool.open(Settings(), "postgresql://somebody:s3cret@host/name?nonsense=1")
    assert "s3cret" not in str(raised.value)


def test_more_connections_than_the_server_grants_are_found_out(database_url: str) -> None:
    check_connection_limit(database_url, workers=1, pool_max=1, deadline_seconds=30)
    with pytest.raises(StartupError, match="max_connections"):
        check_connection_limit(database_url, workers=500, pool_max=20, deadline_seconds=30)
