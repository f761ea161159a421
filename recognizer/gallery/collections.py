"""Collections: the people who are compared with each other, and the rule by which they are recognised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Identifier

from recognizer.errors import CollectionNotFound, Conflict, GalleryBehind, InvalidRequest
from recognizer.gallery import audit, photos, switching
from recognizer.gallery.connection import keyring_of
from recognizer.gallery.names import comparable, tidy
from recognizer.gallery.turns import grow_revision, lock_collection
from recognizer.gallery.versions import Condition, require_version, version_of

CHANGEABLE = {
    "target_fpir": "a number above 0 and below 1, or null for the default",
    "threshold": "a number above 0 and below 2, or null for the default",
    "keep_photos": "true or false",
    "retention_days": "a whole number of days from 1 to 36,500, or null for ever",
    "encrypt_embeddings": "true or false",
}
"""What can be set for a collection, and to what."""

ENCRYPTED = ("keep_photos", "encrypt_embeddings")
"""What is on or off, off unless somebody says so, and needs a key when it is on."""

BELOW = {"target_fpir": 1.0, "threshold": 2.0}
MAX_RETENTION_DAYS = 36_500

MEMBERS = "name, threshold, target_fpir, revision, keep_photos, retention_days, encrypt_embeddings"
"""The columns of a `Collection`."""

Value = float | bool | None
"""Of what can be set; None: the default."""

MAX_NAME_LENGTH = 100

DEFAULT = "default"
"""The collection that is always there."""

ERASE = {
    "idempotency_keys": "DELETE FROM idempotency_keys WHERE collection_id = %s",
    "rejections": "DELETE FROM rejections USING people WHERE people.id = person_id AND people.collection_id = %s",
    "templates": "DELETE FROM templates USING spaces WHERE spaces.id = space_id AND spaces.collection_id = %s",
    "spaces": "DELETE FROM spaces WHERE collection_id = %s",
    "photos": photos.FORGET,
    "faces": "DELETE FROM faces WHERE collection_id = %s",
    "people": "DELETE FROM people WHERE collection_id = %s",
}
"""What deletes all that a collection holds, by table; whatever comes to hold something of collections is added here.
What refers to a template (cohorts) goes with it."""

COUNT_LEFT = """
    SELECT (SELECT count(*) FROM idempotency_keys WHERE collection_id = %(id)s)
         + (SELECT count(*) FROM rejections WHERE collection_id = %(id)s)
         + (SELECT count(*) FROM cohorts WHERE space_id IN (SELECT id FROM spaces WHERE collection_id = %(id)s))
         + (SELECT count(*) FROM templates WHERE collection_id = %(id)s)
         + (SELECT count(*) FROM spaces WHERE collection_id = %(id)s)
         + (SELECT count(*) FROM photos WHERE collection_id = %(id)s)
         + (SELECT count(*) FROM faces WHERE collection_id = %(id)s)
         + (SELECT count(*) FROM people WHERE collection_id = %(id)s)
"""

REVOKE_KEYS = "UPDATE api_keys SET revoked_at = now() WHERE collection_id = %s AND revoked_at IS NULL RETURNING id"


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection, what is set for it, and how often its people have changed.

    `threshold` and `target_fpir` are None where they are as in the settings. `keep_photos` says whether the photos of
    enrolments are kept, `retention_days` after how many days without a new photo a person is erased (None: never),
    `encrypt_embeddings` whether embeddings are stored encrypted only.
    """

    name: str
    threshold: float | None
    target_fpir: float | None
    revision: int
    keep_photos: bool = False
    retention_days: int | None = None
    encrypt_embeddings: bool = False


@dataclass(frozen=True, slots=True)
class CollectionOverview:
    """A collection and how much it holds."""

    collection: Collection
    people: int
    faces: int
    photos: int
    created_at: datetime

    @property
    def version(self) -> str:
        """What tells this state from others, and before the dot (`settings_of`) what is set from what else may be."""
        settings = version_of(replace(self.collection, revision=0), self.created_at)
        return f"{settings}.{version_of(self)}"


