"""Enrolling: one transaction that finds or makes the person, stores the faces and remembers its answer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from recognizer.errors import Conflict, DuplicatePhoto, EnrolmentRefused, InvalidRequest, PersonNotFound
from recognizer.faces import Box, NewFace, Quality, Remark
from recognizer.gallery import audit, photos, sealing, templates
from recognizer.gallery.names import comparable, tidy
from recognizer.gallery.turns import grow_revision, lock_collection


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """A face that was stored, and from which photo of the request it is."""

    index: int
    face_id: str
    box: Box
    quality: Quality


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an enrolment did: `faces` is how many the person has now, `revision` the collection's."""

    person_id: str
    name: str
    faces: int
    revision: int
    enrolled: tuple[EnrolledFace, ...]
    refused: tuple[Remark, ...]
    warnings: tuple[Remark, ...] = ()

    def as_json(self) -> str:
        """The enrolment as a JSON text, for `from_json`; it names nobody else, who might be erased meanwhile."""
        plain = asdict(self)
        for remark in (*plain["refused"], *plain["warnings"]):
            del remark["person"]
            if not remark["issues"]:
                del remark["issues"]
        return json.dumps(plain)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Enrolment:
        """The enrolment that `as_json` has written."""
        enrolled = (
            EnrolledFace(
                face["index"],
                face["face_id"],
                Box(**face["box"]),
                Quality(face["quality"]["score"], tuple(face["quality"]["issues"])),
            )
            for face in stored["enrolled"]
        )
        remarks = {
            kind: tuple(Remark(**{**each, "issues": tuple(each.get("issues", ()))}) for each in stored.get(kind, ()))
            for kind in ("refused", "warnings")
        }
        return cls(**{**stored, "enrolled": tuple(enrolled), **remarks})


