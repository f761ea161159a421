"""The way of many photos through several threads, with an enroller that only remembers what it was given."""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from recognizer.enrolling.items import Item, NoPhoto, Outcome, Row
from recognizer.enrolling.pipeline import BATCH_BYTES, Namesakes, run
from recognizer.enrolling.report import Report
from recognizer.errors import DatabaseUnavailable, StartupError

LIMIT_SECONDS = 10


class Remembering:
    """Enrols everything, unless `before` does something else."""

    batch = 3

    def __init__(self, before: Callable[[str], object] = lambda person: None) -> None:
        self.batches: list[tuple[str, list[bytes]]] = []
        self._before = before

    def enrol(self, person: str, photos: Sequence[bytes]) -> list[Outcome]:
        self._before(person)
        self.batches.append((person, list(photos)))
        return [Outcome("enrolled", face_id=photo.decode()[:9]) for photo in photos]


def photo(person: str, number: int, size: int = 0) -> Item:
    return Item(f"{person}/{number}", person, lambda: f"{number}".ljust(size).encode())


def unreadable() -> bytes:
    raise NoPhoto(Outcome("failed", ("unreadable",)))


def done(source: list[Item | Row], enroller: Remembering, workers: int = 2) -> list[Row]:
    rows: list[Row] = []
    assert run(source, enroller, rows.append, workers=workers, stop=threading.Event())
    return rows


def test_each_photo_has_its_row_in_the_order_of_the_source() -> None:
    skipped = Row("x", "", Outcome("skipped", ("not_a_photo",)))
    source = [photo("a", 1), Item("a/2", "a", unreadable), photo("a", 3), skipped, photo("b", 4), *[photo("c", 5)] * 7]
    rows = done(source, enroller := Remembering())
    assert [row.label for row in rows] == [each.label for each in source]
    assert [row.outcome.status for row in rows[:5]] == ["enrolled", "failed", "enrolled", "skipped", "enrolled"]
    assert [row.outcome.face_id for row in rows[:5]] == ["1", "", "3", "", "4"]
    batches = sorted((person, len(photos)) for person, photos in enroller.batches)
    assert batches == [("a", 2), ("b", 1), ("c", 1), ("c", 3), ("c", 3)]  # at most three, of one person


def test_large_photos_are_not_held_together() -> None:
    source = [photo("a", number, BATCH_BYTES) for number in range(3)]
    done(list(source), enroller := Remembering(), workers=1)
    assert [len(photos) for _, photos in enroller.batches] == [2, 1]


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "tab\x01", "\udcff", "right\u202eleft"])
def test_a_name_that_cannot_be_one_is_refused_photo_by_photo(name: str) -> None:
    rows = done([photo(name, 1), photo(name, 2), photo("a", 3)], enroller := Remembering())
    assert [row.outcome.reasons for row in rows] == [("invalid_name",), ("invalid_name",), ()]
    assert [person for person, _ in enroller.batches] == ["a"]


def test_when_it_is_told_to_stop_it_finishes_what_is_begun() -> None:
    stop, rows = threading.Event(), []
    enroller = Remembering(lambda person: stop.set() if person == "2" else None)
    source = [photo(f"{number}", number) for number in range(50)]
    assert not run(source, enroller, rows.append, workers=1, stop=stop)
    told = [row.person for row in rows]
    assert told == [person for person, _ in enroller.batches]
    assert told == ["0", "1", "2"]


def test_what_makes_going_on_useless_ends_it_with_all_that_was_done_told() -> None:
    def fail(person: str) -> None:
        if person == "3":
            raise DatabaseUnavailable("It is away.")

    rows: list[Row] = []
    enroller = Remembering(fail)
    with pytest.raises(DatabaseUnavailable):
        run([photo(f"{n}", n) for n in range(50)], enroller, rows.append, workers=2, stop=threading.Event())
    assert sorted(row.person for row in rows) == sorted(person for person, _ in enroller.batches)
    assert len(rows) < 10


def test_a_source_that_breaks_off_is_no_end_without_a_word() -> None:
    def source() -> object:
        yield photo("a", 1)
        raise StartupError("It went away.")

    rows: list[Row] = []
    with pytest.raises(StartupError):
        run(source(), Remembering(), rows.append, workers=2, stop=threading.Event())  # type: ignore[arg-type]
    assert [row.label for row in rows] in ([], ["a/1"])


def test_names_that_are_the_same_person_are_noticed_once() -> None:
    names = Namesakes()
    noticed = [names.of(name) for name in ("Ada", "ada", "Ada", "ada", "ADA", "Grace", "x" * 300, "\x01")]
    assert noticed == [None, "Ada", None, None, "Ada", None, None, None]


def test_the_report_is_there_row_by_row_and_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    with Report(path) as report:
        odd = os.fsdecode(b"Ada/\xff.jpg")
        report.add(
            Row(odd, 'Ada, "the"\nfirst', Outcome("refused", ("low_quality", "TOO_DARK"), "Dark.", quality=0.05))
        )
        with path.open(newline="", encoding="utf-8") as file:  # as after kill -9
            (row,) = csv.DictReader(file)
    assert (row["file"], row["person"], row["reasons"]) == (
        "Ada/\\udcff.jpg",
        'Ada, "the"\nfirst',
        "low_quality TOO_DARK",
    )
    assert (report.left_out, path.stat().st_mode & 0o077) == (1, 0)
    with pytest.raises(StartupError, match="--report"):
        Report(tmp_path / "no" / "report.csv")


@pytest.mark.parametrize("first", [*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_spreadsheet_computes_nothing_of_the_report(tmp_path: Path, first: str) -> None:
    name = f"{first}HYPERLINK(1);{first}1"
    with Report(tmp_path / "report.csv") as report:
        report.add(Row(f"{name}/1.jpg", name, Outcome("refused", ("no_face",), "1 - 1 = 0", quality=0.5)))
    with report.path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    harmless = name if first in "\t\r\n" else name.replace(";", ";'")  # where semicolons end cells it is one as well
    assert (row["file"], row["person"]) == (f"'{harmless}/1.jpg", f"'{harmless}")
    assert (row["status"], row["detail"], row["quality"]) == ("refused", "1 - 1 = 0", "0.500")
