"""`recognizer enroll`, `recognizer migrate-from`: many photos at once, into this installation or a running service."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from recognizer import config
from recognizer.errors import RecognizerError
from recognizer.options import common_options

if TYPE_CHECKING:  # what loads models and drivers is imported when a command runs
    from recognizer.enrolling.items import Enroller, Row, Source
    from recognizer.enrolling.pipeline import Namesakes
    from recognizer.enrolling.progress import Progress
    from recognizer.enrolling.report import Report

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_ABORTED = 1
EXIT_LEFT_OUT = 4
EXIT_INTERRUPTED = 130

MOST_BYTES_REMOTE = 64 * 2**20
"""Of a photo for a service whose settings are not known; by default a request may have no more."""

FOLDER = click.Path(path_type=Path)


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(enroll)
    group.add_command(migrate_from)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options say, but for where the photos come from."""

    collection: str
    create_collection: bool
    largest_face: bool
    dry_run: bool
    workers: int | None
    report: Path
    url: str | None
    key: str | None = field(repr=False)
    data_dir: Path | None
    config_file: Path | None

    def settings(self) -> config.Settings:
        """Those of the installation that is meant."""
        return config.load({"data_dir": self.data_dir}, self.config_file)


def enrolling_options(report: str, to: str) -> Callable[[Command], Command]:
    """The options that both commands have; `to` is put before those that name our service."""
    options = [
        click.option("--collection", default="default", help="Where to enrol."),
        click.option("--create-collection", is_flag=True, help="Make the collection if it is not there."),
        click.option("--largest-face", is_flag=True, help="Of photos with several faces, enrol the largest."),
        click.option("--dry-run", is_flag=True, help="Look at every photo and say what would come of it; enrol none."),
        click.option("--workers", type=click.IntRange(1, 256), help="Batches at a time [one per core, and one more]."),
        click.option("--report", type=click.Path(path_type=Path, dir_okay=False), default=report, help="A CSV file."),
        click.option(f"--{to}url", "url", help="A running service to send the photos to, instead of working here."),
        click.option(f"--{to}key", "key", envvar=config.API_KEY_ENV, help="Its API key.", show_envvar=True),
        common_options,
    ]

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@enrolling_options("enroll-report.csv", "")
def enroll(folder: Path, **options: Any) -> None:
    """Enrol the photos below DIR, whose subfolders are people: DIR/Ada/1.jpg is a photo of Ada.

    Folders further below belong to the same person. What is enrolled already is not done again, so the command can
    be interrupted and repeated. Exit code 0: all photos are enrolled; 4: some are not, the report says which and
    why; 1: it could not be done, or not to its end; 130: interrupted.
    """
    from recognizer.enrolling.folder import Folder

    wish = Wish(**options)
    most_bytes = MOST_BYTES_REMOTE if wish.url else wish.settings().max_image_bytes
    sys.exit(_run(Folder(folder, most_bytes), wish, "enroll"))


@click.group("migrate-from")
def migrate_from() -> None:
    """Move in from another face service."""


@migrate_from.command()
@click.option("--url", "from_url", required=True, help="CompreFace, such as http://localhost:8000.")
@click.option(
    "--key", "from_key", required=True, envvar="COMPREFACE_API_KEY", show_envvar=True, help="Of a RECOGNITION service."
)
@enrolling_options("migration-report.csv", "to-")
def compreface(from_url: str, from_key: str, **options: Any) -> None:
    """Enrol the subjects of a running CompreFace, with the photos that it keeps.

    Its embeddings are of other models and cannot be compared with ours, so the photos are looked at anew. Nothing is
    changed in CompreFace. Can be interrupted and repeated; exit codes as those of `enroll`.
    """
    from recognizer.enrolling.compreface import CompreFace

    with closing(CompreFace(from_url, from_key)) as source:
        sys.exit(_run(source, Wish(**options), "migrate-from"))


def _enroller(wish: Wish, command: str) -> AbstractContextManager[Enroller]:
    from recognizer.enrolling.items import Manner

    actor = f"recognizer {command}"
    manner = Manner(wish.collection, wish.create_collection, wish.largest_face, wish.dry_run, actor)
    if wish.url:
        from recognizer.enrolling.remote import remote_enroller

        return remote_enroller(wish.url, wish.key, manner)
    from recognizer.enrolling.local import local_enroller

    return local_enroller(wish.settings(), manner)


def _run(source: Source, wish: Wish, command: str) -> int:
    """Enrol all of a source, and return the exit code."""
    from recognizer.enrolling import pipeline
    from recognizer.enrolling.progress import Progress
    from recognizer.enrolling.report import Report
    from recognizer.enrolling.summary import summary

    stop = threading.Event()
    complete, failure = False, ""
    total = source.count()
    workers = wish.workers or config.available_cores() + 1
    with (
        _enroller(wish, command) as enroller,
        Report(wish.report) as report,
        _interruptible(stop),
        Progress(total) as progress,
    ):
        tell = _Teller(report, progress, pipeline.Namesakes())
        try:
            complete = pipeline.run(source, enroller, tell, workers=workers, stop=stop)
        except RecognizerError as error:
            failure = str(error)
    for line in summary(report):
        click.echo(line)
    if failure:
        click.echo(f"Error: {failure} The rest was not tried; run the same command again to go on.", err=True)
        return EXIT_ABORTED
    if not complete:
        click.echo("Interrupted; run the same command again to go on.", err=True)
        return EXIT_INTERRUPTED
    return EXIT_LEFT_OUT if report.left_out else 0


class _Teller:
    """Hears what came of each photo."""

    def __init__(self, report: Report, progress: Progress, namesakes: Namesakes) -> None:
        self._report, self._progress, self._namesakes = report, progress, namesakes

    def __call__(self, row: Row) -> None:
        self._report.add(row)
        self._progress.step()
        if earlier := self._namesakes.of(row.person):
            self._progress.say(f"`{row.person}` and `{earlier}` are the same name without regard to case: one person.")


@contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C, or SIGTERM, sets `stop`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            click.echo("Finishing the photos that are begun.", err=True)
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
