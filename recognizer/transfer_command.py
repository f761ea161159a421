"""`recognizer export` and `recognizer import`: people as a file. Numerical libraries are loaded only when they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from recognizer import config, installation
from recognizer.options import common_options

if TYPE_CHECKING:
    from recognizer.moving.importing import Imported
    from recognizer.moving.progress import Advance

EXPORT_SECONDS = 12 * 3600.0

NEW_FILE = click.Path(path_type=Path, dir_okay=False)
FILE = click.Path(path_type=Path, exists=True)


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(export)
    group.add_command(import_)


@click.command()
@common_options
@click.argument("file", type=NEW_FILE)
@click.option("--collection", default="default", help="The collection to export.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def export(config_file: Path | None, data_dir: Path | None, file: Path, collection: str, force: bool) -> None:
    """Write all people of a collection to FILE, for `recognizer import`; the service may go on.

    FILE holds names and embeddings in clear: keep it as you keep the database.
    """
    from recognizer.deadline import Deadline
    from recognizer.gallery.pool import Pool
    from recognizer.moving.exporting import export as write

    settings = config.load({"data_dir": data_dir}, config_file)
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        deadline = Deadline(EXPORT_SECONDS)
        found = write(pool, collection, file, deadline, force=force, progress=shown).collection
    click.echo(
        f"{file}: {_many(found.people, 'person', 'people')}, {_many(found.faces, 'face')} and "
        f"{_many(found.rejections, 'rejection')} of the collection {found.name}, revision {found.revision}."
    )


@click.command("import")
@common_options
@click.argument("file", type=FILE)
@click.option("--collection", help="Where the people go; default: the collection of the export, or `default`.")
@click.option("--names", type=FILE, help="For an .npy file: whose each row is, one name a line.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be done.")
def import_(
    config_file: Path | None,
    data_dir: Path | None,
    file: Path,
    collection: str | None,
    names: Path | None,
    dry_run: bool,
) -> None:
    """Bring the people of FILE into a collection: an export, or encodings of face_recognition.

    FILE is what `recognizer export` wrote, or names with 128 numbers each as .npz, .npy, .csv or .json; docs/moving.md
    says how. Who is in the collection already gets the faces; what was cut off is done by running it again.
    """
    from recognizer.gallery.pool import Pool
    from recognizer.gallery.template_index import TemplateIndex
    from recognizer.moving.importing import Import
    from recognizer.moving.sources import opened
    from recognizer.vision.analysis import model_id
    from recognizer.vision.weights import resnet_sha256

    settings = config.load({"data_dir": data_dir}, config_file)
    # the name of the model's files is all it takes to know which faces can be compared
    resnet = resnet_sha256()
    here = model_id(resnet, settings.detector, settings.embedding_crops)
    with (
        opened(file, names, model_id(resnet, "hog", 1)) as source,
        installation.database(settings) as url,
        Pool.open(settings, url) as pool,
    ):
        work = Import(
            pool,
            source,
            collection or source.collection.name,
            here,
            shown,
            TemplateIndex(url, installation.index_means(settings)),
            installation.free_bytes(settings),
        )
        done = work.preview() if dry_run else work.run()
    for line in (*source.remarks, *_written(file, done, dry_run)):
        click.echo(line)


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
