"""Which settings a running service takes over at a reload."""

from __future__ import annotations

import logging

from recognizer.config import Settings
from recognizer.gallery.direct import connections_of_worker

LOGGER = logging.getLogger(__name__)

NEED_RESTART = (
    "host",
    "port",
    "server",
    "tls_certificate",
    "tls_key",
    "trusted_proxies",
    "data_dir",
    "database_url",
    "log_file",
    "log_file_bytes",
    "log_files_kept",
)


def after_reload(old: Settings, new: Settings) -> Settings:
    """The new settings, but for those that only a new start can change; a warning names these."""
    fixed = [name for name in NEED_RESTART if getattr(old, name) != getattr(new, name)]
    if new.port == 0:
        fixed.append("port")  # any free one, which has been chosen
    before, after = (each.workers * connections_of_worker(each.pool_max) for each in (old, new))
    if old.database_url is None and after > before:
        fixed += ["workers", "pool_min", "pool_max"]  # the bundled PostgreSQL has connections for the old ones
    changed = {name for name in fixed if getattr(old, name) != getattr(new, name)}
    if new.port == 0:
        changed.discard("port")
    if changed:
        LOGGER.warning("These settings change only when the service is started anew: %s", ", ".join(sorted(changed)))
    return new.model_copy(update={name: getattr(old, name) for name in fixed})