@dataclass(frozen=True, slots=True)
class CollectionErasure:
    """The receipt of a deletion: how many rows went, per table, how many are left (0), how many keys ended with it.

    `revision` is that of a collection that was only emptied.
    """

    name: str
    deleted: Mapping[str, int]
    left: int
    revoked_keys: int
    revision: int | None


def find(cursor: Cursor, name: str, min_revision: int = 0) -> Collection:
    """Look a collection up, at `min_revision` or later; raises CollectionNotFound and GalleryBehind."""
    return find_with_id(cursor, name, min_revision)[1]


def find_with_id(cursor: Cursor, name: str, min_revision: int) -> tuple[int, Collection]:
    """The same with the collection's internal id. Whatever is read after it is of that revision or a later one."""
    cursor.execute(f"SELECT id, {MEMBERS} FROM collections WHERE name_key = %s", (comparable(name),))  # noqa: S608
    row = cursor.fetchone()
    if row is None:
        require_revision(0, min_revision)  # it may be one that has not come here yet
        raise CollectionNotFound(f"There is no collection `{name[:100]}`.")
    collection_id, *members = row
    found = Collection(*members)
    require_revision(found.revision, min_revision)
    return collection_id, found


def require_revision(revision: int, min_revision: int) -> None:
    """Answer nobody from an older state than they have seen: the database may be a replica that lags behind.

    Raises:
        GalleryBehind
    """
    if revision < min_revision:
        raise GalleryBehind(f"The gallery is at revision {revision}, not yet at {min_revision}; try again.")


def require_reached(cursor: Cursor, only: str | None, min_revision: int) -> None:
    """The same for all collections, or just the one called `only`; for what may be in any of them.

    Raises:
        GalleryBehind
    """
    if min_revision:
        cursor.execute(
            "SELECT coalesce(min(revision), 0) FROM collections WHERE coalesce(%s, name_key) = name_key",
            (None if only is None else comparable(only),),
        )
        require_revision(cursor.fetchall()[0][0], min_revision)


def overviews(cursor: Cursor, only: str | None) -> list[CollectionOverview]:
    """All collections, or just the one called `only`, by name."""
    cursor.execute(
        f"""
        SELECT {MEMBERS},
               (SELECT count(*) FROM people WHERE collection_id = collection.id),
               (SELECT count(*) FROM faces WHERE collection_id = collection.id),
               (SELECT count(*) FROM photos WHERE collection_id = collection.id),
               created_at
        FROM collections AS collection
        WHERE coalesce(%s, name_key) = name_key
        ORDER BY name_key
        """,  # noqa: S608
        (None if only is None else comparable(only),),
    )
    return [CollectionOverview(Collection(*row[:7]), *row[7:]) for row in cursor.fetchall()]


def overview(cursor: Cursor, name: str, min_revision: int = 0) -> CollectionOverview:
    """The collection of that name, at `min_revision` or later; raises CollectionNotFound and GalleryBehind."""
    find(cursor, name, min_revision)
    found = overviews(cursor, name)
    if not found:
        raise CollectionNotFound(f"There is no collection `{name[:100]}`.")
    return found[0]


def create(cursor: Cursor, name: str, values: Mapping[str, Value]) -> CollectionOverview:
    """Make a collection; `Gallery.create_collection` says what it promises and raises."""
    kept = tidy(name)
    if len(kept) > MAX_NAME_LENGTH or "/" in kept or set(kept) == {"."}:
        raise InvalidRequest(
            f"A collection's name has 1 to {MAX_NAME_LENGTH} characters, none of them /, and not only dots."
        )
    _check(values)
    _require_key(cursor, values)
    unless_set = {**dict.fromkeys(CHANGEABLE), **dict.fromkeys(ENCRYPTED, False)}
    cursor.execute(
        "INSERT INTO collections (name, name_key, target_fpir, threshold, keep_photos, retention_days,"
        " encrypt_embeddings)"
        " VALUES (%(name)s, %(key)s, %(target_fpir)s, %(threshold)s, %(keep_photos)s, %(retention_days)s,"
        " %(encrypt_embeddings)s)"
        " ON CONFLICT (name_key) DO NOTHING",
        {**unless_set, **values, "name": kept, "key": comparable(kept)},
    )
    if not cursor.rowcount:
        raise Conflict("There is a collection of this name already; choose another name.")
    made = overview(cursor, kept)
    audit.append(cursor, "collection_created", collection=kept, values={**values})
    return made


