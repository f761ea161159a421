"""`recognizer scrub` against one PostgreSQL: each place where it would leave something, and who is in its way."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from traces import execute, found_in

from recognizer.errors import StartupError
from recognizer.gallery import scrub as scrubbing
from recognizer.gallery.migrate import migrate
from recognizer.gallery.scrub import Report, scrub
from recognizer.postgres import server as servers
from recognizer.postgres.server import BundledPostgres

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="reads the files of a running PostgreSQL")

TRACES = {"name": b"Barack Zzyzx", "key": b"barack zzyzx"}
ENROL = """
    INSERT INTO people (id, collection_id, name, name_key)
    SELECT gen_random_uuid(), 1, 'Barack Zzyzx ' || n, 'barack zzyzx ' || n FROM generate_series(1, 3) AS n
"""


@pytest.fixture
def server(folder: Path) -> Iterator[BundledPostgres]:
    with BundledPostgres(folder) as server:
        migrate(server.url, 60)
        yield server


def scrubbed(server: BundledPostgres) -> Report:
    return scrub(server.url, 60, lambda table: None)


def test_what_postgresql_has_learned_of_a_table_that_is_empty_now_goes(server: BundledPostgres, folder: Path) -> None:
    execute(folder, ENROL)
    execute(folder, "ANALYZE people")
    execute(folder, "DELETE FROM people")
    assert scrubbed(server).remaining == []
    assert found_in(folder, TRACES) == {}


def test_news_that_was_told_goes(server: BundledPostgres, folder: Path) -> None:
    execute(folder, "SELECT pg_notify('recognizer_news', 'Barack Zzyzx')")
    execute(folder, "SELECT pg_notify('recognizer_news', lpad(n::text, 7900)) FROM generate_series(1, 30) AS n")
    assert any("pg_notify" in file for file in found_in(folder, TRACES)["name"])
    scrubbed(server)
    assert found_in(folder, TRACES) == {}


def test_files_of_the_log_that_were_kept_to_be_used_again_go(
    server: BundledPostgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(servers._SETTINGS, "wal_recycle", "on")  # as it was before there was `scrub`
    server.restart()
    execute(folder, ENROL)
    execute(folder, "DELETE FROM people")
    execute(folder, "SELECT pg_switch_wal()")
    execute(folder, "CHECKPOINT")
    waiting = "SELECT count(*) FROM pg_ls_waldir() WHERE name > pg_walfile_name(pg_current_wal_lsn())"
    assert execute(folder, waiting) > [(0,)]
    monkeypatch.undo()
    server.restart()
    assert any("pg_wal" in file for file in found_in(folder, TRACES)["name"])
    scrubbed(server)
    assert found_in(folder, TRACES) == {}


def test_a_database_of_before_gets_what_it_takes_at_the_next_start(server: BundledPostgres, folder: Path) -> None:
    server.stop()
    (folder / "postgres" / "granted").unlink()
    revoke = (
        "REVOKE pg_checkpoint FROM recognizer;\nREVOKE EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() FROM recognizer;"
    )
    server.cluster._sql(server.cluster.data, "recognizer", f"{revoke}\n")
    server.start()
    (remains,) = scrubbed(server).remaining
    assert "write-ahead log" in remains
    server.stop()
    with server:
        assert scrubbed(server).remaining == []


def test_it_waits_for_a_table_and_nobody_waits_long_behind_it(
    server: BundledPostgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "LOCK_MILLISECONDS", 200)
    with closing(psycopg2.connect(server.url)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM people")  # and the transaction stays open
        done: list[Report] = []
        thread = threading.Thread(target=lambda: done.append(scrubbed(server)))
        thread.start()
        for _ in range(20):
            began = time.monotonic()
            execute(folder, "SELECT count(*) FROM people")
            assert time.monotonic() - began < 30
            time.sleep(0.05)
        assert not done, "the table was in use"
        reader.rollback()
        thread.join(60)
    assert done[0].remaining == []


def test_it_does_not_go_on_while_somebody_sees_what_was_erased(
    server: BundledPostgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "TURN_SECONDS", 0.5)
    execute(folder, ENROL)
    with closing(psycopg2.connect(server.url)) as backup, backup.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute("SELECT count(*) FROM collections")
        execute(folder, "DELETE FROM people")
        with pytest.raises(StartupError, match="old state of the database"):
            scrubbed(server)
    scrubbed(server)
    assert found_in(folder, TRACES) == {}
