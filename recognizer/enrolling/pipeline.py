"""The way of many photos: from a source, in batches of one person, through several threads, into the report."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from recognizer.enrolling.items import Enroller, Item, NoPhoto, Outcome, Row
from recognizer.errors import InvalidRequest, RecognizerError
from recognizer.gallery.names import comparable, tidy

BATCHES_AHEAD = 2
"""For each thread: one that it works on, and one that it finds when it is done."""

BATCH_BYTES = 24 * 2**20
"""A batch is enrolled as soon as its photos have so many bytes: a thread never holds many large ones."""

Tell = Callable[[Row], None]
Work = list[Item] | Row


def run(source: Iterable[Item | Row], enroller: Enroller, tell: Tell, *, workers: int, stop: threading.Event) -> bool:
    """Enrol all that the source yields, `workers` batches at a time; `tell` hears of each in the order of the source.

    When `stop` is set, what has been begun is finished and told, and no more is begun.

    Returns:
        whether all that the source yielded has been told.

    Raises:
        RecognizerError: going on is no use; what was finished has been told.
    """
    waiting: deque[Row | Future[list[Row]]] = deque()
    work = _batches(source, enroller.batch)
    failure: RecognizerError | None = None
    all_begun = False
    with ThreadPoolExecutor(workers, thread_name_prefix="enrol") as threads:
        while True:
            try:
                if not (stop.is_set() or all_begun):
                    room = BATCHES_AHEAD * workers - len(waiting)
                    more = list(islice(work, room))
                    all_begun = len(more) < room
                    waiting.extend(
                        each if isinstance(each, Row) else threads.submit(_enrol, enroller, each, stop) for each in more
                    )
                if not waiting:
                    break
                for row in _finished(waiting.popleft()):
                    tell(row)
            except _NotBegun:
                all_begun = False
            except RecognizerError as error:
                failure = failure or error
                stop.set()
    if failure:
        raise failure
    return all_begun


class _NotBegun(Exception):
    """A batch was not begun, for all is to stop."""


def _finished(each: Row | Future[list[Row]]) -> list[Row]:
    return [each] if isinstance(each, Row) else each.result()


def _batches(source: Iterable[Item | Row], most: int) -> Iterator[Work]:
    """Photos that follow each other and are of one person, up to `most` together; rows as they are."""
    batch: list[Item] = []
    for each in source:
        if batch and (isinstance(each, Row) or each.person != batch[0].person or len(batch) == most):
            yield batch
            batch = []
        if isinstance(each, Row):
            yield each
        else:
            batch.append(each)
    if batch:
        yield batch


def _enrol(enroller: Enroller, items: list[Item], stop: threading.Event) -> list[Row]:
    """What came of photos of one person, in a thread.

    Raises:
        _NotBegun: all is to stop.
        RecognizerError: there is no use in going on.
    """
    if stop.is_set():
        raise _NotBegun
    person = items[0].person
    try:
        tidy(person)
    except InvalidRequest as error:
        return [Row(item.label, person, Outcome("refused", ("invalid_name",), str(error))) for item in items]
    outcomes: dict[int, Outcome] = {}
    photos: dict[int, bytes] = {}
    for number, item in enumerate(items):
        try:
            photos[number] = item.read()
        except NoPhoto as error:
            outcomes[number] = error.outcome
        if photos and (sum(map(len, photos.values())) > BATCH_BYTES or number == len(items) - 1):
            outcomes.update(zip(photos, enroller.enrol(person, list(photos.values())), strict=True))
            photos.clear()
    return [Row(item.label, person, outcomes[number]) for number, item in enumerate(items)]


class Namesakes:
    """Notices names that are written differently and mean the same person."""

    def __init__(self) -> None:
        self._spellings: dict[str, list[str]] = {}

    def of(self, name: str) -> str | None:
        """How the same person was written first, when this is another way of writing and new; else None."""
        try:
            spellings = self._spellings.setdefault(comparable(name), [])
        except InvalidRequest:
            return None
        if name in spellings:
            return None
        spellings.append(name)
        return spellings[0] if len(spellings) > 1 else None
