"""The one parent: it owns what must exist once. Data-directory lock, PostgreSQL child, server child, signals.

It holds no connection and no model: those are opened by the server's workers, after their fork.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from recognizer import __version__, logs
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import ConfigError, DatabaseUnavailable, ModelError, RecognizerError, StartupError
from recognizer.gallery.direct import check_connection_limit
from recognizer.gallery.keys import Keys
from recognizer.gallery.migrate import migrate
from recognizer.gallery.pool import Pool
from recognizer.host import datadir
from recognizer.host.account import database_account, existing_account
from recognizer.host.attempts import Turns
from recognizer.host.datadir import AlreadyRunning
from recognizer.host.signals import Signals, StopRequested
from recognizer.installation import MIGRATION_SECONDS, bundled_postgres
from recognizer.reloading import after_reload
from recognizer.servers.address import base_url, check_certificate
from recognizer.servers.child import RELOAD, ServerChild, available_port, stop_orphans
from recognizer.servers.choice import choose, processes_in_words

LOGGER = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_ALREADY_RUNNING = 3

GIVE_UP_AFTER = 200
"""Attempts in a row, in a quarter of an hour, to start again what ends each time."""

_REACH_SECONDS = 5.0  # one attempt to reach the database, before the service goes on without it
_MODELS_SECONDS = 300.0


def run(settings: Settings, reload: Callable[[], Settings] | None = None) -> int:
    """Run the service until it is told to stop, and return the exit code; only in the main thread.

    `reload` reads the settings again, when SIGHUP asks for it; without it they stay, and only the code is new.

    0: stopped as asked. 1: it cannot start, a sentence on stderr says why. 3: the data directory is in use.
    """
    try:
        log_file = _open_log(settings)
        if settings.port == 0:
            settings = settings.model_copy(update={"port": available_port(settings.host, 0)})
        settings, warning = choose(settings)
        if warning:
            LOGGER.warning("gunicorn cannot run here; this is Flask's development server, which is not for production")
            click.echo(warning, err=True)
        check_certificate(settings)
        LOGGER.info("start", extra={"version": __version__, "settings": settings.masked()})
        with Signals() as signals:
            Supervisor(settings, signals, log_file, warning, reload).run()
    except StopRequested:
        LOGGER.info("stop")
        _say("Stopped")
        return 0
    except RecognizerError as error:
        LOGGER.info("stop", extra={"reason": str(error)})
        click.echo(f"Error: {error}", err=True)
        return EXIT_ALREADY_RUNNING if isinstance(error, AlreadyRunning) else EXIT_FAILED


def _open_log(settings: Settings) -> logs.LogFile | None:
    """Configure our own log; the file that the server's lines go to as well, where one is wanted."""
    log_file = None
    if settings.log_file is not None:
        try:
            log_file = logs.LogFile(settings.log_file, settings.log_file_bytes, settings.log_files_kept)
        except OSError as error:
            raise StartupError(log_file_sentence(settings.log_file, error)) from error
    logs.configure(settings.log_level, settings.log_format, log_file)
    return log_file


def log_file_sentence(path: Path, error: OSError) -> str:
    """Why the log file cannot be used, and what to do."""
    return (
        f"The log file {path} cannot be written: {error.strerror}. Make its folder, give this user the right to "
        "write there, or change log_file."
    )


def key_sentence(settings: Settings) -> str:
    """Why an open address needs a key, and how to make one."""
    who = f"{settings.host} can be reached from the network" if not settings.loopback else "proxies pass requests on"
    return (
        f"There is no API key, and {who}. Make a key first with `recognizer keys create`, or listen on 127.0.0.1 "
        "without trusted_proxies."
    )


