"""What the routes answer of what is kept, people, collections, keys, and of the service itself; see `answers`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from recognizer.api.answers import Answered, Box, Moment, Quality, Revised


class Person(TypedDict):
    """A person in a listing; `faces` is a count."""

    id: str
    collection: str
    name: str
    external_id: str | None
    metadata: dict[str, Any]
    faces: int
    created_at: Moment


class PeoplePage(TypedDict):
    """A page of people."""

    people: list[Person]
    next_cursor: Annotated[str | None, Field(description="Gets the next page; null: this is the last.")]


class StoredFace(TypedDict):
    """A face in the gallery."""

    id: str
    box: Box
    quality: Quality
    model_id: str
    photo: Annotated[bool, Field(description="Whether its photo is kept: see its `/image`.")]
    created_at: Moment


class PersonDetails(TypedDict):
    """A person with the faces that are stored."""

    id: str
    collection: str
    name: str
    external_id: str | None
    metadata: dict[str, Any]
    faces: list[StoredFace]
    created_at: Moment


class ChangedPerson(Answered, Revised, PersonDetails):
    """A person after a change."""


class Merger(Revised):
    """What came of merging two people, counted by table."""

    person: PersonDetails
    merged: Annotated[str, Field(description="The id that is no more.")]
    moved: dict[str, int]
    dropped: dict[str, int]


class MergerAnswer(Answered, Merger):
    """The answer of a merge."""


class Erasure(Revised):
    """The receipt of a deletion, counted by table after the fact."""

    person_id: str
    deleted: dict[str, int]
    left: Annotated[int, Field(description="Rows that are left of the person: 0.")]


class ErasureAnswer(Answered, Erasure):
    """The answer of a person's deletion."""


class FaceRemoval(Answered, Revised):
    """The answer of a face's deletion."""

    face_id: str
    person: Person


class Rejection(TypedDict):
    """A face that was said not to be a person's."""

    id: str
    model_id: str
    created_at: Moment
    created_by: Annotated[str, Field(description='An API key\'s id, or "local".')]


class RejectionList(TypedDict):
    """The rejections of a person, oldest first."""

    rejections: list[Rejection]


class NewRejection(Answered, Revised):
    """The answer of a rejection."""

    rejection: Rejection


class RejectionUndone(Answered, Revised):
    """The answer of taking a rejection back."""

    rejection_id: str


class Collection(TypedDict):
    """A collection, what is set for it and how much it holds."""

    name: str
    target_fpir: Annotated[float | None, Field(description="Null: as in the settings.")]
    threshold: Annotated[float | None, Field(description="Null: as in the settings.")]
    keep_photos: bool
    retention_days: Annotated[int | None, Field(description="Null: until somebody erases them.")]
    encrypt_embeddings: bool
    people: int
    faces: int
    photos: Annotated[int, Field(description="How many are kept.")]
    gallery_revision: int
    created_at: Moment


class CollectionList(TypedDict):
    """The collections that the key may use, by name."""

    collections: list[Collection]


class CollectionAnswer(Answered, Collection):
    """A collection that was made or changed."""


class CollectionErasure(TypedDict):
    """The receipt of a collection's deletion, counted by table after the fact."""

    collection: str
    deleted: dict[str, int]
    left: int
    revoked_keys: int
    gallery_revision: Annotated[int | None, Field(description="Null where the collection is no more.")]


class CollectionErasureAnswer(Answered, CollectionErasure):
    """The answer of a collection's deletion."""


class Key(TypedDict):
    """An API key without its secret."""

    id: str
    label: str
    scopes: list[str]
    collection: Annotated[str | None, Field(description="Null: all, or one that has been deleted, for a revoked key.")]
    valid: bool
    created_at: Moment
    expires_at: Moment | None
    rotated_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None


class KeyList(TypedDict):
    """The keys that the caller may manage, oldest first, those that have ended too."""

    keys: list[Key]


class KeyAnswer(Answered, Key):
    """A key that was changed."""


class NewSecret(KeyAnswer):
    """A key with its secret, which is shown this once."""

    secret: Annotated[str, Field(description="The key itself: send it as X-API-Key.")]


class AuditEntry(TypedDict):
    """Something that was done, as the audit trail has it."""

    number: Annotated[int, Field(description="Without gaps over the whole trail, of which this may be a part.")]
    at: Moment
    actor: Annotated[str, Field(description='An API key\'s id, "local", a command or "retention".')]
    action: str
    collection: str | None
    subject: Annotated[str | None, Field(description="Whom it is about: the SHA-256 of the person's id, in hex.")]
    detail: Annotated[dict[str, Any], Field(description="Numbers and words, by action; never anything of a person.")]
    request_id: str | None
    hash: Annotated[str, Field(description="SHA-256, in hex, over the entry and the hash of the one before.")]


class AuditPage(TypedDict):
    """A page of the audit trail, the newest entry first."""

    entries: list[AuditEntry]
    next_cursor: Annotated[str | None, Field(description="Gets the next page; null: this is the last.")]


class Live(TypedDict):
    """The process answers."""

    status: Literal["live"]


class Readiness(TypedDict):
    """Whether the service can do its work, and which part fails."""

    status: Literal["ready", "not_ready"]
    checks: Annotated[dict[str, dict[str, Any]], Field(description="By part: `ok`, and a `detail` where it is not.")]
