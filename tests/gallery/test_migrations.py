"""Migrations: applied once, by one process at a time, to a database that is fit for them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import psycopg2
import pytest
from database_proxy import Proxy

from recognizer import evidence
from recognizer.errors import ConfigError, DatabaseUnavailable, StartupError
from recognizer.gallery import migrate as module
from recognizer.gallery import restore
from recognizer.gallery.migrate import Migration, known_migrations, migrate, pending
from recognizer.gallery.pool import Pool

Sql = Callable[[str], list[tuple[object, ...]]]

NAMES = [migration.name for migration in known_migrations()]


def what_is_pending(url: str) -> list[str]:
    with closing(psycopg2.connect(url)) as connection:
        return pending(connection)


def test_file_names_are_numbered_without_gaps() -> None:
    assert [name[:5] for name in NAMES] == [f"{number:04}_" for number in range(1, len(NAMES) + 1)]


def test_an_empty_database_is_brought_up_to_date_once(empty_url: str, sql: Sql) -> None:
    assert what_is_pending(empty_url) == NAMES
    assert migrate(empty_url, 30) == NAMES
    assert what_is_pending(empty_url) == []
    assert migrate(empty_url, 30) == []
    assert sql("SELECT name FROM collections") == [("default",)]


def test_pending_leaves_a_pooled_connection_usable(pool: Pool) -> None:
    with pool.connection() as connection:
        assert pending(connection) == []
        connection.cursor().execute("SELECT 1")


def test_processes_that_start_at_once_take_turns(empty_url: str) -> None:
    program = "import sys; from recognizer.gallery.migrate import migrate; print(len(migrate(sys.argv[1], 60)))"
    command = [sys.executable, "-W", "error", "-c", program, empty_url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    applied = sorted(int(process.communicate(timeout=60)[0]) for process in processes)
    assert applied == [0, 0, 0, len(NAMES)]


def test_a_failing_migration_leaves_nothing_behind(empty_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [
        *known_migrations(),
        Migration("9001_fine", "CREATE TABLE extra (x int)"),
        Migration("9002_broken", "SELECT * FROM nothing"),
    ]
    monkeypatch.setattr(module, "known_migrations", lambda: broken)
    with pytest.raises(psycopg2.ProgrammingError):
        migrate(empty_url, 30)
    assert sql("SELECT to_regclass('people'), to_regclass('extra'), to_regclass('schema_migrations')") == [
        (None, None, None)
    ]


def test_only_what_is_missing_is_applied(empty_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty_url, 30)
    more = [*known_migrations(), Migration("9001_extra", "CREATE TABLE extra (percent text DEFAULT '100 %s')")]
    monkeypatch.setattr(module, "known_migrations", lambda: more)
    assert what_is_pending(empty_url) == ["9001_extra"]
    assert migrate(empty_url, 30) == ["9001_extra"]


def test_faces_stored_before_there_were_templates_get_theirs(
    empty_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "known_migrations", lambda: known_migrations()[:1])
    migrate(empty_url, 30)
    sql("""
        INSERT INTO people (id, collection_id, name, name_key)
            SELECT gen_random_uuid(), id, person, person FROM collections, unnest(ARRAY['ada', 'grace']) AS person;
        INSERT INTO faces (id, person_id, collection_id, embedding, model_id, box_left, box_top, box_right, box_bottom,
                           quality_score, photo_sha256)
            SELECT gen_random_uuid(), person.id, collection_id, array_fill(n, ARRAY[128])::vector, model, 0, 0, 9, 9,
                   1, sha256(n::text::bytea)
            FROM people AS person, (VALUES (1, 'net/1crop'), (2, 'net/6crop'), (4, 'net/more/1crop')) AS face (n, model)
            WHERE person.name = 'ada' OR n = 1
    """)
    monkeypatch.undo()
    assert migrate(empty_url, 30) == NAMES[1:]
    assert sql("SELECT name, model_ids, people, faces FROM spaces ORDER BY name") == [
        ("net", ["net/1crop", "net/6crop"], 2, 3),
        ("net/more", ["net/more/1crop"], 1, 1),
    ]
    templates = sql("""
        SELECT person.name, space.name, template.faces, template.embedding::real[]
        FROM templates AS template JOIN people AS person ON person.id = person_id
        JOIN spaces AS space ON space.id = space_id ORDER BY 1, 2
    """)
    of_values = {("ada", "net"): (1, 2), ("ada", "net/more"): (4,), ("grace", "net"): (1,)}
    assert [template[:3] for template in templates] == [(*who, len(of)) for who, of in of_values.items()]
    for (*_, template), values in zip(templates, of_values.values(), strict=True):
        faces = np.array([np.full(128, value, np.float32) for value in values])
        assert template == pytest.approx(evidence.template(faces), abs=0.0035)  # and noise
    assert sql("SELECT count(*), bool_and(likeness IS NULL AND seen = -1) FROM cohorts") == [(3, True)]


def test_a_newer_database_is_refused_but_lacks_nothing(empty_url: str, sql: Sql) -> None:
    migrate(empty_url, 30)
    sql("INSERT INTO schema_migrations (name, sha256) VALUES ('9999_future', '')")
    with pytest.raises(StartupError, match="9999_future"):
        migrate(empty_url, 30)
    assert what_is_pending(empty_url) == []


def test_a_migration_that_was_changed_afterwards_is_refused(empty_url: str, sql: Sql) -> None:
    migrate(empty_url, 30)
    sql("UPDATE schema_migrations SET sha256 = ''")
    with pytest.raises(StartupError, match=NAMES[0]):
        migrate(empty_url, 30)


def test_waiting_for_another_process_is_bounded(database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as other:
        other.cursor().execute("SELECT pg_advisory_xact_lock(%s)", (module.LOCK_ID,))
        with pytest.raises(DatabaseUnavailable, match="Another process"):
            migrate(database_url, 0.5)
    assert migrate(database_url, 30) == []


def test_a_database_that_is_not_there_yet_is_waited_for(database_url: str, proxy: Proxy) -> None:
    proxy.shut()
    opening = threading.Timer(0.5, proxy.open)
    opening.start()
    assert migrate(proxy.url, 30) == []
    opening.join()


def test_a_database_that_never_answers_is_given_up(database_url: str, proxy: Proxy) -> None:
    proxy.freeze()
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        migrate(proxy.url, 1)
    assert time.monotonic() - began < 10


def test_an_impossible_url_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(ConfigError):
        migrate("postgresql://host/name?nonsense=1", 1)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [("MIN_POSTGRESQL", 999, "PostgreSQL"), ("MIN_PGVECTOR", (999, 0), "pgvector")],
)
def test_servers_that_are_too_old_are_refused(
    database_url: str, monkeypatch: pytest.MonkeyPatch, setting: str, value: object, message: str
) -> None:
    monkeypatch.setattr(module, setting, value)
    with pytest.raises(StartupError, match=message):
        migrate(database_url, 30)


class Answering:
    """A cursor of a server with other versions."""

    def __init__(self, postgresql: int, pgvector: tuple[str | None, str] | None) -> None:
        self.connection = self
        self.server_version = postgresql
        self._pgvector = pgvector

    def execute(self, statement: str) -> None:
        pass

    def fetchone(self) -> tuple[str | None, str] | None:
        return self._pgvector


def test_a_restore_beside_another_installation_leaves_its_tables(database_url: str) -> None:
    """As where pgvector is in one schema for all: each has its own before that in the search path."""
    with closing(psycopg2.connect(database_url)) as theirs:
        theirs.autocommit = True
        cursor = theirs.cursor()
        cursor.execute("DROP SCHEMA IF EXISTS ours CASCADE; CREATE SCHEMA ours")
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        before = cursor.fetchall()
        url = psycopg2.extensions.make_dsn(database_url, options="-c search_path=ours,public")
        try:
            with closing(psycopg2.connect(url)) as ours, ours.cursor() as of_ours:
                migrations = {each.name: each.sha256.hex() for each in known_migrations()}
                restore._make_tables(of_ours, migrations)
                restore._make_tables(of_ours, migrations)  # and once more, where there are some
                ours.commit()
            cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            assert cursor.fetchall() == before
            cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'ours'")
            assert cursor.fetchall() == before
        finally:
            cursor.execute("DROP SCHEMA ours CASCADE")


@pytest.mark.parametrize(
    ("postgresql", "pgvector", "message"),
    [
        (140012, (None, "0.8.0"), "PostgreSQL 14 is too old"),
        (150000, None, "lacks pgvector"),
        (150000, (None, "0.7.4"), "install version 0.8"),
        (150000, ("0.7.4", "0.8.1"), "ALTER EXTENSION vector UPDATE"),
    ],
)
def test_each_unfit_server_gets_its_own_remedy(
    postgresql: int, pgvector: tuple[str | None, str] | None, message: str
) -> None:
    with pytest.raises(StartupError, match=message):
        module._check_server(Answering(postgresql, pgvector))


@pytest.mark.parametrize("pgvector", [(None, "0.8.0"), ("0.8.5", "0.8.5"), ("0.10.0", "0.10.0"), ("1.0", "1.0")])
def test_fit_servers_pass(pgvector: tuple[str | None, str]) -> None:
    module._check_server(Answering(180000, pgvector))
