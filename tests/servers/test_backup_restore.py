"""Backups between databases: killed half-way, of an older schema, beside other connections, of a newer PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from traces import execute

from recognizer import backup_command
from recognizer.errors import BackupError
from recognizer.gallery import inventory
from recognizer.gallery import migrate as migrations
from recognizer.gallery.migrate import migrate
from recognizer.host import datadir
from recognizer.postgres import programs
from recognizer.postgres.server import BundledPostgres

ENROL = """
    INSERT INTO people (id, collection_id, name, name_key, metadata)
    SELECT gen_random_uuid(), 1, E'A\\tname \\\\.\\n' || n, 'x' || n, '{"note": "a\\"b"}'
    FROM generate_series(1, %s) AS n
"""
STATE = "SELECT id, name, name_key, metadata, created_at FROM people ORDER BY id"

KILLED = """
import os, signal, sys
from recognizer import cli
from recognizer.postgres import archives

def parts(sql, whole=archives.parts):
    for part in whole(sql):
        yield part
        if getattr(part, "table", "") == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)

archives.parts = parts
cli.main(["restore", "--replace", *sys.argv[2:]])
"""


BACKUP_KILLED = """
import os, sys
from recognizer import cli
from recognizer.postgres import archives

def dump(dsn, password, schema, snapshot, write):
    write(b"half")
    os.kill(os.getpid(), int(sys.argv[1]))

archives.dump = dump
cli.main(["backup", *sys.argv[2:]])
"""


@pytest.fixture
def server(folder: Path) -> Iterator[BundledPostgres]:
    with BundledPostgres(folder) as server:
        yield server


def back_up(url: str, file: Path) -> None:
    backup_command._back_up(url, file, force=False)


def restore(url: str, file: Path, replace: bool = False) -> list[str]:
    return backup_command._restore(url, file, backup_command.backup_file.manifest_of(file), replace)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
@pytest.mark.parametrize("table", ["audit", "templates"])
def test_a_restore_that_is_killed_leaves_what_there_was(
    server: BundledPostgres, folder: Path, tmp_path: Path, table: str
) -> None:
    migrate(server.url, 60)
    file = tmp_path / "empty.backup"
    back_up(server.url, file)
    execute(folder, ENROL, 50)
    before = execute(folder, STATE)
    server.stop()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, table, "--data-dir", str(folder), str(file)], timeout=120, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr
    with server:
        assert execute(folder, STATE) == before
        assert execute(folder, "SELECT count(*) FROM pg_trigger WHERE tgname = 'keep' AND tgenabled = 'O'") == [(1,)]


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_a_backup_that_is_killed_leaves_nothing_or_what_the_next_one_clears_away(
    server: BundledPostgres, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "b"
    left = {}
    with datadir.locked(folder, address="here"):  # as the service does: the commands join its database
        for number in (signal.SIGTERM, signal.SIGKILL):
            command = [sys.executable, "-c", BACKUP_KILLED, str(int(number)), "--data-dir", str(folder), str(file)]
            killed = subprocess.run(command, timeout=120, capture_output=True)
            left[killed.returncode] = len(list(tmp_path.iterdir()))
    assert left == {143: 0, -9: 1}
    back_up(server.url, file)
    assert list(tmp_path.iterdir()) == [file]


def test_a_backup_of_an_older_schema_is_brought_up_to_date(
    server: BundledPostgres, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations.known_migrations()
    file = tmp_path / "old.backup"
    with monkeypatch.context() as earlier:
        earlier.setattr(migrations, "known_migrations", lambda: known[:4])
        earlier.setattr(inventory, "note", lambda *_: None)  # that schema had no audit trail
        migrate(server.url, 60)
        execute(folder, ENROL, 20)
        before = execute(folder, STATE)
        back_up(server.url, file)
    migrate(server.url, 60)
    execute(folder, "DELETE FROM people")
    assert restore(server.url, file, replace=True) == [migration.name for migration in known[4:]]
    assert execute(folder, STATE) == before
    assert migrate(server.url, 60) == []
    indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    rules = "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1, 2"
    restored = [execute(folder, each) for each in (indexes, rules)]
    execute(folder, f"DROP TABLE {', '.join(migrations.known_tables())}")
    migrate(server.url, 60)
    assert [execute(folder, each) for each in (indexes, rules)] == restored


def test_numbers_of_collections_go_on_where_they_were(server: BundledPostgres, folder: Path, tmp_path: Path) -> None:
    migrate(server.url, 60)
    execute(folder, "INSERT INTO collections (name, name_key) SELECT n::text, n::text FROM generate_series(1, 5) AS n")
    execute(folder, "DELETE FROM collections WHERE id > 3")
    back_up(server.url, tmp_path / "b")
    restore(server.url, tmp_path / "b", replace=True)
    assert execute(folder, "INSERT INTO collections (name, name_key) VALUES ('n', 'n') RETURNING id") == [(7,)]


def test_a_database_that_others_work_with_is_not_replaced(server: BundledPostgres, tmp_path: Path) -> None:
    migrate(server.url, 60)
    back_up(server.url, tmp_path / "b")
    with closing(psycopg2.connect(server.url)), pytest.raises(BackupError, match="in use, by 1 connections"):
        restore(server.url, tmp_path / "b", replace=True)
    restore(server.url, tmp_path / "b", replace=True)


def test_a_newer_postgresql_is_named(server: BundledPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(server.url, 60)
    monkeypatch.setattr(programs, "MAJOR", programs.MAJOR - 1)
    with pytest.raises(BackupError, match=f"Use that of PostgreSQL {programs.MAJOR + 1}"):
        back_up(server.url, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_the_password_is_on_no_command_line(
    server: BundledPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def spawn(arguments: list[Any], **options: Any) -> Any:
        seen.extend(map(str, arguments))
        return real(arguments, **options)

    real = backup_command.archives.spawn
    migrate(server.url, 60)
    monkeypatch.setattr(backup_command.archives, "spawn", spawn)
    back_up(server.url, tmp_path / "b")
    assert any("host=" in argument for argument in seen)
    assert not [argument for argument in seen if server.cluster.password() in argument]
