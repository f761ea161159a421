"""Who comes into a collection from elsewhere, compared with who is there already."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC

from psycopg2.extensions import cursor as Cursor

from recognizer.errors import FileRefused
from recognizer.faces import Embedding, space_of
from recognizer.gallery.arriving_photos import Kept, Wanted
from recognizer.gallery.rejections import MAX_OF_ONE_PERSON
from recognizer.gallery.transfer import FaceRecord, Incoming, PersonRecord, RejectionRecord, VectorRecord

# by id, by name, by external id: each finds its rows in an index of its own
KNOWN = """
    SELECT id, collection_id, name_key, external_id, metadata = '{}' FROM people WHERE id = ANY (%(ids)s::uuid[])
    UNION
    SELECT id, collection_id, name_key, external_id, metadata = '{}' FROM people
    WHERE collection_id = %(collection_id)s AND name_key = ANY (%(names)s)
    UNION
    SELECT id, collection_id, name_key, external_id, metadata = '{}' FROM people
    WHERE collection_id = %(collection_id)s AND external_id = ANY (%(external_ids)s)
"""

PHOTOS = "SELECT person_id, encode(photo_sha256, 'hex') FROM faces WHERE person_id = ANY (%s::uuid[])"

REJECTIONS = """
    SELECT person_id, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US ') || model_id
    FROM rejections WHERE person_id = ANY (%s::uuid[])
"""

USED_FACES = "SELECT id FROM faces WHERE id = ANY (%s::uuid[])"
USED_REJECTIONS = "SELECT id FROM rejections WHERE id = ANY (%s::uuid[])"


@dataclass(slots=True)
class Tally:
    """What an import did, or would do."""

    people: int = 0
    people_there: int = 0
    """Who were in the collection already, by id or by name."""
    people_completed: int = 0
    """Of these, to whom an external_id or metadata came."""
    faces: int = 0
    faces_there: int = 0
    """Of photos that the person had already."""
    rejections: int = 0
    rejections_there: int = 0
    photos: int = 0
    photo_bytes: int = 0
    """Theirs, with the chips."""
    photos_there: int = 0
    photos_left_out: int = 0
    """The collection keeps none."""
    new_ids: int = 0
    """People, faces and rejections whose ids are used elsewhere in this database, and who got new ones."""
    same_people: int = 0
    """Of `people_there`, those with the very id of the file."""
    templates: Counter[str] = field(default_factory=Counter)
    """New people who have faces, by space."""
    templates_made: int = 0
    """Templates that are new or made anew."""
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """(place, name as it is compared) of people who are called otherwise here than in the file."""

    def add(self, other: Tally) -> None:
        """Count what another batch did."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def changes(self) -> int:
        """How many rows are new or changed."""
        return self.people + self.people_completed + self.faces + self.rejections + self.photos


@dataclass(frozen=True, slots=True)
class Arrival:
    """One person of a batch: under which id, whether new, and what of theirs is new, under which ids."""

    incoming: Incoming
    id: str
    is_new: bool
    is_completed: bool
    faces: list[tuple[str, FaceRecord, Embedding]]
    rejections: list[tuple[str, RejectionRecord, Embedding]]
    photos: list[Kept]
    """Of faces that are new, or there without one."""


class _Known:
    """Whoever might be meant by somebody of a batch."""

    def __init__(self, cursor: Cursor, collection_id: int | None, batch: Sequence[Incoming]) -> None:
        asked = {
            "collection_id": collection_id,
            "ids": [str(each.person.id) for each in batch],
            "names": [each.person.name_key for each in batch],
            "external_ids": [each.person.external_id for each in batch if each.person.external_id],
        }
        cursor.execute(KNOWN, asked)
        self.names: dict[str, str] = {}
        self.external_ids: dict[str, str | None] = {}
        self.without_metadata: set[str] = set()
        self.by_name: dict[str, str] = {}
        self.by_external_id: dict[str, str] = {}
        self.elsewhere: set[str] = set()
        for person_id, where, name_key, external_id, is_bare in cursor.fetchall():
            if where != collection_id:
                self.elsewhere.add(person_id)
                continue
            self.names[person_id], self.external_ids[person_id] = name_key, external_id
            self.by_name[name_key] = person_id
            if is_bare:
                self.without_metadata.add(person_id)
            if external_id is not None:
                self.by_external_id[external_id] = person_id

    def find(self, incoming: Incoming) -> str | None:
        """The id of the person who is meant: the one of that id, else the one of that name."""
        person = incoming.person
        known = str(person.id) if str(person.id) in self.names else self.by_name.get(person.name_key)
        if person.external_id is None:
            return known
        if self.by_external_id.get(person.external_id, known) != known:
            raise FileRefused(
                f"{incoming.place}: another person of the collection has this person's external_id; "
                "change it there or in the file, or give both one name."
            )
        if known is not None and self.external_ids[known] not in (None, person.external_id):
            raise FileRefused(
                f"{incoming.place}: the collection has a person of this name with another external_id, so they are "
                "two; change a name or an external_id, there or in the file."
            )
        return known

    def is_completed_by(self, person_id: str, person: PersonRecord) -> bool:
        """Whether the file knows an external_id or metadata of a person who has none."""
        external_id = person.external_id is not None and self.external_ids[person_id] is None
        return external_id or (bool(person.metadata) and person_id in self.without_metadata)


