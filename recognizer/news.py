"""Recognitions as they happen: told by every worker, heard by whoever subscribes in any of them. Nothing is kept.

What is told leaves by a thread of its own, so that no answer waits for it; where the database is away it is lost. What
is heard comes by another one, which runs only while somebody subscribes here.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Self

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import Busy, DatabaseUnavailable, DeadlineExceeded
from recognizer.gallery.names import comparable
from recognizer.gallery.news import Listener, Ticket, publish
from recognizer.gallery.pool import Pool

LOGGER = logging.getLogger(__name__)

QUEUE_LENGTH: Final = 256
"""Pieces of news that wait for a subscriber; of more, the oldest are lost."""

UNTOLD_LENGTH: Final = 1000
"""And that wait to be told."""

TELL_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 1.0
CHECK_SECONDS: Final = 15.0
"""So often the database is asked whether it is there and whether subscribers' keys are still valid."""

CLOSED_PLACES = "So many programs listen already; try again when one of them has left."
NO_PLACES = "Nobody can listen here: `event_streams` is 0, or this server has too few `threads` for it."


class Notice(NamedTuple):
    """A piece of news as it is sent: `event` says what it is, `data` is JSON."""

    event: str
    data: str


READY = Notice("ready", "{}")
AWAY = Notice("away", json.dumps({"detail": "The database is away; what is recognised meanwhile is not told of."}))


class Subscription:
    """What one subscriber has not taken yet. Filled by one thread, taken by another; neither ever waits."""

    def __init__(self, ticket: Ticket, collection: str | None, leave: Callable[[Subscription], None]) -> None:
        self.ticket = ticket
        self._collection = None if collection is None else comparable(collection)
        self._leave = leave
        self._changed = threading.Condition()
        self._waiting: deque[Notice] = deque()
        self._lost = 0
        self._hears: bool | None = None
        self._ended = False
        self._wake: Callable[[], None] = lambda: None

    def wants(self, collection: str) -> bool:
        """Whether news of this collection is for the subscriber."""
        return self._collection is None or self._collection == comparable(collection)

    def put(self, notice: Notice) -> None:
        """Add news; the oldest makes room."""
        with self._changed:
            if self._ended:
                return
            was_empty = not self._waiting
            if len(self._waiting) >= QUEUE_LENGTH:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(notice)
            self._changed.notify()
        if was_empty:
            self._wake()

    def say(self, hears: bool) -> None:
        """Tell the subscriber whether what happens is heard, where that has changed."""
        if hears is not self._hears:
            self._hears = hears
            self.put(READY if hears else AWAY)

    def take(self) -> tuple[list[Notice], bool]:
        """All that waits, first how much was lost before it, and whether nothing comes any more."""
        with self._changed:
            taken, self._waiting = list(self._waiting), deque()
            if self._lost:
                taken.insert(0, Notice("lost", json.dumps({"events": self._lost})))
                self._lost = 0
            return taken, self._ended

    def wait(self, seconds: float) -> None:
        """Until there is something to take, `seconds` at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, seconds)

    def on_news(self, wake: Callable[[], None]) -> None:
        """Call `wake`, from another thread, when there is something to take after there was nothing."""
        self._wake = wake
        wake()

    def end(self) -> None:
        """Nothing comes any more, not even what waits: a key that is not valid any more may be the reason."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._lost = 0
            self._changed.notify()
        self._wake()

    def close(self) -> None:
        """Take no more news; once is as good as twice."""
        self._leave(self)


class News:
    """What one worker tells and hears; active while entered."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._changed = threading.Condition()
        self._untold: deque[str] = deque(maxlen=UNTOLD_LENGTH)
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        self._is_ready = False
        self._listening: threading.Thread | None = None
        self._telling = threading.Thread(target=self._tell_on, name="news", daemon=True)

    def tell(self, news: Sequence[dict[str, Any]]) -> None:
        """Tell every subscriber in every worker; each piece names its `collection`."""
        with self._changed:
            self._untold.extend(json.dumps(each, ensure_ascii=False) for each in news)
            self._changed.notify_all()

    def subscribe(self, ticket: Ticket, collection: str | None, places: int) -> Subscription:
        """Hear news from now on, of one collection or of all.

        Args:
            places: how many subscribers there may be in this worker.

        Raises:
            Busy: there are as many, or the worker is about to end.
        """
        subscription = Subscription(ticket, collection, self._forget)
        with self._changed:
            if self._closed or len(self._subscriptions) >= places:
                raise Busy(CLOSED_PLACES if places else NO_PLACES)
            self._subscriptions.add(subscription)
            if self._is_ready:
                subscription.say(True)
            if self._listening is None:
                self._listening = threading.Thread(target=self._listen, name="news-listener", daemon=True)
                self._listening.start()
        return subscription

    def __enter__(self) -> Self:
        self._telling.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def end(self) -> None:
        """End all subscriptions and take no more; nothing is told any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for subscription in self._everybody():
            subscription.end()

    def close(self) -> None:
        """The same, and wait for the threads; once is as good as twice."""
        self.end()
        listening = self._listening
        if self._telling.is_alive():
            self._telling.join(TELL_SECONDS)
        if listening is not None:
            listening.join(LOOK_SECONDS + TELL_SECONDS)

    def _everybody(self) -> list[Subscription]:
        with self._changed:
            return list(self._subscriptions)

    def _forget(self, subscription: Subscription) -> None:
        with self._changed:
            self._subscriptions.discard(subscription)

    # -- telling --

    def _tell_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._untold or self._closed)
                if self._closed:
                    return
                news = list(self._untold)
                self._untold.clear()
            try:
                publish(self._pool, news, Deadline(TELL_SECONDS))
            except (DatabaseUnavailable, DeadlineExceeded) as error:
                LOGGER.debug("%d pieces of news could not be told: %s", len(news), error)

    # -- hearing --

    def _listen(self) -> None:
        while self._is_wanted():
            try:
                with Listener(self._settings) as listener:
                    self._say(is_ready=True)
                    self._hear(listener)
                    with self._changed:
                        self._is_ready = False  # who comes while we leave is told so when we are back
            except (DatabaseUnavailable, OSError):  # OSError: no file descriptor is left
                self._say(is_ready=False)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, RETRY_SECONDS)

    def _is_wanted(self) -> bool:
        with self._changed:
            if self._subscriptions and not self._closed:
                return True
            self._listening, self._is_ready = None, False
            return False

    def _say(self, *, is_ready: bool) -> None:
        """Tell the subscribers whether what happens is heard."""
        with self._changed:
            self._is_ready = is_ready
            everybody = list(self._subscriptions)
        for subscription in everybody:
            subscription.say(is_ready)

    def _hear(self, listener: Listener) -> None:
        check_at = 0.0
        while (everybody := self._everybody()) and not self._closed:
            if time.monotonic() >= check_at:
                check_at = time.monotonic() + CHECK_SECONDS
                valid = listener.valid([each.ticket for each in everybody])
                for each in everybody:
                    if each.ticket not in valid:
                        each.end()
            for told in listener.wait(LOOK_SECONDS):
                collection = _collection_of(told)
                for each in self._everybody():
                    if collection is not None and each.wants(collection):
                        each.put(Notice("recognition", told))


def _collection_of(told: str) -> str | None:
    """Which collection a piece of news is about; None: it is not ours, for any role of the database can send some."""
    try:
        collection = json.loads(told)["collection"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return collection if isinstance(collection, str) else None
