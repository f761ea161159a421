"""`recognizer check`: the settings in force with their origin, and whether each part would work.

It makes nothing that is not there. The bundled PostgreSQL is started for the check when the service does not run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from recognizer import installation, supervisor
from recognizer.config import Settings
from recognizer.encryption_command import missing_keys, missing_sentence
from recognizer.errors import RecognizerError, StartupError
from recognizer.gallery import resealing
from recognizer.gallery.direct import check_connection_limit
from recognizer.gallery.keys import Keys
from recognizer.gallery.pool import Pool
from recognizer.gallery.template_index import is_missing
from recognizer.host import datadir
from recognizer.logs import LogFile
from recognizer.postgres.cluster import Cluster
from recognizer.servers.address import base_url, check_certificate
from recognizer.servers.child import available_port
from recognizer.vision.engine import Engine, open_engine

LOW_DISK_BYTES = 2**30
REACH_SECONDS = 5.0

NEEDS = {"encryption": "database"}
"""What cannot be looked at where another part fails."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: `detail` says what is there, or what is wrong and how to mend it."""

    part: str
    ok: bool
    detail: str


def findings(settings: Settings) -> Iterator[Finding]:
    """Check one part after the other; a part that fails does not keep the others from being checked."""
    parts: dict[str, Callable[[Settings], str]] = {
        "port": _port,
        "disk": _disk,
        "log": _log,
        "models": _models,
        "database": _database,
        "encryption": _encryption,
    }
    failed = set()
    for part, check in parts.items():
        if NEEDS.get(part) in failed:
            continue
        try:
            yield Finding(part, True, check(settings))
        except RecognizerError as error:
            failed.add(part)
            yield Finding(part, False, str(error))
        except OSError as error:  # a folder on the way that this user may not enter, most often
            yield Finding(part, False, f"{error.filename} cannot be used: {error.strerror}.")


def _port(settings: Settings) -> str:
    check_certificate(settings)
    try:
        available_port(settings.host, settings.port)
    except StartupError:
        _, address = datadir.holder(settings.data_dir)
        if address != base_url(settings):
            raise
        return f"{address} answers already: the service runs on this data directory"
    return f"{settings.host}, port {settings.port} is free"


def _disk(settings: Settings) -> str:
    place = next(path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < LOW_DISK_BYTES:
        raise StartupError(
            f"Only {free / 2**20:.0f} MiB are free where {settings.data_dir} is; PostgreSQL needs room, "
            "free at least 1 GiB or choose another data_dir."
        )
    return f"{free / 2**30:.0f} GiB free where {settings.data_dir} is"


def _log(settings: Settings) -> str:
    if settings.log_file is None:
        return f"standard error, {settings.log_format}"
    was_there = settings.log_file.exists()
    try:
        LogFile(settings.log_file, settings.log_file_bytes, settings.log_files_kept).close()
        if not was_there:
            settings.log_file.unlink()  # it would be ours, and perhaps closed to the user who runs the service
    except OSError as error:
        raise StartupError(supervisor.log_file_sentence(settings.log_file, error)) from error
    return f"{settings.log_file}, {settings.log_format}"


def _models(settings: Settings) -> str:
    if settings.models_dir.is_dir():
        with closing(open_engine(settings)) as engine:
            return f"{engine.model_id} ({_in_words(engine)}), prepared"
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = settings.model_copy(update={"data_dir": Path(folder)})
        with closing(open_engine(elsewhere)) as engine:
            return f"{engine.model_id} ({_in_words(engine)}), prepared for good at the first start"


def _in_words(engine: Engine) -> str:
    return "; ".join(f"{part} {what}" for part, what in engine.parts.items())


def _database(settings: Settings) -> str:
    if settings.database_url is None and not Cluster(settings.data_dir).data.exists():
        if settings.needs_key:
            raise StartupError(supervisor.key_sentence(settings))
        return f"the bundled PostgreSQL, made in {settings.data_dir} at the first start"
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        check_connection_limit(
            url, workers=settings.workers, pool_max=settings.pool_max, deadline_seconds=REACH_SECONDS
        )
        if settings.needs_key and not Keys(pool).any_active():
            raise StartupError(supervisor.key_sentence(settings))
        with pool.connection() as connection, connection.cursor() as cursor:
            version = connection.info.server_version // 10000
            slow = is_missing(cursor)
    kind = "bundled" if settings.database_url is None else "your own"
    found = f"PostgreSQL {version} ({kind}), schema up to date, connections for {settings.workers} workers"
    if not slow:
        return found
    return (
        f"{found}; an import has left the index of the templates out: searches are slow until the service has made it"
    )


def _encryption(settings: Settings) -> str:
    keyring = settings.keyring
    found, keeps = _needed_keys(settings)
    if missing_keys(found, keyring):
        raise StartupError(missing_sentence(found, keyring))
    if keeps and not keyring:
        raise StartupError(
            "A collection keeps photos or encrypts embeddings, and there is no key to do it with: nobody can be "
            "enrolled in it. Put the key file back, or make a key with `recognizer encryption create-key`."
        )
    if not keyring:
        return "no key, and nothing that needs one; `recognizer encryption create-key` makes one"
    return f"the key {keyring.ids[0]} encrypts, of {len(keyring.ids)}; nothing needs a key that is missing"


def _needed_keys(settings: Settings) -> tuple[dict[str, Counter[str]], bool]:
    """How much needs each key, and whether a collection encrypts anything; nothing where there is no database yet."""
    if settings.database_url is None and not Cluster(settings.data_dir).data.exists():
        return {}, False
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        return resealing.by_key(pool), resealing.needs_key(pool)
