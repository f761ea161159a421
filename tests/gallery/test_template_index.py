"""The index of the templates: away while very many come in, there again whatever happens, and missed by no answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import psycopg2.errors
import pytest
from moving_home import MODEL_ID, Home

from recognizer import check, config
from recognizer.deadline import Deadline
from recognizer.errors import FileRefused, StartupError
from recognizer.gallery import index_keeper, search, template_index
from recognizer.gallery.cohorts import bring_up_to_date
from recognizer.gallery.index_keeper import IndexKeeper
from recognizer.gallery.pool import Pool
from recognizer.gallery.scrub import scrub
from recognizer.gallery.search import Limits
from recognizer.gallery.template_index import Means, TemplateIndex
from recognizer.moving.progress import Advance, Progress

Sql = Callable[[str], list[tuple[Any, ...]]]
Vectors = Callable[[int], np.ndarray]

BY_INDEX = Limits(compared_faces=0, compared_templates=0, people_squared_per_indexed=0)

PEOPLE = 30

INDEX = """
    SELECT indexrelid, pg_get_indexdef(indexrelid), indisvalid FROM pg_index
    WHERE indexrelid = to_regclass('templates_embedding')
"""


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_index, "MANY", PEOPLE)
    monkeypatch.setattr(template_index, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(index_keeper, "EVERY_SECONDS", 0.01)


@pytest.fixture
def index(database_url: str) -> Iterator[TemplateIndex]:
    """The index, which later tests have as it should be, whatever becomes of it here."""
    index = TemplateIndex(database_url)
    yield index
    index.mend()


@pytest.fixture
def rows(vectors: Vectors) -> np.ndarray:
    return vectors(PEOPLE)


@pytest.fixture
def encodings(rows: np.ndarray, tmp_path: Path) -> Path:
    np.savez(tmp_path / "e.npz", names=np.array([f"p {n}" for n in range(len(rows))]), encodings=rows)
    return tmp_path / "e.npz"


@pytest.fixture
def there(sql: Sql) -> Callable[[], bool]:
    """Whether the index is there and whole."""
    return lambda: [valid for _, _, valid in sql(INDEX)] == [True]


def found_by_index(pool: Pool, rows: np.ndarray) -> list[tuple[str, float]]:
    """The name and distance of the person nearest to each probe, found in the way that wants the index."""
    found = search.nearest(pool, "default", list(rows), MODEL_ID, 1, Deadline(30), BY_INDEX)
    return [(near[0].name, near[0].distance) for near in found.of_probes]


def watched(look: Callable[[str], object]) -> Progress:
    """Looks whenever something has been done, and is told of what."""

    @contextmanager
    def progress(what: str, unit: str, total: int) -> Iterator[Advance]:
        del unit, total
        yield lambda _: look(what)

    return progress


def interrupted(at: str) -> Progress:
    def look(what: str) -> None:
        if what == at:
            raise KeyboardInterrupt

    return watched(look)


def interrupt(home: Home, encodings: Path, index: TemplateIndex) -> None:
    with pytest.raises(KeyboardInterrupt):
        home.bring(encodings, index=index, progress=interrupted("Importing"))


def test_very_many_come_in_without_the_index_which_is_there_afterwards(
    home: Home, encodings: Path, rows: np.ndarray, index: TemplateIndex, sql: Sql, there: Callable[[], bool]
) -> None:
    before = sql(INDEX)
    seen = []
    home.bring(encodings, index=index, progress=watched(lambda what: seen.append((what, there()))))
    assert ("Importing", False) in seen
    assert ("Importing", True) not in seen
    after = sql(INDEX)
    assert after[0][0] != before[0][0], "it is the old one"
    assert after[0][1:] == before[0][1:]
    assert found_by_index(home.pool, rows) == [(f"p {n}", pytest.approx(0, abs=1e-5)) for n in range(PEOPLE)]


def test_few_come_into_the_index_of_many(
    home: Home, encodings: Path, vectors: Vectors, index: TemplateIndex, sql: Sql, tmp_path: Path
) -> None:
    home.bring(encodings, index=index)
    before = sql(INDEX)
    for count in (PEOPLE - 1, PEOPLE):  # fewer than many; many, and still fewer than there are by then
        file = tmp_path / f"{count}.npz"
        np.savez(file, names=np.array([f"{count} {n}" for n in range(count)]), encodings=vectors(count))
        home.bring(file, index=index)
    assert sql(INDEX) == before


def test_answers_are_right_while_it_is_away_and_figures_wait(
    home: Home, encodings: Path, rows: np.ndarray, index: TemplateIndex, there: Callable[[], bool]
) -> None:
    interrupt(home, encodings, index)
    assert not there()
    assert found_by_index(home.pool, rows) == [(f"p {n}", pytest.approx(0, abs=1e-5)) for n in range(PEOPLE)]
    assert bring_up_to_date(home.pool, Deadline(30), BY_INDEX) == 0
    home.enrol("Anna", rows[0] + 0.5)
    assert found_by_index(home.pool, rows[:1] + 0.5) == [("Anna", pytest.approx(0, abs=1e-5))]
    assert index.mend()
    assert bring_up_to_date(home.pool, Deadline(30), BY_INDEX) == PEOPLE + 1


def test_the_next_import_makes_it_though_all_are_in(
    home: Home, encodings: Path, index: TemplateIndex, there: Callable[[], bool]
) -> None:
    interrupt(home, encodings, index)
    assert home.bring(encodings, index=index).tally.changes == 0
    assert there()


def test_the_service_makes_it_but_not_beside_an_import(
    home: Home, encodings: Path, index: TemplateIndex, there: Callable[[], bool], eventually: Callable[..., None]
) -> None:
    mended = []
    home.bring(encodings, index=index, progress=watched(lambda what: mended.append((what, index.mend()))))
    assert ("Importing", False) in mended
    assert {made for _, made in mended} == {False}
    with IndexKeeper(home.pool, index):
        home.empty()
        interrupt(home, encodings, index)
        eventually(there)


def test_check_says_that_it_is_missing(
    home: Home, encodings: Path, index: TemplateIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.load({"database_url": index.url, "data_dir": tmp_path})
    monkeypatch.setattr(check, "_models", lambda _: "not looked at here")
    for missing in (False, True):
        (found,) = [each for each in check.findings(settings) if each.part == "database"]
        assert found.ok
        assert ("searches are slow" in found.detail) == missing
        if not missing:
            interrupt(home, encodings, index)


KILLED = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from moving_home import Home
from recognizer.gallery import template_index
from recognizer.gallery.pool import Pool
from recognizer.gallery.scrub import scrub
from recognizer.gallery.template_index import TemplateIndex
template_index.MANY = 1

@contextmanager
def stuck(what, unit, total):
    def wait(_):
        if what == "Importing":
            print("in", flush=True)
            time.sleep(60)
    yield wait

limits = dict(timeout_seconds=5, connect_timeout_seconds=5, statement_timeout_seconds=9)
pool = Pool(sys.argv[1], minimum=0, maximum=2, **limits)
Home(pool).bring(Path(sys.argv[2]), index=TemplateIndex(sys.argv[1]), progress=stuck)
"""


