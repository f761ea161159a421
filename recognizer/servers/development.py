"""Flask's own server, for developing: it ends, and the supervisor starts it again, when a file of the package changes.

`python -m recognizer.servers.development` is the supervisor's child. It is never meant for production.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from recognizer import config, logs
from recognizer.app import create_app
from recognizer.config import Settings
from recognizer.errors import RecognizerError
from recognizer.host.signals import on_stop
from recognizer.servers.child import RELOAD, bound_socket
from recognizer.servers.choice import for_one_process

PACKAGE = Path(__file__).resolve().parents[1]
WATCHED = ("*.py", "*.sql")
LOOK_SECONDS = 0.5


class Handler(WSGIRequestHandler):
    """One request for each connection, so that none is left open at the end; our own log has its line already."""

    protocol_version = "HTTP/1.0"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""

    def version_string(self) -> str:
        """Without the version numbers."""
        return "Werkzeug"


def serve(settings: Settings, app: Flask, watched: Path = PACKAGE) -> int:
    """Serve until told to stop, or until a file below `watched` changes; the exit code."""
    stop = threading.Event()
    on_stop(stop.set)
    with closing(app.extensions["recognizer"]), bound_socket(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        server = make_server(host, port, app, threaded=True, request_handler=Handler, fd=listener.fileno())
        server.daemon_threads = False  # type: ignore[attr-defined]  # closing it waits for the requests in flight
        Handler.timeout = settings.request_timeout_seconds
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="serve")
        thread.start()
        before = _state(watched)
        while not stop.wait(LOOK_SECONDS) and _state(watched) == before:
            pass
        app.extensions["recognizer"].end_streams()
        server.shutdown()
        thread.join(settings.stop_timeout_seconds)
    return 0 if stop.is_set() else RELOAD


def _state(folder: Path) -> set[tuple[Path, int]]:
    """Which files there are, and when each was last changed."""
    return set(_times(path for pattern in WATCHED for path in folder.rglob(pattern)))


def _times(paths: Iterable[Path]) -> Iterable[tuple[Path, int]]:
    for path in paths:
        try:
            yield path, path.stat().st_mtime_ns
        except OSError:  # editors replace files
            yield path, 0


def main() -> None:
    """Serve; the supervisor has put every setting into the environment."""
    try:
        settings = for_one_process(config.load())
        logs.configure(settings.log_level, settings.log_format)
        code = serve(settings, create_app(settings))
    except RecognizerError as error:
        sys.exit(str(error))
    sys.exit(code)


if __name__ == "__main__":
    main()
