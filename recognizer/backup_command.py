"""`recognizer backup` and `recognizer restore`: everything in one file, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from tqdm import tqdm

from recognizer import __version__, backup_file, config, installation
from recognizer.audit_command import HEAD_FILE
from recognizer.backup_file import Manifest
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import BackupError
from recognizer.gallery import inventory
from recognizer.gallery import restore as database
from recognizer.host.signals import sigterm_unwinds
from recognizer.options import common_options
from recognizer.postgres import archives, programs

LIMIT_SECONDS = 24 * 3600.0
NOTE_SECONDS = 30.0

FILE = click.Path(path_type=Path, dir_okay=False)


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(backup)
    group.add_command(restore)


@click.command()
@common_options
@click.argument("file", type=FILE)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def backup(config_file: Path | None, data_dir: Path | None, file: Path, force: bool) -> None:
    """Copy everything to FILE and check it: people, faces, kept photos, keys, the audit trail. The service goes on.

    FILE is as confidential as the gallery itself. The encryption keys are not in it: keep them somewhere else, for
    without them what is encrypted in it is lost.
    """
    settings = config.load({"data_dir": data_dir}, config_file)
    with sigterm_unwinds(), installation.database(settings) as url:
        manifest = _back_up(url, file, force)
    rows = manifest.rows
    click.echo(
        f"{file}: {file.stat().st_size:,} bytes, {rows['people']:,} people, {rows['faces']:,} faces, "
        f"{rows.get('photos', 0):,} photos. Written and read back."
    )
    click.echo(_about_keys(manifest, settings))


@click.command()
@common_options
@click.argument("file", type=FILE)
@click.option("--replace", is_flag=True, help="Replace everything that is in the database now.")
def restore(config_file: Path | None, data_dir: Path | None, file: Path, replace: bool) -> None:
    """Make the database what it was when FILE was written by `recognizer backup`; the service must be stopped.

    FILE is checked first. All of it is restored or nothing. Who was erased since is back: erase them again.
    """
    settings = config.load({"data_dir": data_dir}, config_file)
    manifest = backup_file.manifest_of(file)
    database.check_known(manifest.migrations)
    _read_through(file, manifest, "checking")
    with installation.lone_database(settings) as url:
        applied = _restore(url, file, manifest, replace)
    rows = manifest.rows
    click.echo(
        f"Restored as of {manifest.created_at:%Y-%m-%d %H:%M} UTC: {rows['people']:,} people, {rows['faces']:,} faces, "
        f"{rows.get('photos', 0):,} photos, {rows.get('api_keys', 0):,} API keys."
    )
    if applied:
        click.echo(f"The schema was brought up to date: {', '.join(applied)}.")
    click.echo("Whoever was erased since the backup was made is back; erase them again.")
    if (settings.data_dir / HEAD_FILE).exists():
        click.echo("The audit trail is the backup's too: `recognizer audit verify --accept` takes it for right.")
    if replace:
        click.echo("What was there before is no longer in any table; `recognizer scrub` takes it out of the files too.")
    click.echo(_about_missing_keys(manifest, settings))


def _back_up(url: str, file: Path, force: bool) -> Manifest:
    with inventory.snapshot(url, Deadline(LIMIT_SECONDS)) as state:
        _check_version(state.server_version)
        where = inventory.target(url)
        about = {
            "program": __version__,
            "created_at": state.at,
            "postgresql": state.server_version,
            "migrations": state.migrations,
            "rows": state.rows,
            "encryption_keys": state.encryption_keys,
        }

        def dump(out: backup_file.Hashed) -> None:
            archives.dump(where.dsn, where.password, state.schema, state.name, out.write)

        with backup_file.written(file, state.database_bytes, force) as path:
            with _progress("writing", None) as moved:
                backup_file.write(path, dump, about, moved)
            manifest = backup_file.manifest_of(path)
            _read_through(path, manifest, "reading back")
            inventory.note(url, Deadline(NOTE_SECONDS), manifest.rows["people"])
    return manifest


def _check_version(server_version: int) -> None:
    server = server_version // 10000
    if server > programs.MAJOR:
        raise BackupError(
            f"The server is PostgreSQL {server}, which pg_dump of {programs.MAJOR} (it comes with this program) cannot "
            f"read. Use that of PostgreSQL {server}: pg_dump --format=custom --file=recognizer.dump URL."
        )


def _read_through(file: Path, manifest: Manifest, what: str) -> None:
    """Make sure that the whole file can be read, and is as it was written.

    Raises:
        BackupError: it is not.
    """
    with (
        _progress(what, manifest.dump_bytes) as moved,
        backup_file.dump_in(file, manifest, moved) as dump,
        archives.as_sql(dump) as sql,
    ):
        while sql.read(2**20):
            pass


def _restore(url: str, file: Path, manifest: Manifest, replace: bool) -> list[str]:
    plan = database.Plan(manifest.created_at, manifest.migrations, manifest.rows)
    with (
        _progress("restoring", manifest.dump_bytes) as moved,
        backup_file.dump_in(file, manifest, moved) as dump,
        archives.as_sql(dump) as sql,
    ):
        return database.restore(url, plan, archives.parts(sql), replace=replace, limit_seconds=LIMIT_SECONDS)


@contextmanager
def _progress(what: str, total_bytes: int | None) -> Iterator[Callable[[int], object]]:
    """A line on a terminal that goes away in the end; call what it gives with the bytes that were moved."""
    with tqdm(desc=what, total=total_bytes, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        yield bar.update


def _about_keys(manifest: Manifest, settings: Settings) -> str:
    if not manifest.encryption_keys:
        return "Nothing in it is encrypted; keep it as safe as the database."
    return (
        f"What is encrypted in it needs the key {', '.join(manifest.encryption_keys)}, which is not in it: keep a copy "
        f"of {settings.key_file} (or of RECOGNIZER_ENCRYPTION_KEYS) in another place than the backup."
    )


def _about_missing_keys(manifest: Manifest, settings: Settings) -> str:
    missing = [key_id for key_id in manifest.encryption_keys if key_id not in settings.keyring.ids]
    if missing:
        return (
            f"WARNING: what is encrypted with the key {', '.join(missing)} cannot be read, for that key is not here: "
            f"add it to {settings.key_file} before you start the service."
        )
    if manifest.encryption_keys:
        return f"The encryption key that it takes ({', '.join(manifest.encryption_keys)}) is here."
    return "It takes no encryption key."
