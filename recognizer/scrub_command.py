"""`recognizer scrub`: after erasures, takes what is left of the erased out of the database's files."""

from __future__ import annotations

from pathlib import Path

import click

from recognizer import config, installation
from recognizer.gallery.scrub import Rewritten
from recognizer.gallery.scrub import scrub as scrub_database
from recognizer.options import common_options

LIMIT_SECONDS = 12 * 3600.0


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(scrub)


@click.command()
@common_options
def scrub(config_file: Path | None, data_dir: Path | None) -> None:
    """Take the erased out of the database's files too: old rows, indexes, statistics, the write-ahead log.

    Erasing somebody takes them out of every table at once, but PostgreSQL writes over the places where they were only
    later. This writes all tables anew, one after the other, while the service runs. Who needs a table waits until it is
    done: moments in small galleries. At 100,000 people the index takes some four minutes, in which requests are
    answered 503; do it at a quiet hour. It needs as much room on the disk as the largest table has.

    Backups and exports made before are yours to delete.
    """
    settings = config.load({"data_dir": data_dir}, config_file)
    with installation.database(settings) as url:
        report = scrub_database(url, LIMIT_SECONDS, _tell)
    for what in report.remaining:
        click.echo(f"REMAINS  {what}")
    if settings.database_url:
        click.echo("Not reached: standbys, archives of the write-ahead log and backups of your own PostgreSQL server.")
    if not report.remaining:
        click.echo("Written anew: all tables, their indexes and statistics, the write-ahead log.")
    click.echo("Backups and exports that were made before still hold whoever was erased since.")


def _tell(done: Rewritten) -> None:
    sizes = f"{done.bytes_before:>14,} -> {done.bytes_after:>14,} bytes"
    click.echo(f"{done.table:<20}{sizes}  {done.seconds:8.1f} s")
