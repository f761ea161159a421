"""GET /v1/events: recognitions as they happen, as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from flask import Blueprint, Response, g, request
from flask.typing import ResponseReturnValue
from pydantic import Field

from recognizer.api.answers import Media
from recognizer.api.auth import allowed_collection, only_collection, request_deadline, route, runtime
from recognizer.api.takes import Query
from recognizer.api.uploads import Options
from recognizer.errors import CollectionNotFound
from recognizer.gallery.keys import KeyRecord
from recognizer.gallery.news import Ticket
from recognizer.news import Subscription
from recognizer.service import Recognition

HEARTBEAT_SECONDS: Final = 15.0

HELLO: Final = b"retry: 2000\n: recognitions as they happen\n\n"
HEARTBEAT: Final = b": heartbeat\n\n"

WHAT_COMES: Final = """\
Server-sent events without an end.

- `recognition`: JSON with `request_id`, `time`, `collection`, `image` and `face` (their numbers in the request and in
  the answer; no image where it is about several), `decision`, `person` (`id`, `name`; null unless `match`),
  `confidence`.
- `ready`: what happens is heard from here on. A worker whose database does not answer for two seconds leaves out what
  it had to tell.
- `away`: the database is away, and what happens is missed until the next `ready`.
- `lost`: the client reads too slowly; the `events` oldest ones were left out.
"""

THREADS_PER_STREAM: Final = 4
"""Where each stream holds a thread, so many threads there have to be for each."""


class EventsOptions(Options):
    collection: str | None = Field(None, min_length=1, max_length=100)


def blueprint() -> Blueprint:
    """The stream of recognitions."""
    stream = Blueprint("stream", __name__)
    route(
        stream,
        "/events",
        events,
        methods=["GET"],
        scope="admin",
        takes=Query(EventsOptions),
        answers={200: Media("text/event-stream", WHAT_COMES)},
        errors=(CollectionNotFound,),
    )
    return stream


def events(options: EventsOptions) -> ResponseReturnValue:
    """Send recognitions of one collection, or of all, as they happen, until the client leaves.

    Nothing is kept: what happens while nobody listens is not told later.
    """
    collection = only_collection() if options.collection is None else allowed_collection(options.collection)
    if collection is not None:
        runtime().gallery.collection(collection, request_deadline())  # there is no such one: say so now
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return Response(headers=headers)
    # our server under gunicorn goes on with a stream by itself; with others it holds a thread
    hand_over: Callable[[EventStream], None] | None = getattr(request.environ.get("gunicorn.socket"), "hand_over", None)
    settings = runtime().settings
    places = settings.event_streams
    if hand_over is None:
        places = min(places, settings.threads // THREADS_PER_STREAM)
    key: KeyRecord | None = g.get("key")
    ticket = Ticket(None) if key is None else Ticket(key.id, key.rotated_at)
    stream = EventStream(runtime().news.subscribe(ticket, collection, places))
    if hand_over is None:
        return Response(stream, headers=headers)
    hand_over(stream)
    return Response(iter([HELLO]), headers=headers)


class EventStream:
    """What a client is sent, and when. Closed by whoever sends it."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._spoke_at = time.monotonic()
        self.on_news = subscription.on_news
        self.close = subscription.close

    def take(self) -> bytes | None:
        """What is to be sent now, empty where there is nothing; None: no more comes."""
        notices, has_ended = self._subscription.take()
        now = time.monotonic()
        if not notices and has_ended:
            return None
        if not notices and now - self._spoke_at < HEARTBEAT_SECONDS:
            return b""
        self._spoke_at = now
        return b"".join(f"event: {event}\ndata: {data}\n\n".encode() for event, data in notices) or HEARTBEAT

    def __iter__(self) -> Iterator[bytes]:
        """For a server that sends it from a thread."""
        try:
            yield HELLO
            while (piece := self.take()) is not None:
                if piece:
                    yield piece
                else:
                    self._subscription.wait(HEARTBEAT_SECONDS)
        finally:
            self.close()


def announce(recognition: Recognition, image: int | None) -> None:
    """Tell whoever listens what was decided about each face of an image; never an image or an embedding."""
    now = datetime.now(UTC).isoformat()
    news = []
    for number, (_, verdict) in enumerate(recognition.seen):
        best = verdict.best
        is_match = best is not None and verdict.decision == "match"
        news.append(
            {
                "request_id": g.request_id,
                "time": now,
                "collection": recognition.collection,
                "image": image,
                "face": number,
                "decision": verdict.decision,
                "person": {"id": best.neighbour.person_id, "name": best.neighbour.name} if best and is_match else None,
                "confidence": round(best.confidence, 6) if best else None,
            }
        )
    if news:
        runtime().news.tell(news)
