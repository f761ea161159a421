"""Several photos in one request: worked through one by one, and what is wrong with one harms no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recognizer.deadline import Deadline
from recognizer.errors import DeadlineExceeded, ImageMissing, RecognizerError, Unavailable, Unusable
from recognizer.service import Recognition

OF_ONE_PHOTO = (Unusable, ImageMissing, Unavailable, DeadlineExceeded)
"""What is answered for the photo that it happened to; anything else is wrong with the whole request."""

TOO_LATE = "The request's time was over before it was this image's turn; send it again, in a smaller batch."


def recognize_each(
    photos: Sequence[bytes], recognize: Callable[[bytes], Recognition], deadline: Deadline
) -> list[Recognition | RecognizerError]:
    """What `recognize` finds in each photo (an encoded image), or why it is not known; in the order of the photos.

    Only one photo at a time is decoded. Those whose turn has not come by the deadline get `DeadlineExceeded`.

    Raises:
        Unavailable, DeadlineExceeded: nothing could be done, for no photo at all.
        RecognizerError: whatever else `recognize` raises.
    """
    outcomes: list[Recognition | RecognizerError] = []
    for photo in photos:
        try:
            if not deadline.remaining_seconds():
                raise DeadlineExceeded(TOO_LATE)
            if not photo:
                raise ImageMissing("The image is empty (0 bytes); check the file that is sent.")
            outcomes.append(recognize(photo))
        except OF_ONE_PHOTO as error:
            outcomes.append(error)
    in_vain = [outcome for outcome in outcomes if isinstance(outcome, Unavailable | DeadlineExceeded)]
    if in_vain and len(in_vain) == len(outcomes):
        raise in_vain[0]
    return outcomes
