"""The server on Linux: gunicorn with threads. `python -m recognizer.servers.linux` is the supervisor's child.

Each worker opens its models and its pool after the fork. gunicorn's heartbeat is a worker's main thread, which
handles no requests: its timeout catches a worker that is stuck as a whole. A request that is stuck alone is noticed
by its age, in `reception.py`.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

from gunicorn import glogging
from gunicorn.app.base import Application

from recognizer import config, logs, metrics
from recognizer.config import Settings
from recognizer.errors import ConfigError
from recognizer.host.account import Account, existing_account
from recognizer.servers.child import BACKLOG, LISTENER_ENV
from recognizer.servers.master import Master
from recognizer.servers.worker import Worker

OPERATORS_FILE = Path(__file__).resolve().parents[2] / "config" / "gunicorn.conf.py"
"""In a checkout; an installed package has none."""

LOGGER = logging.getLogger(__name__)

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a folder in memory, not a predictable file name


class Log(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own messages in the service's log; it has no access log, each request has its line already."""

    def setup(self, cfg: Any) -> None:
        self.error_log.setLevel(cfg.loglevel.upper())
        self.error_log.propagate = True


class Server(Application):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn with our settings, and over them what the operator's file says."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in gunicorn_options(self.settings).items():
            self.cfg.set(name, value)
        if OPERATORS_FILE.is_file():
            self.load_config_from_file(str(OPERATORS_FILE))

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            Master(self).run()
        except RuntimeError as error:  # an impossible option in the operator's file
            sys.exit(str(error))

    def load(self) -> WSGIApplication:
        """Called in each worker, after the fork."""
        from recognizer.app import create_app

        return create_app(self.settings)


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    """gunicorn's options for these settings."""
    options: dict[str, Any] = {
        "bind": _address(settings),
        "backlog": BACKLOG,
        "workers": settings.workers,
        "threads": settings.threads,
        "worker_class": Worker.with_settings(settings),
        # For a main thread that is stuck: some calls of the reference engine hold the GIL for half a minute.
        "timeout": math.ceil(max(60.0, 2 * settings.request_timeout_seconds)),
        "graceful_timeout": math.ceil(settings.stop_timeout_seconds),
        # Idle connections take no thread; beyond so many the one that is idle longest is closed.
        "keepalive": 75,
        "worker_connections": 2000,
        # Fresh memory now and then, not in all workers at once.
        "max_requests": 100_000,
        "max_requests_jitter": 10_000,
        "limit_request_line": 4094,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        # The heartbeat is a file: on a slow disk it would kill workers that are well.
        "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
        "control_socket_disable": True,  # a file in the home folder, shared by all gunicorns of a user
        "preload_app": False,
        "sendfile": False,  # it would write past our sockets, which keep what a client does not take at once
        "proc_name": "recognizer",
        "accesslog": None,
        "logger_class": Log,
        "loglevel": settings.log_level,
        "on_starting": give_metrics_away,
        "worker_exit": close_runtime,
        "child_exit": forget_metrics,
    }
    files = [settings.models_dir]
    if settings.tls_certificate and settings.tls_key:
        options.update(certfile=str(settings.tls_certificate), keyfile=str(settings.tls_key))
        files += [settings.tls_certificate, settings.tls_key]
    if account := _account_of_workers(*files):
        options.update(user=account.uid, group=account.gid)
    return options


def _address(settings: Settings) -> str:
    if inherited := os.environ.get(LISTENER_ENV):
        return f"fd://{inherited}"
    host = settings.host.strip("[]")
    return f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"


@functools.cache
def _account_of_workers(*needed: Path) -> Account | None:
    """The system user that workers run as when root starts them, if it can read what they need; None: as we do."""
    account = existing_account()
    if account is None:
        return None
    for path in (Path(sys.executable), Path(os.__file__), Path(config.__file__), *needed):
        if account.blocked_by(path) or not account.may(path, 0o5 if path.is_dir() else 0o4):
            LOGGER.warning(
                "The workers run as root, because the user `%s` cannot read %s. Install the service where everybody "
                "can read, for example below /opt, or start it as an ordinary user.",
                account.name,
                path,
            )
            return None
    return account


def give_metrics_away(server: Any) -> None:
    """Let the workers write their metrics whoever they run as; gunicorn calls it before the first fork."""
    if folder := os.environ.get(metrics.MULTIPROCESS_DIR_ENV):
        os.chown(folder, server.cfg.uid, server.cfg.gid)


def close_runtime(server: Any, worker: Any) -> None:
    """Close what the worker's app has open; gunicorn calls it in the worker that ends."""
    app = getattr(worker, "wsgi", None)
    if app is not None:  # None when the worker ended before its app was loaded
        app.extensions["recognizer"].close()
    if getattr(worker, "is_stuck", False):
        logging.shutdown()
        os._exit(0)  # the interpreter would wait for the threads that do not come back


def forget_metrics(server: Any, worker: Any) -> None:
    """Take the gauges of a worker that is gone out of the metrics; gunicorn calls it in the master."""
    metrics.forget_process(worker.pid)


def main() -> None:
    """Serve until told to stop; the supervisor has put every setting into the environment."""
    try:
        settings = config.load()
    except ConfigError as error:
        sys.exit(str(error))
    logs.configure(settings.log_level, settings.log_format)
    Server(settings).run()


if __name__ == "__main__":
    main()
