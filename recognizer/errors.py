"""Everything that can go wrong in the domain: one class, one `code` word each.

No HTTP here: each API dialect maps these classes to its own status codes (`api/problems.py`).
The message of an error is one sentence that says what to do next; it is shown to the caller,
so it never holds a secret, a path of this machine or a class name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from recognizer.faces import Remark


class RecognizerError(Exception):
    """Base of all domain errors. `code` is stable: clients, logs and metrics rely on it."""

    code: ClassVar[str] = "internal_error"


class InvalidRequest(RecognizerError):
    """The request cannot be understood: a missing, unknown or impossible option."""

    code = "invalid_request"


class ImageMissing(InvalidRequest):
    """There is no image in the request, or it is empty."""

    code = "image_missing"


# -- what can be wrong with an image or with the faces in it --


class Unusable(RecognizerError):
    """An image or a face that cannot be used; an enrolment refuses just that photo."""

    issues: tuple[str, ...] = ()


class ImageCorrupt(Unusable):
    """The bytes begin like an image and cannot be decoded to the end."""

    code = "image_corrupt"


class ImageUnsupported(Unusable):
    """The bytes are no image of an allowed format."""

    code = "image_unsupported"


class ImageTooLarge(Unusable):
    """More bytes or pixels than the settings allow; found before decoding."""

    code = "image_too_large"


class NoFace(Unusable):
    """The photo to enrol shows no face."""

    code = "no_face"


class MultipleFaces(Unusable):
    """The photo to enrol shows several faces and `face=largest` was not given."""

    code = "multiple_faces"


class FaceTooSmall(Unusable):
    """The face has too few pixels to be remembered."""

    code = "face_too_small"


class LowQuality(Unusable):
    """The face is too poor to be remembered: blurred, dark, turned away or small; `issues` says which of it."""

    code = "low_quality"

    def __init__(self, message: str, issues: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.issues = tuple(issues)


class BelongsToOther(Unusable):
    """The face is near-certainly that of another person who is enrolled."""

    code = "face_belongs_to_other_person"


class DuplicatePhoto(Unusable):
    """This very photo is enrolled for this person already."""

    code = "duplicate_photo"


class AllRefused(RecognizerError):
    """None of the images of a request could be used; `refused` says why, image by image."""

    summary: ClassVar[str] = "No image could be used."

    def __init__(self, refused: Sequence[Remark]) -> None:
        self.refused = tuple(refused)
        super().__init__(" ".join([self.summary, *(r.detail for r in self.refused[:3])]))


class EnrolmentRefused(AllRefused):
    """No photo of the enrolment could be used."""

    code = "enrolment_refused"
    summary = "No photo could be enrolled."


class FramesRefused(AllRefused):
    """No frame of the event could be read."""

    code = "frames_refused"
    summary = "No frame could be read."


# -- what is not there, or in the way --


class NotFound(RecognizerError):
    """What the request names does not exist (any more)."""

    code = "not_found"


class PersonNotFound(NotFound):
    code = "person_not_found"


class CollectionNotFound(NotFound):
    code = "collection_not_found"


class RejectionNotFound(NotFound):
    code = "rejection_not_found"


class FaceNotFound(NotFound):
    code = "face_not_found"


class PhotoNotFound(NotFound):
    """No photo of the face is kept."""

    code = "photo_not_found"


class KeyNotFound(NotFound):
    code = "key_not_found"


class Conflict(RecognizerError):
    """The request contradicts what is stored."""

    code = "conflict"


class PreconditionFailed(RecognizerError):
    """What is to be changed is no longer as the caller has seen it."""

    code = "precondition_failed"


class SealBroken(RecognizerError):
    """What is stored encrypted was changed, or is not what its place says."""

    code = "stored_data_damaged"


# -- who is asking --


class Unauthorized(RecognizerError):
    """No valid API key came with the request."""

    code = "unauthorized"


class Forbidden(RecognizerError):
    """The API key is valid but not for this."""

    code = "forbidden"


class RateLimited(RecognizerError):
    """The API key has been used as often as the setting `rate_limit` allows."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooManyWrongKeys(RateLimited):
    """Too many keys that are not valid came from the request's address."""

    code = "too_many_wrong_keys"


# -- try again later --


class Unavailable(RecognizerError):
    """The service cannot do it now; the same request may succeed after `retry_after_seconds`."""

    retry_after_seconds: ClassVar[int] = 1


class Busy(Unavailable):
    """All slots stayed taken for as long as a request may wait."""

    code = "busy"


class DatabaseUnavailable(Unavailable):
    """The database does not answer, is not ready, or its connections are all in use."""

    code = "database_unavailable"
    retry_after_seconds = 2


class EncryptionKeyMissing(Unavailable):
    """What is stored was encrypted with a key that the service does not have, or it has none to encrypt with."""

    code = "encryption_key_missing"
    retry_after_seconds = 60


class GalleryBehind(Unavailable):
    """The gallery has not reached the revision that the caller has seen already."""

    code = "gallery_behind"


class DeadlineExceeded(RecognizerError):
    """The request's deadline passed before its work was done."""

    code = "deadline_exceeded"


# -- what ends a command --


class FileRefused(RecognizerError):
    """A file to be imported is damaged, or is not what can be imported; the message names the place in it."""

    code = "file_refused"


class FileNotWritten(RecognizerError):
    """A file cannot be written: it is there already, or the disk does not take it."""

    code = "file_not_written"


# -- what ends a start --


class StartupError(RecognizerError):
    """The service cannot start or go on; the message says what to change."""

    code = "startup_failed"


class ConfigError(StartupError):
    """A setting is unknown or impossible; the message names it."""

    code = "config_invalid"


class ModelError(StartupError):
    """A model file is missing or damaged."""

    code = "model_invalid"
