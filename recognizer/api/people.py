"""The routes under /v1/people: who is enrolled, changed, merged and erased."""

from __future__ import annotations

import functools
import json
from contextlib import ExitStack
from typing import Any, Literal

from flask import Blueprint, Response, g
from flask.typing import ResponseReturnValue
from pydantic import Field, ValidationInfo, field_validator
from pydantic.config import JsonDict

from recognizer.api import observation, shapes
from recognizer.api.answers import Media
from recognizer.api.auth import allowed_collection, only_collection, request_deadline, route, runtime
from recognizer.api.download import sent
from recognizer.api.operations import SEALED
from recognizer.api.records import ChangedPerson, ErasureAnswer, MergerAnswer, PeoplePage, PersonDetails
from recognizer.api.takes import Body, Query
from recognizer.api.uploads import Options
from recognizer.api.versions import only_if, tagged
from recognizer.errors import (
    Busy,
    CollectionNotFound,
    Conflict,
    EncryptionKeyMissing,
    PersonNotFound,
    PreconditionFailed,
)
from recognizer.gallery.names import MAX_NAME_LENGTH, tidy
from recognizer.person_export import export

MAX_METADATA_BYTES = 16_384
MAX_METADATA_LEVELS = 32
"""Of objects and lists in each other, the metadata itself being the first: what is stored has to be written again."""

MAX_REVISION = 2**63 - 1


AS_KEPT: JsonDict = {"minLength": 1, "maxLength": MAX_NAME_LENGTH}
"""For the document; `tidy` says all that a name must be."""


