"""`recognizer re-embed`: after a change of detector, crops or weights, from the photos that are kept."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from recognizer import config, installation
from recognizer.options import common_options


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(re_embed)


@click.command("re-embed")
@common_options
@click.option("--collection", help="The collection whose faces are encoded anew; default: all.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
def re_embed(config_file: Path | None, data_dir: Path | None, collection: str | None, dry_run: bool) -> None:
    """Encode faces anew, from their kept photos, that another model has encoded; the service may go on.

    It may be stopped at any time and goes on when it is run again.
    """
    from recognizer.deadline import Deadline  # numerical libraries are loaded only when this runs
    from recognizer.gallery.collections import find_with_id
    from recognizer.gallery.pool import Pool
    from recognizer.gallery.re_embedding import OldFaces
    from recognizer.re_embedding import re_embed as encode_anew
    from recognizer.transfer_command import shown
    from recognizer.vision.engine import open_engine

    settings = config.load({"data_dir": data_dir}, config_file)
    with (
        installation.database(settings) as url,
        Pool.open(settings, url) as pool,
        closing(open_engine(settings)) as engine,
    ):
        collection_id = None
        if collection is not None:
            with pool.connection(Deadline(settings.request_timeout_seconds)) as connection:
                collection_id, _ = find_with_id(connection.cursor(), collection, 0)
        old = OldFaces(pool, engine.model_id, collection_id)
        waiting = old.waiting()
        click.echo(f"{waiting.with_photo:,} faces of another model than {engine.model_id} have a kept photo.")
        if waiting.without_photo:
            click.echo(f"{waiting.without_photo:,} have none and stay as they are; enrol these people anew.")
        if dry_run or not waiting.with_photo:
            return
        done = encode_anew(old, engine, shown)
    click.echo(f"{done.changed:,} faces are encoded anew.")
    if done.not_found or done.damaged:
        raise click.ClickException(
            f"{done.not_found:,} faces were not found again in their photos, {done.damaged:,} photos are damaged; "
            "these stay as they were."
        )
