"""Files that are made while they are sent: a few pieces ahead of the client, whatever their size."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

from flask import Response, request

from recognizer.errors import RecognizerError

AHEAD: Final = 4
"""Pieces that wait for the client."""

LOOK_SECONDS: Final = 0.5
"""So often is seen whether the client has gone, while it takes nothing."""

LOGGER = logging.getLogger(__name__)


def sent(pieces: Iterator[bytes], place: ExitStack, headers: dict[str, str]) -> Response:
    """The answer that sends these pieces; what goes wrong with the first one is an error as any other.

    A file that ends too early, because something went wrong later, has to be one that shows it, such as a ZIP file.

    Args:
        pieces: called from another thread, without a request.
        place: closed, at least once, when the last piece is made or the client has gone.
    """
    try:
        first = next(pieces)
    except BaseException:
        place.close()
        raise
    if request.method == "HEAD":
        place.close()
        return Response(headers=headers)
    hand_over: Callable[[Any], None] | None = getattr(request.environ.get("gunicorn.socket"), "hand_over", None)
    if hand_over is None:
        response = Response(_through(first, pieces, place), headers=headers)
        response.call_on_close(place.close)  # a generator that nobody has begun with would not do it
        return response
    hand_over(Download(pieces, place))  # our server under gunicorn would keep all that a slow client has not taken yet
    return Response(iter([first]), headers=headers)


def _through(first: bytes, pieces: Iterator[bytes], place: ExitStack) -> Iterator[bytes]:
    """For a server that waits for the client in the thread of the request."""
    with place:
        yield first
        yield from pieces


class Download:
    """What a client is sent; a thread makes it as the client takes it. Closed by whoever sends it."""

    has_end = True

    def __init__(self, pieces: Iterator[bytes], place: ExitStack) -> None:
        self._pieces = pieces
        self._place = place
        self._ready: queue.Queue[bytes | None] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._wake: Callable[[], None] | None = None

    def on_news(self, wake: Callable[[], None]) -> None:
        """Begin; `wake` is called, from any thread, whenever there may be something to take."""
        self._wake = wake
        threading.Thread(target=self._make, args=(wake,), name="download", daemon=True).start()

    def take(self) -> bytes | None:
        """What is to be sent now, empty where there is nothing yet; None: no more comes."""
        try:
            piece = self._ready.get_nowait()
        except queue.Empty:
            return b""
        if piece is not None and self._wake is not None:
            self._wake()  # for the next one
        return piece

    def close(self) -> None:
        """Nobody takes anything any more."""
        self._closed.set()
        if self._wake is None:  # the client has gone before it began
            self._place.close()

    def _make(self, wake: Callable[[], None]) -> None:
        try:
            for piece in self._pieces:
                if not self._put(piece):
                    return
                wake()
        except RecognizerError as error:
            LOGGER.warning("A download was cut off: %s", error)
        except Exception:
            LOGGER.exception("A download was cut off")  # the head has been sent, there is nobody else to tell
        finally:
            self._place.close()
            self._put(None)
            wake()

    def _put(self, piece: bytes | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(piece, timeout=LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        return False
