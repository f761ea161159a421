"""The server where gunicorn cannot run: waitress. `python -m recognizer.servers.windows` is the supervisor's child.

One process: what the settings give to several workers is given to this one. waitress itself stops at once when
it is told to; here it first finishes what it has accepted. Despite its name it runs on every system.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import uuid
from contextlib import closing
from types import FrameType
from typing import Any

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask

from recognizer import config, logs
from recognizer.app import create_app
from recognizer.config import Settings
from recognizer.errors import RecognizerError

LOOP_SECONDS = 0.5
"""How long the loop sleeps at most before it looks whether it shall stop."""


class ProblemTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What waitress refuses by itself, in the service's one error shape."""

    def execute(self) -> None:
        error = self.request.error
        request_id = uuid.uuid4().hex
        body = json.dumps(
            {
                "type": "about:blank",
                "title": error.reason,
                "status": error.code,
                "code": "image_too_large" if error.code == 413 else "invalid_request",
                "detail": "The request has more bytes than this service accepts; send a smaller image."
                if error.code == 413
                else "The request is malformed.",
                "request_id": request_id,
            }
        ).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", "application/problem+json"), ("X-Request-ID", request_id)]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection whose errors have our shape."""

    error_task_class = ProblemTask


class Server:
    """waitress with our settings; `run()` returns after `stop()`, when the accepted requests are answered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app = create_app(settings)
        self._sockets: dict[int, Any] = {}  # waitress's map: listeners, connections and its wake-up
        self._stopping = False
        self._server = waitress.create_server(
            self._app,
            map=self._sockets,
            host=settings.host.strip("[]"),
            port=settings.port,
            threads=settings.threads,
            backlog=256,
            connection_limit=500,
            channel_timeout=int(settings.request_timeout_seconds),
            max_request_body_size=settings.max_request_bytes,
            ident=None,
        )
        for listener in self._listeners():
            listener.channel_class = Channel

    def run(self) -> None:
        """Serve until told to stop, finish what was accepted, then close everything."""
        with closing(self._app.extensions["recognizer"]):
            while not self._stopping:
                self._turn()
            for listener in self._listeners():
                wasyncore.dispatcher.close(listener)  # the port, not the wake-up that finishing needs
            deadline = time.monotonic() + self._settings.stop_timeout_seconds
            while any(map(_is_busy, self._channels())) and time.monotonic() < deadline:
                self._turn()
            self._server.task_dispatcher.shutdown(timeout=1)
            wasyncore.close_all(self._sockets)

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Ask `run()` to end; fit for a signal handler."""
        self._stopping = True

    def _turn(self) -> None:
        wasyncore.loop(timeout=LOOP_SECONDS, map=self._sockets, count=1)

    def _listeners(self) -> list[Any]:
        return [item for item in self._sockets.values() if isinstance(item, BaseWSGIServer)]

    def _channels(self) -> list[Any]:
        return [item for item in self._sockets.values() if isinstance(item, HTTPChannel)]


def for_one_process(settings: Settings) -> Settings:
    """The settings with everything that is counted per worker given to the only one."""
    workers = settings.workers
    return settings.model_copy(
        update={
            "workers": 1,
            "threads": workers * settings.threads,
            "pool_min": workers * settings.pool_min,
            "pool_max": workers * settings.pool_max,
        }
    )


def main() -> None:
    """Serve until told to stop; the supervisor has put every setting into the environment."""
    try:
        settings = for_one_process(config.load())
        logs.configure(settings.log_level, settings.log_format)
        server = Server(settings)
    except RecognizerError as error:
        sys.exit(str(error))
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):  # SIGBREAK is how Windows asks a process to stop
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), server.stop)
    server.run()


def _is_busy(channel: Any) -> bool:
    """Whether a request of this connection is being answered, or its answer has not left yet."""
    return bool(channel.requests or channel.total_outbufs_len)


if __name__ == "__main__":
    main()