class PersonFields(Options):
    """What can be set of a person."""

    name: str | None = Field(None, json_schema_extra=AS_KEPT)
    external_id: str | None = Field(None, json_schema_extra=AS_KEPT)
    metadata: dict[str, Any] | None = None

    @field_validator("name", "external_id")
    @classmethod
    def _as_kept(cls, value: str | None, field: ValidationInfo) -> str | None:
        return None if value is None else tidy(value, field.field_name or "name")

    @field_validator("metadata", mode="before")
    @classmethod
    def _metadata_object(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("must be a JSON object") from None
        if _is_deeper(value, MAX_METADATA_LEVELS):
            raise ValueError(f"must be at most {MAX_METADATA_LEVELS} levels deep")
        try:
            text = json.dumps(value, allow_nan=False)
        except ValueError:
            raise ValueError("must not hold NaN or infinity, which are no JSON") from None
        if "\\u0000" in text:
            raise ValueError("must not hold the character NUL")
        if len(text) > MAX_METADATA_BYTES:
            raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes of JSON")
        return value


class PersonOptions(Options):
    collection: str | None = Field(None, min_length=1, max_length=100)
    min_revision: int = Field(0, ge=0, le=MAX_REVISION)

    @property
    def allowed(self) -> str | None:
        """Where the person may be: in the collection that was given, else wherever the key reaches; None: anywhere."""
        return only_collection() if self.collection is None else allowed_collection(self.collection)


class PeopleOptions(Options):
    collection: str = Field("default", min_length=1, max_length=100)
    query: str = Field("", max_length=MAX_NAME_LENGTH)
    external_id: str | None = None
    sort: Literal["name", "-name", "created_at", "-created_at"] = "name"
    limit: int = Field(50, ge=1, le=1000)
    cursor: str | None = Field(None, max_length=4000)
    min_revision: int = Field(0, ge=0, le=MAX_REVISION)


class MergeOptions(Options):
    into: str = Field(min_length=1, max_length=100)


def blueprint() -> Blueprint:
    """The people of a collection."""
    people = Blueprint("people", __name__)
    one = "/people/<person_id>"
    route(
        people,
        "/people",
        list_people,
        methods=["GET"],
        scope="enroll",
        takes=Query(PeopleOptions),
        answers={200: PeoplePage, 304: None},
        errors=(CollectionNotFound, PreconditionFailed),
    )
    route(
        people,
        one,
        get_person,
        methods=["GET"],
        scope="enroll",
        takes=Query(PersonOptions),
        answers={200: PersonDetails, 304: None},
        errors=(PersonNotFound, CollectionNotFound, PreconditionFailed),
    )
    route(
        people,
        one,
        change_person,
        methods=["PATCH"],
        scope="enroll",
        takes=Body(PersonFields),
        answers={200: ChangedPerson},
        errors=(PersonNotFound, Conflict, PreconditionFailed),
    )
    route(
        people,
        one,
        delete_person,
        methods=["DELETE"],
        scope="enroll",
        answers={200: ErasureAnswer},
        errors=(PersonNotFound, PreconditionFailed),
    )
    route(
        people,
        f"{one}/merge",
        merge_person,
        methods=["POST"],
        scope="enroll",
        takes=Body(MergeOptions),
        answers={200: MergerAnswer},
        errors=(PersonNotFound, Conflict, PreconditionFailed, *SEALED),
    )
    route(
        people,
        f"{one}/export",
        export_person,
        methods=["GET"],
        scope="admin",
        answers={200: Media("application/zip", "README.txt, person.json, numbers.json, photos and chips.")},
        errors=(PersonNotFound, EncryptionKeyMissing),
    )
    return people


def list_people(options: PeopleOptions) -> ResponseReturnValue:
    """A page of the collection's people."""
    found, next_cursor = runtime().gallery.people(
        allowed_collection(options.collection),
        query=options.query,
        external_id=options.external_id,
        sort=options.sort,
        limit=options.limit,
        cursor=options.cursor,
        min_revision=options.min_revision,
        deadline=request_deadline(),
    )
    return tagged({"people": [shapes.person(person) for person in found], "next_cursor": next_cursor})


def get_person(person_id: str, options: PersonOptions) -> ResponseReturnValue:
    """One person with the faces that are stored."""
    found = runtime().gallery.person(
        person_id, request_deadline(), collection=options.allowed, min_revision=options.min_revision
    )
    return tagged(shapes.person_details(found), found.version)


def change_person(person_id: str, options: PersonFields) -> ChangedPerson:
    """Set what is given of a person: a free name, a free external id (null: none), metadata (null: none)."""
    changed, revision = runtime().gallery.change_person(
        person_id,
        options.model_dump(include=options.model_fields_set),
        request_deadline(),
        collection=only_collection(),
        only_if=only_if(),
    )
    observation.note(changed=sorted(options.model_fields_set), gallery_revision=revision)
    return {"request_id": g.request_id, **shapes.person_details(changed), "gallery_revision": revision}


def merge_person(person_id: str, options: MergeOptions) -> MergerAnswer:
    """Give all that is held on this person to another one, who was the same all along."""
    merged = runtime().gallery.merge_people(
        person_id, options.into, request_deadline(), collection=only_collection(), only_if=only_if()
    )
    observation.note(moved=merged.moved, dropped=merged.dropped, gallery_revision=merged.revision)
    return {"request_id": g.request_id, **shapes.merger(merged)}


def export_person(person_id: str) -> Response:
    """Everything that is held on a person, as a ZIP file that explains itself to whoever it is about.

    Photos are part of it where they are kept. If the file ends too early, it is no valid ZIP file: fetch it again.
    """
    owner = runtime()
    if not owner.exporting.acquire(blocking=False):
        raise Busy("Other exports are under way; try again in a moment.")
    with ExitStack() as opening:
        opening.callback(owner.exporting.release)
        held = owner.holdings.of_person(person_id, request_deadline(), collection=only_collection())
        place = opening.pop_all()
    observation.note(exported={table: len(rows) for table, rows in held.tables.items()})
    pieces = export(held, functools.partial(owner.holdings.image, held.person_id))
    headers = {
        "Content-Type": "application/zip",
        "Content-Disposition": f'attachment; filename="person-{held.person_id}.zip"',
    }
    return sent(pieces, place, headers)


def delete_person(person_id: str) -> ErasureAnswer:
    """Erase a person; the answer says what was deleted, counted after the fact."""
    erasure = runtime().gallery.delete_person(
        person_id, request_deadline(), collection=only_collection(), only_if=only_if()
    )
    return {"request_id": g.request_id, **shapes.erasure(erasure)}


def _is_deeper(value: object, levels: int) -> bool:
    """Whether more than so many objects and lists are in each other."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inside)
