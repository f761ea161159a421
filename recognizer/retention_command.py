"""`recognizer retention`: who has been kept for as long as their collection keeps people; listed, or erased now."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from recognizer import config, installation
from recognizer.deadline import Deadline
from recognizer.gallery.collections import MAX_RETENTION_DAYS
from recognizer.gallery.pool import Pool
from recognizer.options import common_options

READ_SECONDS = 30.0

AT_IT = "the service, or another command, is at it just now."


@click.command()
@common_options
@click.option("--collection", help="Only in this collection; default: in all that keep people for a time.")
@click.option("--dry-run", is_flag=True, help="Only list who would be erased.")
@click.option(
    "--days", type=click.IntRange(1, MAX_RETENTION_DAYS), help="With --dry-run: as if `retention_days` were so many."
)
def retention(
    config_file: Path | None, data_dir: Path | None, collection: str | None, dry_run: bool, days: int | None
) -> None:
    """Erase who had no new photo for `retention_days` of their collection; the service does it every hour."""
    from recognizer.gallery import retention as keeping  # it loads numerical libraries; other commands do without

    if days is not None and not dry_run:
        raise click.UsageError("--days goes with --dry-run; set `retention_days` of the collection to erase by it.")
    settings = config.load({"data_dir": data_dir}, config_file)
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        names = keeping.collections_with_retention(pool, Deadline(READ_SECONDS), collection, days)
        if not names:
            click.echo("No collection keeps people for a limited time; set `retention_days` of one.")
        for name in names:
            if dry_run:
                found = 0
                for person_id, called, latest, over in keeping.due(pool, name, days):
                    click.echo(f"{person_id}  {called}  last photo {latest:%Y-%m-%d}  {over} days over")
                    found += 1
                click.echo(f"{name}: {_people(found)} would be erased.")
            else:
                erased = keeping.erase_due(pool, name, threading.Event())
                click.echo(f"{name}: {AT_IT if erased is None else f'{_people(erased)} erased.'}")


def _people(number: int) -> str:
    return "1 person" if number == 1 else f"{number:,} people"
