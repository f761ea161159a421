"""The routes under /v1/collections: which there are, how much they hold, and how strictly they recognise."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, g
from flask.typing import ResponseReturnValue
from pydantic import Field

from recognizer.api import observation, shapes
from recognizer.api.auth import allowed_collection, only_collection, request_deadline, route, runtime
from recognizer.api.operations import SEALED
from recognizer.api.people import MAX_REVISION
from recognizer.api.records import Collection, CollectionAnswer, CollectionErasureAnswer, CollectionList
from recognizer.api.takes import Body, Query
from recognizer.api.uploads import Options
from recognizer.api.versions import only_if, only_if_settings, tagged
from recognizer.errors import CollectionNotFound, Conflict, EncryptionKeyMissing, InvalidRequest, PreconditionFailed
from recognizer.gallery.collections import MAX_NAME_LENGTH, MAX_RETENTION_DAYS


class CollectionChange(Options):
    target_fpir: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)] | None = None
    threshold: Annotated[float, Field(strict=True, gt=0, lt=2, allow_inf_nan=False)] | None = None
    keep_photos: Annotated[bool, Field(strict=True)] = False
    retention_days: Annotated[int, Field(strict=True, ge=1, le=MAX_RETENTION_DAYS)] | None = None
    encrypt_embeddings: Annotated[bool, Field(strict=True)] = False


class NewCollection(CollectionChange):
    name: str = Field(min_length=1, max_length=MAX_NAME_LENGTH)


class CollectionOptions(Options):
    min_revision: int = Field(0, ge=0, le=MAX_REVISION)


def blueprint() -> Blueprint:
    """The collections."""
    collections = Blueprint("collections", __name__)
    one = "/collections/<name>"
    route(
        collections,
        "/collections",
        list_collections,
        methods=["GET"],
        scope="enroll",
        answers={200: CollectionList, 304: None},
        errors=(PreconditionFailed,),
    )
    route(
        collections,
        "/collections",
        create_collection,
        methods=["POST"],
        scope="admin",
        takes=Body(NewCollection),
        answers={201: CollectionAnswer},
        errors=(Conflict, EncryptionKeyMissing),
    )
    route(
        collections,
        one,
        get_collection,
        methods=["GET"],
        scope="enroll",
        takes=Query(CollectionOptions),
        answers={200: Collection, 304: None},
        errors=(CollectionNotFound, PreconditionFailed),
    )
    route(
        collections,
        one,
        change_collection,
        methods=["PATCH"],
        scope="admin",
        takes=Body(CollectionChange),
        answers={200: CollectionAnswer},
        errors=(CollectionNotFound, Conflict, PreconditionFailed, *SEALED),
    )
    route(
        collections,
        one,
        delete_collection,
        methods=["DELETE"],
        scope="admin",
        answers={200: CollectionErasureAnswer},
        errors=(InvalidRequest, CollectionNotFound, PreconditionFailed),
    )
    return collections


def list_collections() -> ResponseReturnValue:
    """All collections that the key may use, by name."""
    found = runtime().gallery.collections(request_deadline(), only=only_collection())
    return tagged({"collections": [shapes.collection(each) for each in found]})


def create_collection(options: NewCollection) -> tuple[CollectionAnswer, int]:
    """Make a collection; what is set for it may come along."""
    made = runtime().gallery.create_collection(
        allowed_collection(options.name), options.model_dump(exclude={"name"}), request_deadline()
    )
    return {"request_id": g.request_id, **shapes.collection(made)}, 201


def get_collection(name: str, options: CollectionOptions) -> ResponseReturnValue:
    """One collection."""
    found = runtime().gallery.collection_overview(
        allowed_collection(name), request_deadline(), min_revision=options.min_revision
    )
    return tagged(shapes.collection(found), found.version)


def change_collection(name: str, options: CollectionChange) -> CollectionAnswer:
    """Set what a collection's decisions go by and what it keeps; null: the default.

    To switch `keep_photos` off erases the photos that were kept, all of them, in the same moment.

    If-Match asks whether still the same is set as with that ETag; who has been enrolled meanwhile does not matter.
    """
    changed = runtime().gallery.change_collection(
        allowed_collection(name),
        options.model_dump(include=options.model_fields_set),
        request_deadline(),
        only_if=only_if_settings(),
    )
    observation.note(changed=sorted(options.model_fields_set))
    return {"request_id": g.request_id, **shapes.collection(changed)}


def delete_collection(name: str) -> CollectionErasureAnswer:
    """Erase a collection with all in it and revoke its keys; `default` is emptied. Counted after the fact."""
    erased = runtime().gallery.delete_collection(allowed_collection(name), request_deadline(), only_if=only_if())
    observation.note(deleted=dict(erased.deleted), revoked_keys=erased.revoked_keys)
    return {"request_id": g.request_id, **shapes.collection_erasure(erased)}