def compare(cursor: Cursor, collection_id: int | None, batch: Sequence[Incoming]) -> tuple[list[Arrival], Tally]:
    """What bringing a batch in would do; `collection_id` is None for a collection that is still to be made.

    Raises:
        FileRefused: somebody's external_id is in the way, or a person would have too many rejections.
    """
    known = _Known(cursor, collection_id, batch)
    found = [known.find(each) for each in batch]
    there = [person_id for person_id in found if person_id is not None]
    photos, rejections = _held(cursor, PHOTOS, there), _held(cursor, REJECTIONS, there)
    wanted = Wanted(cursor, collection_id, batch, there)
    used_faces = _used(cursor, USED_FACES, [face for each in batch for face in each.faces])
    used_rejections = _used(cursor, USED_REJECTIONS, [said for each in batch for said in each.rejections])
    arrivals, tally = [], Tally()
    for incoming, person_id in zip(batch, found, strict=True):
        person = incoming.person
        is_taken = str(person.id) in known.elsewhere
        faces = _new_faces(incoming, photos[person_id], used_faces)
        with_photo = [(own_id, incoming.photos[face.id]) for own_id, face, _ in faces if face.id in incoming.photos]
        arrival = Arrival(
            incoming,
            person_id or (str(uuid.uuid4()) if is_taken else str(person.id)),
            is_new=person_id is None,
            is_completed=person_id is not None and known.is_completed_by(person_id, person),
            faces=faces,
            rejections=_new_rejections(incoming, rejections[person_id], used_rejections),
            photos=wanted.of(incoming, person_id, with_photo),
        )
        arrivals.append(arrival)
        _count(tally, arrival, photos_are_kept=wanted.are_kept)
        if person_id == str(person.id) and known.names[person_id] != person.name_key:
            tally.renamed.append((incoming.place, known.names[person_id]))
    return arrivals, tally


def _held(cursor: Cursor, statement: str, people: list[str]) -> defaultdict[str | None, set[str]]:
    """What people have, as a word each."""
    held: defaultdict[str | None, set[str]] = defaultdict(set)
    if people:
        cursor.execute(statement, (people,))
        for person_id, word in cursor.fetchall():
            held[person_id].add(word)
    return held


def _used(cursor: Cursor, statement: str, records: Sequence[VectorRecord]) -> set[str]:
    """Ids that are not free any more."""
    if not records:
        return set()
    cursor.execute(statement, ([str(record.id) for record in records],))
    return {record_id for (record_id,) in cursor.fetchall()}


def _free(record: VectorRecord, used: set[str]) -> str:
    return str(uuid.uuid4() if str(record.id) in used else record.id)


def _new_faces(incoming: Incoming, held: set[str], used: set[str]) -> list[tuple[str, FaceRecord, Embedding]]:
    pairs = zip(incoming.faces, incoming.embeddings, strict=True)
    return [(_free(face, used), face, embedding) for face, embedding in pairs if face.photo_sha256 not in held]


def _new_rejections(incoming: Incoming, held: set[str], used: set[str]) -> list[tuple[str, RejectionRecord, Embedding]]:
    pairs = zip(incoming.rejections, incoming.rejected, strict=True)
    new = [(_free(said, used), said, embedding) for said, embedding in pairs if _word(said) not in held]
    if new and len(held) + len(new) > MAX_OF_ONE_PERSON:
        raise FileRefused(
            f"{incoming.place}: this person would have more than {MAX_OF_ONE_PERSON:,} rejections, the most there may "
            "be; undo old ones first, or take some out of the file."
        )
    return new


def _word(said: RejectionRecord) -> str:
    return f"{said.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} {said.model_id}"


def _count(tally: Tally, arrival: Arrival, *, photos_are_kept: bool) -> None:
    incoming = arrival.incoming
    tally.people += arrival.is_new
    tally.people_there += not arrival.is_new
    tally.people_completed += arrival.is_completed
    tally.same_people += not arrival.is_new and arrival.id == str(incoming.person.id)
    tally.faces += len(arrival.faces)
    tally.faces_there += len(incoming.faces) - len(arrival.faces)
    tally.rejections += len(arrival.rejections)
    tally.rejections_there += len(incoming.rejections) - len(arrival.rejections)
    tally.photos += len(arrival.photos)
    tally.photo_bytes += sum(each.record.photo.bytes + each.record.chip.bytes for _, each in arrival.photos)
    if photos_are_kept:
        tally.photos_there += len(incoming.photos) - len(arrival.photos)
    else:
        tally.photos_left_out += len(incoming.photos)
    tally.templates_made += len({space_of(face.model_id) for _, face, _ in arrival.faces})
    if arrival.is_new:
        tally.new_ids += arrival.id != str(incoming.person.id)
        tally.templates.update({space_of(face.model_id) for face in incoming.faces})
    tally.new_ids += sum(own_id != str(record.id) for own_id, record, _ in (*arrival.faces, *arrival.rejections))