class Supervisor:
    """One run of the service; `run()` reads like a table of contents."""

    def __init__(
        self,
        settings: Settings,
        signals: Signals,
        log_file: logs.LogFile | None = None,
        warning: str = "",
        reload: Callable[[], Settings] | None = None,
    ) -> None:
        self._settings = settings
        self._reload = reload
        self._warning = warning
        self._signals = signals
        self._postgres = None if settings.database_url else bundled_postgres(settings)
        self._url = settings.database_url.get_secret_value() if settings.database_url else ""
        self._server = ServerChild(settings, log_file)
        self._schema_ready = self._ready = self._told_waiting = False
        self._database_turns = Turns("PostgreSQL", GIVE_UP_AFTER)
        self._server_turns = Turns("The server", GIVE_UP_AFTER)
        self._schema_turns = Turns("The schema")

    def run(self) -> NoReturn:
        """Start everything in order, then watch over it.

        Raises:
            StopRequested: a signal asked for the end; everything has been stopped.
            StartupError: it cannot start; everything has been stopped.
        """
        with ExitStack() as closing:
            self._occupy(closing)
            self._start_database(closing)
            self._prepare_schema()
            self._prepare_models()
            closing.callback(self._stop_server)
            self._server.start(self._url)
            self._patience = Deadline(self._settings.start_timeout_seconds)
            while True:
                self._signals.pause(self._tick_seconds())
                self._tend_database()
                self._tend_server()
                self._tend_reload()
                self._tend_schema()
                self._tell_whether_ready()

    # -- the start --

    def _occupy(self, closing: ExitStack) -> None:
        """Take the data directory and make sure of the port, before anything is started."""
        settings = self._settings
        datadir.prepare(settings.data_dir, database_account() if self._postgres else existing_account())
        closing.enter_context(datadir.locked(settings.data_dir, base_url(settings)))
        stop_orphans(settings.data_dir)
        closing.callback(self._server.release)
        self._server.occupy()
        _say(f"recognizer {__version__}, data directory {settings.data_dir}")

    def _start_database(self, closing: ExitStack) -> None:
        if self._postgres is None:
            return
        self._signals.check()
        closing.callback(self._postgres.stop)
        self._postgres.prepare()
        self._postgres.start(Deadline(self._settings.start_timeout_seconds), self._signals.pause)
        self._url = self._postgres.url
        _say(f"PostgreSQL (bundled) is running, process {self._postgres.pid}")

    def _prepare_schema(self) -> None:
        try:
            self._bring_schema_up_to_date()
        except DatabaseUnavailable as error:
            _say(f"The database is away; the service starts and is not ready until it comes. ({error})")

    def _prepare_models(self) -> None:
        self._signals.interruptibly(lambda: prepare_models(self._settings.models_dir))
        _say("Models: prepared")

    def _bring_schema_up_to_date(self) -> None:
        """Migrate, then make sure that nobody serves a network without a key.

        Raises:
            DatabaseUnavailable: it is away.
            StartupError: the schema cannot be brought up to date, or there is no key.
        """
        settings = self._settings
        self._signals.interruptibly(
            lambda: check_connection_limit(
                self._url,
                workers=settings.workers,
                pool_max=settings.pool_max,
                deadline_seconds=_REACH_SECONDS,
            )
        )
        applied = self._signals.interruptibly(lambda: migrate(self._url, MIGRATION_SECONDS))
        _say(f"Database: {'applied ' + ', '.join(applied) if applied else 'up to date'}")
        if settings.needs_key:
            self._demand_key()
        self._schema_ready = True

    def _demand_key(self) -> None:
        with Pool.open(self._settings, self._url) as pool:
            if Keys(pool).any_active():
                return
        raise StartupError(key_sentence(self._settings))

    # -- the watch --

    def _tick_seconds(self) -> float:
        """How long to look away; signals and the end of a child wake us at once."""
        if self._ready:
            return 1.0
        return 2.0 if self._told_waiting else 0.1

    def _tend_database(self) -> None:
        """Start PostgreSQL again when it has ended; the server only when its address is another one."""
        postgres = self._postgres
        if postgres is None or postgres.poll() is None or not self._database_turns.take():
            return
        LOGGER.warning("PostgreSQL has ended (exit code %s); starting it again", postgres.poll())
        try:
            postgres.restart(Deadline(self._settings.start_timeout_seconds), self._signals.pause)
        except StartupError as error:
            LOGGER.warning("It did not start, trying again: %s", error)
            return
        if postgres.url != self._url:
            self._url = postgres.url
            self._stop_server()

    def _tend_server(self) -> None:
        """Start the server again when it has ended; giving up by itself at the first start fails the service."""
        code = self._server.poll()
        if code is None:
            return
        if code == RELOAD:
            LOGGER.info("A file of the package has changed; starting the server again")
            self._server.start(self._url)
            return
        if code > 0 and not self._ready and not self._told_waiting:
            raise StartupError(f"The server ended while it was starting (exit code {code}); it says why above.")
        if self._server_turns.take():
            LOGGER.warning("The server has ended (exit code %s); starting it again", code)
            try:
                self._server.start(self._url)
            except StartupError as error:
                LOGGER.warning("It did not start, trying again: %s", error)

    def _tend_reload(self) -> None:
        """After SIGHUP: a server with the settings and the code of now takes over, or the one that is there goes on."""
        if not self._signals.take_reload():
            return
        try:
            settings = self._settings if self._reload is None else after_reload(self._settings, self._reload())
            check_certificate(settings)
            LOGGER.info("reload", extra={"settings": settings.masked()})
            self._server.hand_over(settings, self._url, self._signals)
        except (ConfigError, StartupError) as error:
            LOGGER.error("Not reloaded, everything goes on as it was: %s", error)
            return
        self._settings = settings
        LOGGER.info("reloaded")
        _say("Reloaded")

    def _tend_schema(self) -> None:
        """Migrate as soon as a database that was away at the start is there; the same things as then may fail."""
        if self._schema_ready or not self._schema_turns.take():
            return
        with suppress(DatabaseUnavailable):
            self._bring_schema_up_to_date()

    def _tell_whether_ready(self) -> None:
        if self._ready:
            return
        answer = self._server.health()
        if answer and answer.get("status") == "ready":
            self._ready = True
            self._greet(answer.get("checks", {}).get("models", {}))
            return
        overdue = not self._patience.remaining_seconds()
        absent_database = answer is not None and not self._schema_ready
        if not self._told_waiting and (overdue or absent_database):
            self._told_waiting = True
            _say(f"Listening on {base_url(self._settings)}, not ready yet. {_failing(answer)}")

    def _greet(self, models: Mapping[str, Any]) -> None:
        settings = self._settings
        if models:
            _say(f"Faces: detector {models['detector']}; encoder {models['encoder']}")
        url = base_url(settings)
        _say(f"Ready: {url} ({processes_in_words(settings)})")
        key = "" if not settings.needs_key else '-H "X-API-Key: $KEY" '
        _say(f"Try:   curl {key}-F image=@photo.jpg {url}/recognize")
        _say(f"Stop:  Ctrl-C, or SIGTERM to process {os.getpid()}")
        if self._warning:
            click.echo(self._warning, err=True)

    def _stop_server(self) -> None:
        if self._server.poll() is None:
            _say("Finishing the requests in flight")
        self._server.stop(self._signals)


def prepare_models(folder: Path) -> None:
    """Convert and cache the models, in a process of its own: the memory that takes shall not stay with us.

    Raises:
        ModelError: a model file is missing or damaged.
    """
    command = [sys.executable, "-m", "recognizer.vision.weights", str(folder)]
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=_MODELS_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"The models could not be prepared: {error}.") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"The models could not be prepared: {lines[-1]}")


def _failing(answer: Mapping[str, Any] | None) -> str:
    """Which part of the service is not ready, from its own health report."""
    if answer is None:
        return "The server does not answer."
    checks = answer.get("checks", {})
    parts = [f"{name}: {check.get('detail', 'not ready')}" for name, check in checks.items() if not check.get("ok")]
    return " ".join(parts)


def _say(text: str) -> None:
    with suppress(OSError):  # nobody reads us any more; the service goes on
        click.echo(text)
