"""What waits for one subscriber: bounded, in order, and honest about what was lost."""

from __future__ import annotations

import json
import threading

from recognizer.gallery.news import Ticket
from recognizer.news import AWAY, QUEUE_LENGTH, READY, Notice, Subscription, _collection_of


def subscription(collection: str | None = None) -> Subscription:
    return Subscription(Ticket(None), collection, lambda _: None)


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    slow = subscription()
    for number in range(QUEUE_LENGTH + 3):
        slow.put(Notice("recognition", str(number)))
    (lost, *kept), _ = slow.take()
    assert (lost.event, json.loads(lost.data)) == ("lost", {"events": 3})
    assert [notice.data for notice in kept] == [str(number) for number in range(3, QUEUE_LENGTH + 3)]
    assert slow.take() == ([], False)


def test_after_the_end_nothing_is_heard_any_more_not_even_what_waits() -> None:
    listening = subscription()
    listening.put(Notice("recognition", "1"))
    listening.end()
    listening.put(Notice("recognition", "2"))
    assert listening.take() == ([], True)


def test_what_others_send_over_the_channel_is_no_news() -> None:
    for told in ("", "[]", "null", '{"collection": 1}', "{}", "[" * 100_000):
        assert _collection_of(told) is None
    assert _collection_of('{"collection": "default"}') == "default"


def test_the_same_state_is_said_once() -> None:
    hearing = subscription()
    for hears in (True, True, False, False, True):
        hearing.say(hears)
    assert hearing.take()[0] == [READY, AWAY, READY]


def test_whoever_sends_is_woken_once_for_all_that_waits() -> None:
    woken = []
    busy = subscription()
    busy.on_news(lambda: woken.append(1))
    for _ in range(3):
        busy.put(READY)
    assert len(woken) == 2, "at first, and for the first notice"
    busy.take()
    busy.put(READY)
    assert len(woken) == 3


def test_whoever_waits_is_woken() -> None:
    waiting = subscription()
    threading.Timer(0.05, waiting.put, [READY]).start()
    waiting.wait(30)
    assert waiting.take()[0] == [READY]


def test_collections_are_named_without_regard_to_case() -> None:
    assert subscription("Straße").wants("STRASSE")
    assert not subscription("home").wants("work")
    assert subscription().wants("anything")
