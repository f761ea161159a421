"""The command line: serve, keys, migrate, calibrate. It reads the settings and calls the layers below."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from recognizer import (
    __version__,
    audit_command,
    backup_command,
    config,
    encryption_command,
    enroll_command,
    installation,
    re_embed_command,
    retention_command,
    scrub_command,
    supervisor,
    transfer_command,
)
from recognizer.config import Settings
from recognizer.errors import RecognizerError
from recognizer.gallery import audit
from recognizer.gallery.keys import MAX_DAYS, SCOPES, KeyRecord, Keys
from recognizer.gallery.pool import Pool
from recognizer.options import common_options
from recognizer.servers.child import COMMANDS as SERVERS

PICTURE_FILE = click.Path(path_type=Path, dir_okay=False)


class Sentences(click.Group):
    """Ends a command that fails with the error's sentence and exit code 1, never with a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except RecognizerError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Sentences, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="recognizer")
@click.pass_context
def main(context: click.Context) -> None:
    """A face-recognition service that people can leave running."""
    context.with_resource(audit.acting(f"recognizer {context.invoked_subcommand}"))


main.add_command(audit_command.audit)
main.add_command(retention_command.retention)
transfer_command.register(main)
enroll_command.register(main)
encryption_command.register(main)
backup_command.register(main)
scrub_command.register(main)
re_embed_command.register(main)


@main.command()
@common_options
@click.option("--host", help="Where to listen; 127.0.0.1 is this machine only, anything else needs an API key.")
@click.option("--port", type=int, help="The port to listen on (8000).")
@click.option("--workers", type=int, help="Server processes (one per core).")
@click.option("--threads", type=int, help="Requests at a time in each of them (4).")
@click.option("--server", type=click.Choice(list(SERVERS)), help="What serves (gunicorn; on Windows waitress).")
@click.option("--dev", is_flag=True, help="For developing: --server development, which reloads changed files.")
def serve(config_file: Path | None, dev: bool, **overrides: Any) -> None:
    """Run the service until it is told to stop (Ctrl-C or SIGTERM)."""
    if dev:
        overrides["server"] = "development"

    def load() -> Settings:
        return config.load(overrides, config_file)

    sys.exit(supervisor.run(load(), load))


@main.command()
@common_options
def migrate(config_file: Path | None, data_dir: Path | None) -> None:
    """Bring the database to this version's schema; `serve` does so by itself."""
    with installation.database(config.load({"data_dir": data_dir}, config_file)):
        click.echo("The database is up to date.")


@main.command()
@common_options
def check(config_file: Path | None, data_dir: Path | None) -> None:
    """Show the settings in force and where they come from, and test every part without serving."""
    from recognizer import check as checks  # it loads the models' libraries; no other command needs them

    overrides = {"data_dir": data_dir}
    settings, origins = config.load(overrides, config_file), config.origins(overrides, config_file)
    for name, value in settings.masked().items():
        click.echo(f"{name:<26} {value!s:<32} {origins[name]}")
    click.echo()
    failed = 0
    for finding in checks.findings(settings):
        failed += not finding.ok
        click.secho(f"{'ok' if finding.ok else 'FAILED':<8}", fg="green" if finding.ok else "red", nl=False)
        click.echo(f"{finding.part:<10} {finding.detail}")
    if failed:
        raise click.ClickException(f"{failed} of the parts would not work; mend what is marked FAILED.")


@main.command()
@common_options
@click.option("--collection", default="default", help="The collection to look at.")
@click.option("--picture", type=PICTURE_FILE, help="Draw the two distributions to this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def calibrate(
    config_file: Path | None, data_dir: Path | None, collection: str, picture: Path | None, as_json: bool
) -> None:
    """Say what to expect from the enrolled people, which target to take, and which photos to mend."""
    from recognizer import calibrate_command  # it loads numerical libraries; the commands above do without

    report = calibrate_command.report(config.load({"data_dir": data_dir}, config_file), collection)
    click.echo(calibrate_command.written(report, as_json))
    if picture:
        calibrate_command.save_picture(report, picture)


EXPIRES = click.option(
    "--expires-in-days", "days", type=click.IntRange(1, MAX_DAYS), help="How long it is valid from now on."
)


@main.group()
def keys() -> None:
    """API keys: who may use the service."""


@keys.command("create")
@common_options
@click.option("--label", default="", help="What the key is for, for example 'front door camera'.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="Repeatable; default: all.")
@click.option("--collection", help="The one collection that the key may use; default: all.")
@EXPIRES
def create_key(
    config_file: Path | None,
    data_dir: Path | None,
    label: str,
    scopes: tuple[str, ...],
    collection: str | None,
    days: int | None,
) -> None:
    """Make a key and show it once. From then on every request needs one, on this machine too."""
    end = _after(days)
    with _keys(config.load({"data_dir": data_dir}, config_file)) as store:
        record, secret = store.create(scopes=scopes or SCOPES, collection=collection, label=label, expires_at=end)
    click.echo(f"Key {record.id} for {_described(record)}. It is shown only now:", err=True)
    click.echo(secret)


@keys.command("list")
@common_options
def list_keys(config_file: Path | None, data_dir: Path | None) -> None:
    """Show all keys, without their secrets."""
    with _keys(config.load({"data_dir": data_dir}, config_file)) as store:
        records = store.list()
    if not records:
        click.echo("There is no key; the service answers only requests from this machine.")
    for record in records:
        used = f"last used {record.last_used_at:%Y-%m-%d %H:%M}" if record.last_used_at else "never used"
        about = f"created {record.created_at:%Y-%m-%d}  {used:<26}  {_described(record)}  {record.label}"
        click.echo(f"{record.id}  {_state(record):<24}  {about}")


@keys.command("rotate")
@common_options
@click.argument("key_id")
@EXPIRES
def rotate_key(config_file: Path | None, data_dir: Path | None, key_id: str, days: int | None) -> None:
    """Give the key KEY_ID (from `keys list`) a new secret and show it once; the old one is not valid any more."""
    with _keys(config.load({"data_dir": data_dir}, config_file)) as store:
        record, secret = store.rotate(key_id, expires_at=_after(days))
    click.echo(f"Key {record.id} for {_described(record)} has a new secret. It is shown only now:", err=True)
    click.echo(secret)


@keys.command("revoke")
@common_options
@click.argument("key_id")
def revoke_key(config_file: Path | None, data_dir: Path | None, key_id: str) -> None:
    """End the validity of the key KEY_ID (from `keys list`) at once."""
    with _keys(config.load({"data_dir": data_dir}, config_file)) as store:
        store.revoke(key_id)
    click.echo(f"Key {key_id} is revoked.")


@contextmanager
def _keys(settings: Settings) -> Iterator[Keys]:
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        yield Keys(pool)


def _described(key: KeyRecord) -> str:
    everywhere = "all collections (or one that has been deleted)" if key.revoked_at else "all collections"
    where = f"collection {key.collection}" if key.collection else everywhere
    return f"{', '.join(key.scopes)} in {where}"


def _state(key: KeyRecord) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at:
        return f"{'expires' if key.is_valid else 'expired'} {key.expires_at:%Y-%m-%d %H:%M}"
    return "active"


def _after(days: int | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)
