"""The routes under /v1/keys: API keys made, listed, given a new secret, revoked. A secret is shown once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from flask import Blueprint, g
from pydantic import Field, WithJsonSchema, model_validator

from recognizer.api import observation
from recognizer.api.auth import may_use, only_collection, request_deadline, route, runtime
from recognizer.api.records import Key, KeyAnswer, KeyList, NewSecret
from recognizer.api.takes import Body
from recognizer.api.uploads import Options
from recognizer.errors import CollectionNotFound, Conflict, Forbidden, KeyNotFound
from recognizer.gallery.keys import MAX_DAYS, SCOPES, KeyRecord
from recognizer.moments import Moment


class RotateOptions(Options):
    expires_at: Moment | None = None
    expires_in_days: int | None = Field(None, ge=1, le=MAX_DAYS)

    @model_validator(mode="after")
    def _one_end(self) -> RotateOptions:
        if self.expires_at is not None and self.expires_in_days is not None:
            raise ValueError("Give either `expires_at` or `expires_in_days`")
        return self

    @property
    def end(self) -> datetime | None:
        """When the key shall expire; None: nothing is said of it."""
        if self.expires_in_days is not None:
            return datetime.now(UTC) + timedelta(days=self.expires_in_days)
        return self.expires_at


Scope = Annotated[str, WithJsonSchema({"type": "string", "enum": [*SCOPES]})]


class CreateOptions(RotateOptions):
    scopes: list[Scope] = Field(min_length=1, max_length=3)
    collection: str | None = Field(None, min_length=1, max_length=100)
    label: str = Field("", max_length=200)


def blueprint() -> Blueprint:
    """The API keys; whoever has the scope admin in one collection only sees and makes that collection's."""
    keys = Blueprint("keys", __name__)
    route(
        keys,
        "/keys",
        create_key,
        methods=["POST"],
        scope="admin",
        takes=Body(CreateOptions),
        answers={201: NewSecret},
        errors=(CollectionNotFound,),
    )
    route(
        keys,
        "/keys",
        list_keys,
        methods=["GET"],
        scope="admin",
        answers={200: KeyList},
    )
    route(
        keys,
        "/keys/<key_id>/rotate",
        rotate_key,
        methods=["POST"],
        scope="admin",
        takes=Body(RotateOptions, optional=True),
        answers={200: NewSecret},
        errors=(KeyNotFound, Conflict),
    )
    route(
        keys,
        "/keys/<key_id>",
        revoke_key,
        methods=["DELETE"],
        scope="admin",
        answers={200: KeyAnswer},
        errors=(KeyNotFound,),
    )
    return keys


def create_key(options: CreateOptions) -> tuple[NewSecret, int]:
    """Make a key; `secret` is the key itself, which cannot be had again."""
    record, secret = runtime().keys.create(
        scopes=options.scopes,
        collection=_allowed(options.collection),
        label=options.label,
        expires_at=options.end,
        deadline=request_deadline(),
    )
    observation.note(key_created=record.id)
    return {"request_id": g.request_id, **shape(record), "secret": secret}, 201


def list_keys() -> KeyList:
    """All keys that the caller may manage, oldest first, those that have ended too."""
    return {"keys": [shape(key) for key in runtime().keys.list(request_deadline(), collection=only_collection())]}


def rotate_key(key_id: str, options: RotateOptions) -> NewSecret:
    """Give a key a new secret; the old one is not valid any more."""
    record, secret = runtime().keys.rotate(
        key_id, request_deadline(), expires_at=options.end, collection=only_collection()
    )
    observation.note(key_rotated=record.id)
    return {"request_id": g.request_id, **shape(record), "secret": secret}


def revoke_key(key_id: str) -> KeyAnswer:
    """End a key's validity at once and for good; it stays listed."""
    record = runtime().keys.revoke(key_id, request_deadline(), collection=only_collection())
    observation.note(key_revoked=record.id)
    return {"request_id": g.request_id, **shape(record)}


def shape(key: KeyRecord) -> Key:
    """A key as it is shown, without its secret."""
    return {
        "id": key.id,
        "label": key.label,
        "scopes": list(key.scopes),
        "collection": key.collection,
        "valid": key.is_valid,
        "created_at": key.created_at.isoformat(),
        "expires_at": _moment(key.expires_at),
        "rotated_at": _moment(key.rotated_at),
        "revoked_at": _moment(key.revoked_at),
        "last_used_at": _moment(key.last_used_at),
    }


def _allowed(collection: str | None) -> str | None:
    """The collection of a key to be made, None for all, when the caller's key reaches as far."""
    if not may_use(collection):
        own = only_collection()
        raise Forbidden(f"This API key makes keys for its own collection alone; give `collection` as `{own}`.")
    return collection


def _moment(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