def test_it_comes_back_after_kill_9(
    home: Home,
    encodings: Path,
    rows: np.ndarray,
    index: TemplateIndex,
    there: Callable[[], bool],
    eventually: Callable[..., None],
) -> None:
    arguments = [index.url, str(encodings), str(Path(__file__).parent)]
    with subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        assert not index.mend()
        process.kill()
    assert not there()
    assert found_by_index(home.pool, rows[:1]) == [("p 0", pytest.approx(0, abs=1e-5))]
    eventually(index.mend)
    assert there()


def test_what_a_making_that_was_cut_off_has_left_is_no_obstacle(
    index: TemplateIndex, sql: Sql, there: Callable[[], bool]
) -> None:
    sql("DROP INDEX templates_embedding; SELECT 1")
    with closing(psycopg2.connect(index.url)) as busy, closing(psycopg2.connect(index.url)) as making:
        busy.cursor().execute("LOCK TABLE templates IN ROW EXCLUSIVE MODE")
        making.autocommit = True
        making.cursor().execute("SET statement_timeout = 500")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            making.cursor().execute(template_index.MAKE)
    assert [valid for _, _, valid in sql(INDEX)] == [False]
    assert index.mend()
    assert there()
    assert not index.mend(), "it was there"


def test_ctrl_c_leaves_it_to_the_database(
    home: Home, encodings: Path, index: TemplateIndex, there: Callable[[], bool], eventually: Callable[..., None]
) -> None:
    interrupt(home, encodings, index)
    with closing(psycopg2.connect(index.url)) as busy:
        busy.cursor().execute("LOCK TABLE templates IN ROW EXCLUSIVE MODE")
        with pytest.raises(KeyboardInterrupt):
            home.bring(encodings, index=index, progress=interrupted("Indexing"))
        assert not there()
    eventually(there)


def test_whoever_reads_the_templates_for_long_keeps_nobody_out(
    home: Home, encodings: Path, index: TemplateIndex, there: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_index, "REMOVAL_SECONDS", 1)
    with closing(psycopg2.connect(index.url)) as reader:
        reader.cursor().execute("SELECT count(*) FROM templates")
        done = watched(lambda what: reader.rollback() if what == "Importing" else None)
        assert home.bring(encodings, index=index, progress=done).tally.people == PEOPLE
    assert there()


