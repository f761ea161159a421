"""`recognizer export` and `recognizer import`: people as a file. Numerical libraries are loaded only when they run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from recognizer import config, installation
from recognizer.enroll_command import EXIT_LEFT_OUT
from recognizer.enrolling.report import Report
from recognizer.enrolling.summary import summary
from recognizer.host.signals import sigterm_unwinds
from recognizer.options import common_options

if TYPE_CHECKING:
    from recognizer.moving.exporting import Export
    from recognizer.moving.importing import Import, Imported
    from recognizer.moving.progress import Advance

EXPORT_SECONDS = 12 * 3600.0

NEW_FILE = click.Path(path_type=Path, dir_okay=False)
FILE = click.Path(path_type=Path, exists=True)

REPORT = Path("import-report.csv")


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(export)
    group.add_command(import_)


@click.command()
@common_options
@click.argument("file", type=NEW_FILE)
@click.option("--collection", default="default", help="The collection to export.")
@click.option("--photos", is_flag=True, help="With the photos that are kept, which are not encrypted in FILE.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def export(
    config_file: Path | None, data_dir: Path | None, file: Path, collection: str, photos: bool, force: bool
) -> None:
    """Write all people of a collection to FILE, for `recognizer import`; the service may go on.

    FILE holds names and embeddings in clear, and with --photos also photos: keep it as you keep the database.
    Exit code 4: kept photos are damaged and not in FILE, all else is.
    """
    from recognizer.deadline import Deadline
    from recognizer.gallery.pool import Pool
    from recognizer.moving.exporting import export as write

    settings = config.load({"data_dir": data_dir}, config_file)
    with sigterm_unwinds(), installation.database(settings) as url, Pool.open(settings, url) as pool:
        deadline = Deadline(EXPORT_SECONDS)
        done = write(pool, collection, file, deadline, photos=photos, force=force, progress=shown)
    found = done.collection
    click.echo(
        f"{file}: {_many(found.people, 'person', 'people')}, {_many(found.faces, 'face')} and "
        f"{_many(found.rejections, 'rejection')} of the collection {found.name}, revision {found.revision}."
    )
    if photos:
        _say_of_photos(file, done)
    if done.damaged_photos:
        sys.exit(EXIT_LEFT_OUT)


def _say_of_photos(file: Path, done: Export) -> None:
    kept, damaged = done.collection.photos, done.damaged_photos
    if kept:
        click.echo(
            f"{file} holds {_many(kept, 'photo')} IN CLEAR: they are encrypted in the database, and not in this file. "
            "Only you may read it (0600); delete it once it is imported.",
            err=True,
        )
    if damaged:
        click.echo(f"{_many(damaged, 'kept photo')} cannot be decrypted and are not in it; restore a backup.", err=True)
    if not kept and not damaged:
        click.echo(f"No photos are kept in the collection {done.collection.name}, so there are none in it.", err=True)


@click.command("import")
@common_options
@click.argument("file", type=FILE)
@click.option("--collection", help="Where the people go; default: the collection of the export, or `default`.")
@click.option("--names", type=FILE, help="For an .npy file: whose each row is, one name a line.")
@click.option("--re-embed", is_flag=True, help="Encode the faces anew, from the photos of an export --photos.")
@click.option("--report", type=NEW_FILE, help="With --re-embed: what came of each face [import-report.csv].")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be done.")
def import_(
    config_file: Path | None,
    data_dir: Path | None,
    file: Path,
    collection: str | None,
    names: Path | None,
    re_embed: bool,
    report: Path | None,
    dry_run: bool,
) -> None:
    """Bring the people of FILE into a collection: an export, or encodings of face_recognition.

    FILE is what `recognizer export` wrote, or names with 128 numbers each as .npz, .npy, .csv or .json; docs/moving.md
    says how. Who is in the collection already gets the faces; what was cut off is done by running it again.
    With --re-embed exit code 4 means that some faces are left out; the report says which and why.
    """
    if report is not None and not re_embed:
        raise click.UsageError("--report goes with --re-embed.")
    settings = config.load({"data_dir": data_dir}, config_file)
    with ExitStack() as closing:
        work = _import(settings, file, names, collection, closing)
        faces: Report | None = None
        if re_embed:
            from recognizer.import_anew import encoding_anew

            anew, faces = closing.enter_context(encoding_anew(settings, report or REPORT, dry_run))
            work = replace(work, anew=anew)
        done = work.preview() if dry_run else work.run()
    for line in (*work.source.remarks, *_written(file, done, dry_run), *(summary(faces) if faces else ())):
        click.echo(line)
    if faces and faces.left_out:
        sys.exit(EXIT_LEFT_OUT)


def _import(
    settings: config.Settings, file: Path, names: Path | None, collection: str | None, closing: ExitStack
) -> Import:
    """What is to be imported, and where to; open until `closing` is closed."""
    from recognizer.gallery.pool import Pool
    from recognizer.gallery.template_index import TemplateIndex
    from recognizer.moving.importing import Import
    from recognizer.moving.sources import opened
    from recognizer.vision.analysis import model_id
    from recognizer.vision.weights import resnet_sha256

    # the name of the model's files is all it takes to know which faces can be compared
    resnet = resnet_sha256()
    here = model_id(resnet, settings.detector, settings.embedding_crops)
    source = closing.enter_context(opened(file, names, model_id(resnet, "hog", 1)))
    url = closing.enter_context(installation.database(settings))
    pool = closing.enter_context(Pool.open(settings, url))
    return Import(
        pool,
        source,
        collection or source.collection.name,
        here,
        shown,
        settings.max_image_bytes,
        index=TemplateIndex(url, installation.index_means(settings)),
        free_bytes=installation.free_bytes(settings),
    )


def _written(file: Path, done: Imported, dry_run: bool) -> Iterator[str]:
    """What an import did, or would do."""
    tally = done.tally
    would = "Would bring" if dry_run else "Brought"
    new = " (new)" if done.made else ""
    yield (
        f"{would} into the collection {done.collection}{new}: {_many(tally.people, 'person', 'people')}, "
        f"{_many(tally.faces, 'face')}, {_many(tally.rejections, 'rejection')}."
    )
    there = (tally.people_there, tally.faces_there, tally.rejections_there)
    if any(there):
        people, faces, rejections = there
        yield (
            f"There already: {_many(people, 'person', 'people')}, {_many(faces, 'face')}, "
            f"{_many(rejections, 'rejection')}."
        )
    if tally.photos or tally.photos_there:
        keep = "Would keep" if dry_run else "Kept"
        yield f"{keep}, encrypted: {_many(tally.photos, 'photo')}; there already: {tally.photos_there:,}."
    if tally.photos_left_out:
        yield (
            f"Left out: {_many(tally.photos_left_out, 'photo')}, for the collection keeps none; set its keep_photos "
            f"(PATCH /v1/collections/{done.collection}) and import the file again to have them kept."
        )
    if done.rejections_left_out:
        yield f"Left out: {_many(done.rejections_left_out, 'rejection')} of another model; there are no photos of them."
    if tally.new_ids:
        yield f"{_many(tally.new_ids, 'id')} of the file are used elsewhere in this database; new ones are given."
    for setting, value in done.kept_settings.items():
        yield f"The collection keeps its own {setting}: {value}."
    if dry_run:
        yield f"Nothing was written; run it again without --dry-run to import {file}."


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


@contextmanager
def shown(what: str, unit: str, total: int) -> Iterator[Advance]:
    """A progress bar with rate and remaining time; nothing where standard error is no terminal."""
    shown = unit if unit == "B" else f" {unit}s"
    with tqdm(
        total=total, desc=what, unit=shown, unit_scale=True, dynamic_ncols=True, disable=None, leave=False
    ) as bar:
        yield bar.update
