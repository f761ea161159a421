"""The server where gunicorn cannot run: waitress. `python -m recognizer.servers.windows` is the supervisor's child.

One process: what the settings give to several workers is given to this one. waitress itself stops at once when
it is told to; here it first finishes what it has accepted. Despite its name it runs on every system.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import closing
from typing import Any

import waitress
from flask import Flask
from waitress import wasyncore
from waitress.server import BaseWSGIServer

from recognizer import config, logs
from recognizer.app import create_app
from recognizer.config import Settings
from recognizer.errors import RecognizerError
from recognizer.host.signals import on_stop
from recognizer.servers.budget import MemoryBudget
from recognizer.servers.child import bound_socket
from recognizer.servers.choice import for_one_process
from recognizer.servers.waitress_channel import Channel

LOOP_SECONDS = 0.5
"""How long the loop sleeps at most before it looks at the clock."""

CONNECTIONS = 480
"""At most; Windows cannot wait for more than 512 sockets at once."""

HEADER_BYTES = 2**16


class Server:
    """waitress with our settings; `run()` returns after `stop()`, when the accepted requests are answered."""

    def __init__(self, settings: Settings, app: Flask) -> None:
        self._settings = settings
        self._app = app
        self._sockets: dict[int, Any] = {}  # waitress's map: the listener, the connections and its wake-up
        self._stopping = False
        self._listener: BaseWSGIServer = waitress.create_server(
            app,
            map=self._sockets,
            sockets=[bound_socket(settings.host, settings.port)],
            threads=settings.threads,
            connection_limit=CONNECTIONS,
            channel_timeout=max(1, int(settings.request_timeout_seconds)),
            cleanup_interval=5,
            max_request_body_size=settings.max_request_bytes + 1,  # waitress refuses from there on
            max_request_header_size=HEADER_BYTES,
            recv_bytes=2**16,
            ident=None,
        )
        self._listener.channel_class = Channel

    def run(self) -> None:
        """Serve until told to stop, finish what was accepted, then close everything."""
        with closing(self._app.extensions["recognizer"]):
            budget = MemoryBudget(self._settings.worker_memory_bytes)
            while not self._stopping and not budget.is_spent():  # the supervisor starts another
                self._turn()
            self._take_in_who_waits()
            self._app.extensions["recognizer"].end_streams()
            wasyncore.dispatcher.close(self._listener)  # the port, not the wake-up that finishing needs
            until = time.monotonic() + self._settings.stop_timeout_seconds
            while any(channel.is_busy() for channel in self._channels()) and time.monotonic() < until:
                self._turn()
            self._listener.task_dispatcher.shutdown(timeout=1)
            wasyncore.close_all(self._sockets)

    def stop(self) -> None:
        """Ask `run()` to end; fit for a signal handler."""
        self._stopping = True
        self._listener.pull_trigger()

    def _take_in_who_waits(self) -> None:
        """Accept who has connected already, one in each turn, and read what they have sent."""
        known = -1
        while len(self._sockets) > known:
            known = len(self._sockets)
            self._turn(0)

    def _turn(self, seconds: float = LOOP_SECONDS) -> None:
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._sockets, count=1)
        for channel in self._channels():
            channel.limit_receiving(self._settings.request_timeout_seconds)

    def _channels(self) -> list[Channel]:
        return [item for item in self._sockets.values() if isinstance(item, Channel)]


def main() -> None:
    """Serve until told to stop; the supervisor has put every setting into the environment."""
    try:
        settings = for_one_process(config.load())
        logs.configure(settings.log_level, settings.log_format)
        logging.getLogger("waitress.queue").setLevel("ERROR")  # a line for every request that waits for a thread
        server = Server(settings, create_app(settings))
    except RecognizerError as error:
        sys.exit(str(error))
    on_stop(server.stop)
    server.run()


if __name__ == "__main__":
    main()