def test_who_does_not_own_the_table_brings_people_in_all_the_same(
    home: Home, encodings: Path, index: TemplateIndex, sql: Sql, there: Callable[[], bool], monkeypatch: Any
) -> None:
    def refused(_: Any) -> None:
        raise psycopg2.errors.InsufficientPrivilege("must be owner of index templates_embedding")

    with monkeypatch.context() as another_role:  # which ours may not make
        another_role.setattr(template_index, "_remove", refused)
        assert home.bring(encodings, index=index).tally.people == PEOPLE
        assert there()
        sql("DROP INDEX templates_embedding; SELECT 1")
        with pytest.raises(StartupError, match="owner"):
            index.mend()


def test_nothing_is_scrubbed_meanwhile(index: TemplateIndex) -> None:
    with index.session(30) as connection, connection.cursor() as cursor:
        assert template_index.take_turn(cursor)
        with pytest.raises(StartupError, match="when that is over"):
            scrub(index.url, 30, print)


def test_the_figures_of_small_collections_do_not_wait_for_it(
    home: Home, encodings: Path, vectors: Vectors, index: TemplateIndex, there: Callable[[], bool]
) -> None:
    interrupt(home, encodings, index)
    home.gallery.create_collection("doors", {}, Deadline(30))
    for number, row in enumerate(vectors(3)):
        home.enrol(f"d {number}", row, collection="doors")
    limits = Limits(compared_faces=0, compared_templates=PEOPLE // 3, people_squared_per_indexed=0)
    assert bring_up_to_date(home.pool, Deadline(30), limits) == 3
    assert not there()


def test_an_index_of_the_same_name_in_another_schema_is_nobodys_business(
    index: TemplateIndex, sql: Sql, there: Callable[[], bool]
) -> None:
    sql("CREATE SCHEMA other; CREATE TABLE other.templates (embedding public.halfvec(128));"
        " CREATE INDEX templates_embedding ON other.templates (embedding public.halfvec_ops); SELECT 1")  # fmt: skip
    try:
        theirs = TemplateIndex(psycopg2.extensions.make_dsn(index.url, options="-c search_path=public,other"))
        sql("DROP INDEX public.templates_embedding; SELECT 1")
        assert theirs.mend()
        assert there()
        assert sql("SELECT to_regclass('other.templates_embedding') IS NOT NULL") == [(True,)]
    finally:
        sql("DROP SCHEMA other CASCADE; SELECT 1")


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is without bounds elsewhere")
def test_it_is_made_by_one_process_where_there_is_no_room_for_several(
    home: Home, encodings: Path, index: TemplateIndex, sql: Sql, there: Callable[[], bool], monkeypatch: Any
) -> None:
    interrupt(home, encodings, index)
    monkeypatch.setattr(template_index, "LEAST_BYTES", 2**40)
    sql("ALTER TABLE templates SET (parallel_workers = 1); SELECT 1")
    try:
        with closing(psycopg2.connect(index.url)) as several:
            several.autocommit = True
            several.cursor().execute("SET maintenance_work_mem = '1TB'; SET max_parallel_maintenance_workers = 1")
            with pytest.raises(psycopg2.errors.DiskFull):
                several.cursor().execute(template_index.MAKE.replace("CONCURRENTLY", "").replace("INDEX t", "INDEX x"))
        assert TemplateIndex(index.url, Means(memory_bytes=2**40, helpers=1)).mend()
    finally:
        sql("ALTER TABLE templates RESET (parallel_workers); SELECT 1")
    assert there()


def test_where_there_is_no_room_for_so_many_nothing_is_written(home: Home, encodings: Path) -> None:
    for dry_run in (True, False):
        with pytest.raises(FileRefused, match=r"30 faces and 0 photos take about 0\.0 GB .* free some"):
            home.bring(encodings, free_bytes=1000, dry_run=dry_run)
    assert home.rows("SELECT count(*) FROM people") == [(0,)]


def test_vectors_are_stored_bit_for_bit(home: Home) -> None:
    random = np.random.default_rng(3)
    numbers = random.integers(0, 2**32, 100_000, np.uint64).astype(np.uint32).view(np.float32)
    vectors = numbers[np.isfinite(numbers)][: 128 * 700].reshape(-1, 128)
    with home.pool.connection(Deadline(30)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT unnest(%s::vector[])", (list(vectors),))
        stored = np.array([vector.to_numpy() for (vector,) in cursor.fetchall()])
    assert stored.tobytes() == vectors.tobytes()
