"""The format of an export: which members the ZIP has, and what its manifest says of them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

from pydantic import AwareDatetime, Field, ValidationError

from recognizer import __version__
from recognizer.errors import FileRefused
from recognizer.gallery.photos import Kind
from recognizer.gallery.transfer import CollectionRecord, Member, Record

FORMAT: Final = "recognizer-export"
VERSION: Final = (1, 1)
"""A reader passes over what a later minor version adds, and refuses another major version."""

MANIFEST: Final = "manifest.json"
PEOPLE, FACES, REJECTIONS = "people.jsonl", "faces.jsonl", "rejections.jsonl"
EMBEDDINGS, REJECTED = "embeddings.npy", "rejections.npy"
PHOTOS = "photos.jsonl"
"""A line for each kept photo; the pictures have members of their own, whose checksums are in these lines: there may be
millions, too many for the manifest."""

MAX_MANIFEST_BYTES: Final = 2**20
MAX_LINE_BYTES: Final = 2**18
MAX_COUNT: Final = 2**31

AnyRecord = TypeVar("AnyRecord", bound=Record)

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class Version(Record):
    """What is read first of a manifest, whatever else is in it."""

    format: Literal["recognizer-export"]
    format_version: tuple[Count, Count]


class Manifest(Version):
    """What an export says of itself."""

    program_version: str = __version__
    exported_at: AwareDatetime
    collection: CollectionRecord
    members: dict[str, Member]


def picture(kind: Kind, face_id: object) -> str:
    """The member that holds a photo or a chip."""
    return f"{kind}s/{face_id}"


def parsed(kind: type[AnyRecord], place: str, text: bytes) -> AnyRecord:
    """JSON as a record.

    Raises:
        FileRefused: with the place and what is wrong, but not with what is there, which may be a name.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise FileRefused(f"{place}: {f'`{where}`: ' if where else ''}{first['msg']}.") from error
