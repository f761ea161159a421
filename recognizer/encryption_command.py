"""`recognizer encryption`: keys are made, changed and looked at; what is stored is encrypted anew."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from tqdm import tqdm

from recognizer import config, installation
from recognizer.config import Settings
from recognizer.errors import ConfigError, EncryptionKeyMissing, SealBroken, StartupError
from recognizer.gallery import resealing
from recognizer.gallery.pool import Pool
from recognizer.gallery.resealing import Sealed
from recognizer.host import datadir
from recognizer.host.account import database_account
from recognizer.keyring import Key, Keyring, new_key, read_keys
from recognizer.moving.progress import Advance
from recognizer.options import common_options
from recognizer.servers.address import readiness

HEADER = """\
# Encryption keys of the recognizer: the first one encrypts, all decrypt. What was encrypted with a key that is lost
# can never be read again: keep a copy of this file, and not where the backups of the database are.
"""

PASSES = 3
"""So often is tried what somebody else was at work on."""


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(encryption)


@click.group()
def encryption() -> None:
    """Encryption keys: what kept photos and embeddings are encrypted with."""


@encryption.command("create-key")
@common_options
def create_key(config_file: Path | None, data_dir: Path | None) -> None:
    """Make the file with the first key."""
    settings = _without_keys(config_file, data_dir)
    path = settings.key_file
    if os.path.lexists(path):
        raise ConfigError(f"There is a file {path} already; `recognizer encryption add-key` adds a key to it.")
    if path.parent == settings.data_dir:
        datadir.prepare(settings.data_dir, database_account() if settings.database_url is None else None)
    key = _write(path)
    click.echo(f"Made the key {key.id} in {path}.")
    click.echo("Keep a copy of this file apart from the backups: without it, what is encrypted is lost.")
    _tell_to_reload(settings)


@encryption.command("add-key")
@common_options
def add_key(config_file: Path | None, data_dir: Path | None) -> None:
    """Make a new key, which encrypts from now on; the others go on to decrypt."""
    settings = _without_keys(config_file, data_dir)
    path = settings.key_file
    key = _write(path, read_keys(path, wanted=path))
    click.echo(f"Made the key {key.id}, the first one in {path} now. Keep a copy of the file apart from the backups.")
    _tell_to_reload(settings)
    click.echo("Then `recognizer encryption re-encrypt` does without the older keys.")


@encryption.command()
@common_options
def status(config_file: Path | None, data_dir: Path | None) -> None:
    """Show which keys there are, and how much needs each of them."""
    settings = config.load({"data_dir": data_dir}, config_file)
    keyring = settings.keyring
    with _pool(settings) as pool:
        found = resealing.by_key(pool)
    if not keyring:
        click.echo("There is no encryption key.")
    for number, key_id in enumerate(keyring.ids):
        use = "encrypts" if number == 0 else "decrypts only"
        click.echo(f"{key_id}  {use:<13}  {_amounts(found, key_id) or 'nothing needs it'}")
    missing = missing_keys(found, keyring)
    for key_id in missing:
        click.secho(f"{key_id}  MISSING        {_amounts(found, key_id)} cannot be read without it", fg="red")
    if missing:
        raise click.ClickException(missing_sentence(found, keyring))


@encryption.command("re-encrypt")
@common_options
def re_encrypt(config_file: Path | None, data_dir: Path | None) -> None:
    """Encrypt with the first key what was encrypted with others; the service may go on.

    It may be stopped at any time and goes on when it is run again.
    """
    settings = config.load({"data_dir": data_dir}, config_file)
    keyring = settings.keyring
    if not keyring:
        raise ConfigError("There is no encryption key; make one with `recognizer encryption create-key`.")
    _require_service_has(settings, keyring.ids[0])
    with _pool(settings) as pool:
        damaged = _reseal_all(pool)
        found = resealing.by_key(pool)
    if damaged:
        raise SealBroken(f"{damaged:,} of them were changed since they were encrypted; restore these from a backup.")
    if missing_keys(found, keyring):
        raise EncryptionKeyMissing(missing_sentence(found, keyring))
    for key_id in keyring.ids[1:]:
        left = _amounts(found, key_id)
        click.echo(
            f"{key_id}  {left} still need it, somebody was at work on them; run it again"
            if left
            else f"{key_id}  nothing needs it any more: take its line out of {settings.key_file} once no backup that "
            "you may restore is older than today"
        )


def missing_keys(found: dict[str, Counter[str]], keyring: Keyring) -> list[str]:
    """The ids of keys that something needs and that are not here."""
    return sorted({key_id for counts in found.values() for key_id in counts} - set(keyring.ids))


def missing_sentence(found: dict[str, Counter[str]], keyring: Keyring) -> str:
    """What to do about missing keys."""
    missing = missing_keys(found, keyring)
    amounts = ", ".join(f"{_amounts(found, key_id)} (key {key_id})" for key_id in missing)
    return f"These cannot be read, their keys are missing: {amounts}. Put the keys back from your copy of the key file."


def _amounts(found: dict[str, Counter[str]], key_id: str) -> str:
    return ", ".join(f"{counts[key_id]:,} {what}" for what, counts in found.items() if counts[key_id])


def _write(path: Path, older: str = "") -> Key:
    """Write the file with a new key before the `older` ones; the file is replaced as a whole or not at all."""
    text = new_key()
    key = Key.of_text(text)
    written = f"{HEADER}{text}  # {key.id}, made {datetime.now(UTC):%Y-%m-%d}\n{older.removeprefix(HEADER)}"
    try:
        datadir.write_private(path, written)
    except OSError as error:
        raise StartupError(f"The key file {path} cannot be written: {error.strerror}.") from error
    return key


def _without_keys(config_file: Path | None, data_dir: Path | None) -> Settings:
    """The settings, whose key file may not be there yet.

    Raises:
        ConfigError: the keys do not come from a file.
    """
    settings = config.load({"data_dir": data_dir}, config_file, read_key_file=False)
    if settings.encryption_keys is not None:
        raise ConfigError(
            "The keys come from the setting `encryption_keys` (RECOGNIZER_ENCRYPTION_KEYS), so no file is read; "
            "change them there, or take the setting away."
        )
    return settings


def _tell_to_reload(settings: Settings) -> None:
    pid, address = datadir.holder(settings.data_dir)
    if address:
        click.echo(f"Now let the service on {address} read it: kill -HUP {pid}")
    click.echo("Where several machines share the database, each of them needs the same file before it is used.")


def _require_service_has(settings: Settings, key_id: str) -> None:
    """See to it that the service of this data directory can decrypt what is encrypted from now on.

    Raises:
        StartupError
    """
    pid, address = datadir.holder(settings.data_dir)
    answer = readiness(settings, address) if address else None
    if answer and key_id not in answer.get("checks", {}).get("encryption", {}).get("keys", []):
        raise StartupError(f"The running service does not have the key {key_id} yet; first kill -HUP {pid}.")


@contextmanager
def _pool(settings: Settings) -> Iterator[Pool]:
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        yield pool


def _reseal_all(pool: Pool) -> int:
    """Encrypt anew whatever can be; returns how much is damaged."""
    found = resealing.by_key(pool)
    to_do = sum(found[each.what][key_id] for each in resealing.SEALED for key_id in pool.keyring.ids[1:])
    if not to_do:
        return 0
    resealing.begin(pool, to_do)
    damaged = set()
    with tqdm(total=to_do, unit=" rows", dynamic_ncols=True, disable=None, leave=False) as bar:
        for _ in range(PASSES):
            for each in resealing.SEALED:
                for key_id in pool.keyring.ids[1:]:
                    damaged |= _reseal_table(pool, each, key_id, bar.update)
    return len(damaged)


def _reseal_table(pool: Pool, sealed: Sealed, key_id: str, advance: Advance) -> set[tuple[str, ...]]:
    last, damaged = None, set()
    while (batch := resealing.reseal_some(pool, sealed, key_id, last)) is not None:
        last = batch.last
        damaged |= {(sealed.table, *row) for row in batch.damaged}
        advance(batch.done)
    return damaged