def change(cursor: Cursor, name: str, values: Mapping[str, Value], only_if: Condition | None) -> CollectionOverview:
    """Set what `values` names, None for what the settings say; `Gallery.change_collection` says what it raises.

    A collection that keeps no photos any more has none either. The revision stays: it counts changes of the people.
    """
    if not values:
        raise InvalidRequest(f"There is nothing to change; give one or more of {', '.join(CHANGEABLE)}.")
    _check(values)
    _require_key(cursor, values)
    collection_id = lock_collection(cursor, name)
    require_version(overview(cursor, name).version, only_if)
    if "encrypt_embeddings" in values:
        switching.switch(cursor, collection_id, encrypt=bool(values["encrypt_embeddings"]))
    columns = SQL(", ").join(SQL("{} = %s").format(Identifier(member)) for member in values)
    cursor.execute(
        SQL("UPDATE collections SET {} WHERE name_key = %s").format(columns), (*values.values(), comparable(name))
    )
    if values.get("keep_photos") is False:
        cursor.execute(photos.FORGET, (collection_id,))
    changed = overview(cursor, name)
    audit.append(cursor, "collection_changed", collection=name, values={**values})
    return changed


def erase(cursor: Cursor, name: str, only_if: Condition | None) -> CollectionErasure:
    """Delete a collection with all in it; `Gallery.delete_collection` says what it promises and raises."""
    collection_id = lock_collection(cursor, name, to_delete=True)
    found = overview(cursor, name)
    require_version(found.version, only_if)
    deleted = {}
    for table, statement in ERASE.items():
        cursor.execute(statement, (collection_id,))
        deleted[table] = cursor.rowcount
    revoked: list[str] = []
    revision = None
    if comparable(name) == DEFAULT:
        revision = grow_revision(cursor, collection_id)
        deleted["collections"] = 0
    else:
        cursor.execute(REVOKE_KEYS, (collection_id,))
        revoked = [key_id for (key_id,) in cursor.fetchall()]
        cursor.execute("DELETE FROM collections WHERE id = %s", (collection_id,))
        deleted["collections"] = cursor.rowcount
    cursor.execute(COUNT_LEFT, {"id": collection_id})
    (left,) = cursor.fetchall()[0]
    name = found.collection.name
    audit.append(cursor, "collection_erased", collection=name, deleted=deleted, left=left, revoked_keys=revoked)
    return CollectionErasure(name, deleted, left, len(revoked), revision)


def _check(values: Mapping[str, Value]) -> None:
    for member, value in values.items():
        if member not in CHANGEABLE:
            raise InvalidRequest(f"A collection has no `{member[:50]}` to change; it has {', '.join(CHANGEABLE)}.")
        if not _may_be(member, value):
            raise InvalidRequest(f"`{member}` must be {CHANGEABLE[member]}.")


def _require_key(cursor: Cursor, values: Mapping[str, Value]) -> None:
    if any(values.get(member) for member in ENCRYPTED):
        keyring_of(cursor).require()


def _may_be(member: str, value: Value) -> bool:
    if member in ENCRYPTED:
        return isinstance(value, bool)
    if value is None:
        return True
    if isinstance(value, bool) or not math.isfinite(value):
        return False
    if member == "retention_days":
        return isinstance(value, int) and 0 < value <= MAX_RETENTION_DAYS
    return 0 < value < BELOW[member]
