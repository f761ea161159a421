"""The routes under /v1/collections: which there are, how much they hold, and how strictly they recognise."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue
from pydantic import Field

from recognizer.api import observation, shapes, uploads
from recognizer.api.auth import allowed_collection, only_collection, request_deadline, route, runtime
from recognizer.api.uploads import Options


class CollectionChange(Options):
    target_fpir: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)] | None = None
    threshold: Annotated[float, Field(strict=True, gt=0, lt=2, allow_inf_nan=False)] | None = None


def blueprint() -> Blueprint:
    """The collections."""
    collections = Blueprint("collections", __name__)
    route(collections, "/collections", list_collections, methods=["GET"], scope="enroll")
    route(collections, "/collections/<name>", get_collection, methods=["GET"], scope="enroll")
    route(collections, "/collections/<name>", change_collection, methods=["PATCH"], scope="admin")
    return collections


def list_collections() -> ResponseReturnValue:
    """All collections that the key may use, by name."""
    found = runtime().gallery.collections(request_deadline(), only=only_collection())
    return {"collections": [shapes.collection(each) for each in found]}


def get_collection(name: str) -> ResponseReturnValue:
    """One collection."""
    return shapes.collection(runtime().gallery.collection_overview(allowed_collection(name), request_deadline()))


def change_collection(name: str) -> ResponseReturnValue:
    """Set what a collection's decisions go by; null: as in the settings."""
    deadline = request_deadline()
    name = allowed_collection(name)
    sent = {**uploads.single_values(request.args), **uploads.json_object(request)}
    change = uploads.options_as(CollectionChange, sent)
    changed = runtime().gallery.change_collection(name, change.model_dump(include=change.model_fields_set), deadline)
    observation.note(changed=sorted(change.model_fields_set))
    return {"request_id": g.request_id, **shapes.collection(changed)}
