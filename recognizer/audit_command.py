"""`recognizer audit`: the trail of who did what, checked, listed and written out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click

from recognizer import config, installation
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import InvalidRequest, StartupError
from recognizer.gallery import chain
from recognizer.gallery.chain import Anchor, Head
from recognizer.gallery.pool import Pool
from recognizer.gallery.trail import MAX_PAGE, KeptEntry, Trail, TrailQuery
from recognizer.host import datadir
from recognizer.host.account import existing_account
from recognizer.options import Command, common_options
from recognizer.spreadsheets import Table

HEAD_FILE = "audit-head"
IF_RESTORED = " If you have restored an older backup, --accept takes the trail as it is now."
READ_SECONDS = 30.0

MEMBERS = ("number", "at", "actor", "action", "collection", "subject", "detail", "request_id", "hash")


@click.group()
def audit() -> None:
    """The audit trail: who enrolled, looked up, changed, exported and erased whom."""


@audit.command()
@common_options
@click.option("--head", help="NUMBER:HASH of an earlier time that was kept elsewhere.")
@click.option("--accept", is_flag=True, help="Take the trail as it is now for right, after restoring an older backup.")
def verify(config_file: Path | None, data_dir: Path | None, head: str | None, accept: bool) -> None:
    """Look for entries that were changed, taken out, put in or cut off, and keep the head for the next time."""
    settings = config.load({"data_dir": data_dir}, config_file)
    given = [] if head is None else [Anchor(Head.read(head), "--head")]
    with _pool(settings) as pool:
        file = settings.data_dir / HEAD_FILE
        kept = [] if accept else _kept_head(file)
        found = chain.verify(pool, [*given, *kept], _tell)
        if found.fault is not None:
            raise click.ClickException(found.fault + (IF_RESTORED if found.is_of_anchor else ""))
        _keep_head(settings, file, found.head)
    times = f", from {found.first:%Y-%m-%d %H:%M:%S} to {found.last:%Y-%m-%d %H:%M:%S} UTC" if found.first else ""
    click.echo(f"The audit trail is whole: {found.head.number:,} entries{times}.")
    click.echo(f"Head: {found.head}")


def filters(command: Command) -> Command:
    """The options that say which entries are meant."""
    moment = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
    for option in (
        click.option("--until", type=moment, help="Only before this moment, UTC."),
        click.option("--since", type=moment, help="Only from this moment on, UTC."),
        click.option("--actor", help="Only what this API key (its id), command or keeper did."),
        click.option("--action", help="Only this, for example 'erased'."),
        click.option("--person", "person_id", help="Only about the person of this id, who may be erased by now."),
        click.option("--collection", help="Only in this collection."),
    ):
        command = option(command)
    return command


@audit.command("list")
@common_options
@filters
@click.option("--limit", type=click.IntRange(1, MAX_PAGE), default=50, help="How many, the newest first.")
def list_entries(config_file: Path | None, data_dir: Path | None, limit: int, **asked: Any) -> None:
    """Show the newest entries."""
    query = _query(asked)
    with _pool(config.load({"data_dir": data_dir}, config_file)) as pool:
        entries, _ = Trail(pool).page(query, limit, None, Deadline(READ_SECONDS))
    for entry, _ in entries:
        subject = entry.subject.hex()[:16] if entry.subject else "-"
        where = entry.collection or "-"
        at = f"{entry.at:%Y-%m-%d %H:%M:%S}"
        click.echo(
            f"{entry.number:>8}  {at}  {entry.actor:<18}  {entry.action:<18}  {where}  {subject}  {entry.detail}"
        )


@audit.command()
@common_options
@filters
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header instead of JSON lines.")
def export(config_file: Path | None, data_dir: Path | None, as_csv: bool, **asked: Any) -> None:
    """Write the entries to standard output, the oldest first: JSON, one on each line, or CSV."""
    query = _query(asked)
    table = Table(sys.stdout)
    if as_csv:
        table.write(MEMBERS)
    with _pool(config.load({"data_dir": data_dir}, config_file)) as pool:
        entries = Trail(pool).entries(query, READ_SECONDS)
        while some := list(islice(entries, MAX_PAGE)):
            for kept in some:
                values = _plain(kept)
                if as_csv:
                    table.write(values)
                else:
                    sys.stdout.write(json.dumps(dict(zip(MEMBERS, values, strict=True)), ensure_ascii=False) + "\n")
            sys.stdout.flush()


@contextmanager
def _pool(settings: Settings) -> Iterator[Pool]:
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        yield pool


def _query(asked: dict[str, Any]) -> TrailQuery:
    moments = {name: at and at.replace(tzinfo=UTC) for name, at in asked.items() if isinstance(at, datetime)}
    return TrailQuery(**{**asked, **moments})


def _plain(kept: KeptEntry) -> list[Any]:
    """The values of `MEMBERS`; `detail` is text, exactly what was hashed."""
    entry, stored = kept
    subject = None if entry.subject is None else entry.subject.hex()
    plain = entry._replace(subject=None)._asdict() | {"at": entry.at.astimezone(UTC).isoformat(), "subject": subject}
    return [*plain.values(), stored.hex()]


def _kept_head(file: Path) -> list[Anchor]:
    """The head that the last `verify` has left, if there is one."""
    try:
        return [Anchor(Head.read(file.read_text(encoding="ascii")), str(file))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, InvalidRequest) as error:
        raise StartupError(f"The file {file} cannot be read or holds no head; --accept replaces it.") from error


def _keep_head(settings: Settings, file: Path, head: Head) -> None:
    try:
        if settings.database_url is not None:  # else it is there, for the database is in it
            datadir.prepare(settings.data_dir, existing_account())
        datadir.write_private(file, f"{head}\n")
    except OSError as error:
        raise StartupError(f"The trail is whole, but the file {file} cannot be written: {error.strerror}.") from error


def _tell(done: int, of: int) -> None:
    """How far it is, on one line of a terminal that goes away in the end."""
    if sys.stderr.isatty():
        click.echo(f"\r{done:,} of {of:,} entries looked at " if done < of else "\r\x1b[K", nl=False, err=True)