class Idempotency(NamedTuple):
    """The caller's key for a request, and a digest of everything that makes two requests the same one."""

    key: str
    digest: bytes

    @property
    def key_sha256(self) -> bytes:
        """What is stored of the key."""
        return hashlib.sha256(self.key.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Who:
    """Whom to enrol: by `person_id`, or by `name`, which makes the person if it is new to the collection."""

    name: str | None
    person_id: str | None
    external_id: str | None
    metadata: Mapping[str, Any] | None


class Known(NamedTuple):
    """A person who is in the collection already."""

    id: str
    name: str
    external_id: str | None


def enrol(
    cursor: Cursor,
    collection: str,
    who: Who,
    faces: Sequence[NewFace],
    refused: Sequence[Remark],
    warnings: Sequence[Remark],
    idempotency: Idempotency | None,
) -> Enrolment:
    """Store the faces; `Gallery.enrol` says what it promises and raises."""
    collection_id = lock_collection(cursor, collection)
    if idempotency and (earlier := earlier_answer(cursor, collection, idempotency)):
        return earlier
    person = _find(cursor, collection_id, who)
    _check_external_id(cursor, collection_id, person, who)
    new, duplicates = _without_duplicates(cursor, person, faces)
    refused = sorted([*refused, *duplicates], key=lambda refusal: refusal.index)
    if not new:
        raise EnrolmentRefused(refused)
    person_id, name = _write_person(cursor, collection_id, person, who)
    enrolled = _write_faces(cursor, collection_id, person_id, new)
    photos.keep(cursor, collection_id, person_id, [face.face_id for face in enrolled], new)
    templates.refresh(cursor, collection_id, person_id, {face.model_id for face in new})
    cursor.execute("SELECT count(*) FROM faces WHERE person_id = %s", (person_id,))
    (count,) = cursor.fetchall()[0]
    stored = {face.index for face in enrolled}
    done = Enrolment(
        person_id,
        name,
        count,
        grow_revision(cursor, collection_id),
        enrolled=enrolled,
        refused=tuple(refused),
        warnings=tuple(remark for remark in warnings if remark.index in stored),
    )
    if idempotency:
        _remember(cursor, collection_id, idempotency, done)
    audit.append(cursor, "enrolled", person_id=person_id, collection=collection_id, faces=len(enrolled))
    return done


def earlier_answer(cursor: Cursor, collection: str, idempotency: Idempotency) -> Enrolment | None:
    """What the same request with the same key was answered in the last 24 hours, if it was.

    Raises:
        Conflict: the key came with another request.
    """
    cursor.execute(
        "SELECT request_digest, response FROM idempotency_keys AS used"
        " JOIN collections AS collection ON collection.id = used.collection_id"
        " WHERE collection.name_key = %s AND key_sha256 = %s AND used.created_at > now() - interval '24 hours'",
        (comparable(collection), idempotency.key_sha256),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    if bytes(row[0]) != idempotency.digest:
        raise Conflict("This Idempotency-Key was used for another request; use a new key for each request.")
    return Enrolment.from_json(row[1])


def valid_id(person_id: str) -> str:
    """The person's id in its usual spelling.

    Raises:
        PersonNotFound: nobody can have such an id.
    """
    try:
        return str(uuid.UUID(person_id))
    except ValueError as error:
        raise PersonNotFound("There is no such person in this collection.") from error


def _find(cursor: Cursor, collection_id: int, who: Who) -> Known | None:
    if who.person_id is not None:
        cursor.execute(
            "SELECT id, name, external_id FROM people WHERE collection_id = %s AND id = %s",
            (collection_id, valid_id(who.person_id)),
        )
    else:
        cursor.execute(
            "SELECT id, name, external_id FROM people WHERE collection_id = %s AND name_key = %s",
            (collection_id, comparable(who.name or "")),
        )
    row = cursor.fetchone()
    if row is None and who.person_id is not None:
        raise PersonNotFound("There is no such person in this collection.")
    return Known(*row) if row else None


def _check_external_id(cursor: Cursor, collection_id: int, person: Known | None, who: Who) -> None:
    """Two external ids are two people, whatever their names: never mix their faces."""
    if who.external_id is None:
        return
    external_id = tidy(who.external_id, "external_id")
    if person and person.external_id not in (None, external_id):
        raise Conflict("This person has another external_id; change it first, or enrol under another name.")
    cursor.execute("SELECT id FROM people WHERE collection_id = %s AND external_id = %s", (collection_id, external_id))
    owner = cursor.fetchone()
    if owner and (person is None or owner[0] != person.id):
        raise Conflict("Another person has this external_id; enrol by that person's id or name.")


def _without_duplicates(
    cursor: Cursor, person: Known | None, faces: Sequence[NewFace]
) -> tuple[list[NewFace], list[Remark]]:
    """The faces whose photos are new to the person, and refusals for the others."""
    stored: set[bytes] = set()
    if person:
        photos = [face.photo_sha256 for face in faces]
        cursor.execute(
            "SELECT photo_sha256 FROM faces WHERE person_id = %s AND photo_sha256 = ANY(%s)", (person.id, photos)
        )
        stored = {bytes(photo) for (photo,) in cursor.fetchall()}
    new, duplicates = [], []
    for face in faces:
        if face.photo_sha256 in stored:
            detail = f"Photo {face.index} is enrolled for this person already; send another one."
            duplicates.append(Remark(face.index, DuplicatePhoto.code, detail))
        else:
            new.append(face)
            stored.add(face.photo_sha256)
    return new, duplicates


def _write_person(cursor: Cursor, collection_id: int, person: Known | None, who: Who) -> tuple[str, str]:
    external_id = None if who.external_id is None else tidy(who.external_id, "external_id")
    with plain_metadata():
        metadata = None if who.metadata is None else as_json(who.metadata)
        if person is None:
            person = Known(str(uuid.uuid4()), tidy(who.name or ""), external_id)
            cursor.execute(
                "INSERT INTO people (id, collection_id, name, name_key, external_id, metadata)"
                " VALUES (%s, %s, %s, %s, %s, coalesce(%s::jsonb, '{}'))",
                (person.id, collection_id, person.name, comparable(person.name), external_id, metadata),
            )
        elif external_id is not None or metadata is not None:
            cursor.execute(
                "UPDATE people SET external_id = coalesce(%s, external_id),"
                " metadata = coalesce(%s::jsonb, metadata) WHERE id = %s",
                (external_id, metadata, person.id),
            )
    return person.id, person.name


def as_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as it is sent to the database; inside of `plain_metadata`."""
    return json.dumps(dict(metadata), allow_nan=False)


@contextlib.contextmanager
def plain_metadata() -> Iterator[None]:
    """Where metadata is written that may be none.

    Raises:
        InvalidRequest
    """
    try:
        yield
    except (TypeError, ValueError, RecursionError, psycopg2.DataError) as error:
        raise InvalidRequest("The metadata must be a JSON object of text, numbers, lists and objects.") from error


def _write_faces(
    cursor: Cursor, collection_id: int, person_id: str, faces: Sequence[NewFace]
) -> tuple[EnrolledFace, ...]:
    enrolled = tuple(EnrolledFace(face.index, str(uuid.uuid4()), face.box, face.quality) for face in faces)
    if encrypted := sealing.is_encrypted(cursor, collection_id):
        sealing.require_room(cursor, collection_id, len(faces))
    rows = [
        (
            done.face_id, person_id, collection_id,
            *sealing.stored(cursor, sealing.face_place(done.face_id), face.embedding, encrypted), face.model_id,
            face.box.left, face.box.top, face.box.right, face.box.bottom,
            float(face.quality.score), list(face.quality.issues), face.photo_sha256,
        )
        for done, face in zip(enrolled, faces, strict=True)
    ]  # fmt: skip
    execute_values(
        cursor,
        "INSERT INTO faces (id, person_id, collection_id, embedding, sealed, model_id, box_left, box_top, box_right,"
        " box_bottom, quality_score, quality_issues, photo_sha256) VALUES %s",
        rows,
        template="(%s::uuid, %s::uuid, %s, %s::vector, %s::bytea, %s, %s, %s, %s, %s, %s, %s::text[], %s)",
        page_size=len(rows),
    )
    return enrolled


def _remember(cursor: Cursor, collection_id: int, idempotency: Idempotency, done: Enrolment) -> None:
    cursor.execute(
        "DELETE FROM idempotency_keys WHERE collection_id = %s AND created_at <= now() - interval '24 hours'",
        (collection_id,),
    )
    cursor.execute(
        "INSERT INTO idempotency_keys (collection_id, key_sha256, request_digest, person_id, response)"
        " VALUES (%s, %s, %s, %s, %s)",
        (collection_id, idempotency.key_sha256, idempotency.digest, done.person_id, done.as_json()),
    )
