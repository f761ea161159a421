"""Many images in requests of several: read lazily, answered in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from recognizer.client.answers import Batch, Recognition
from recognizer.client.errors import RecognizerClientError
from recognizer.client.images import Image, image_bytes

MOST_IMAGES = 32
MOST_BYTES = 32 * 2**20
"""Half of what a service accepts by default, for what a form adds."""

NOT_YET = frozenset({"deadline_exceeded", "busy", "database_unavailable", "gallery_behind"})
"""Errors of single images that are sent again while others of their request were answered."""

Outcome = Recognition | RecognizerClientError
Send = Callable[[list[bytes]], Batch]


def recognized(images: Iterable[Image], send: Send) -> Iterator[Outcome]:
    """The outcome of each image, in order; raises what is wrong with a request as a whole."""
    for batch in _batches(images):
        yield from _outcomes(batch, send)


def _batches(images: Iterable[Image]) -> Iterator[list[bytes | RecognizerClientError]]:
    """The images in batches, or why one could not be read; one that is larger than a batch may be goes alone."""
    batch: list[bytes | RecognizerClientError] = []
    size = 0
    for image in images:
        read = _read(image)
        more = len(read) if isinstance(read, bytes) else 0
        if batch and (len(batch) == MOST_IMAGES or size + more > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(read)
        size += more
    if batch:
        yield batch


def _read(image: Image) -> bytes | RecognizerClientError:
    try:
        return image_bytes(image)
    except RecognizerClientError as error:
        return error


def _outcomes(batch: list[bytes | RecognizerClientError], send: Send) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    waiting: dict[int, bytes] = {}
    for number, image in enumerate(batch):
        if isinstance(image, bytes):
            waiting[number] = image
        else:
            outcomes[number] = image
    while waiting:
        answered = _answered(waiting, send)
        outcomes.update(answered)
        # whoever was answered "not yet" is asked again; when that was everybody, it is the answer
        later = [number for number, outcome in answered.items() if _is_not_yet(outcome)]
        waiting = {number: waiting[number] for number in later} if len(later) < len(answered) else {}
    return [outcomes[number] for number in range(len(batch))]


def _answered(waiting: dict[int, bytes], send: Send) -> dict[int, Outcome]:
    numbers = list(waiting)
    answered: dict[int, Outcome] = {}
    for result in send(list(waiting.values())).results:
        if result.result is not None:
            answered[numbers[result.index]] = result.result
        elif result.error is not None:
            answered[numbers[result.index]] = RecognizerClientError(result.error.code, result.error.detail)
    return answered


def _is_not_yet(outcome: Outcome) -> bool:
    return isinstance(outcome, RecognizerClientError) and outcome.code in NOT_YET
