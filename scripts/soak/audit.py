"""The audit: what the ledger says against what the service has, person by person and all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from soak.forms import as_form
from soak.guests import faces_of
from soak.ledger import ENROLLED, GONE, REFUSED, Entry
from soak.talk import Answer

SAME_PHOTO_DISTANCE = 1e-3
LOST, STILL_THERE, HALF, DOUBLED, STRANGE = "lost", "still there", "half there", "doubled", "unknown to the ledger"

Ask = Callable[[str, str, bytes, str], Answer]
"""Sends a request (method, path, body, its kind) until it is answered with something else than "not now"."""


class Finding(NamedTuple):
    """Something that the service has otherwise than it acknowledged."""

    kind: str
    name: str
    said: str


def faces_differ(entry: Entry, answer: Answer) -> Finding | None:
    """Whether an enrolled person is there with the acknowledged name and faces, by GET /v1/people/{id}."""
    if answer.status != 200:
        return Finding(LOST, entry.name, f"acknowledged as {entry.person_id}, now {answer}")
    person = answer.json()
    faces = _face_ids(person)
    if missing := entry.face_ids - faces:
        return Finding(LOST, entry.name, f"acknowledged faces are missing: {', '.join(sorted(missing))}")
    if more := faces - entry.face_ids:
        return Finding(DOUBLED, entry.name, f"faces that were never acknowledged: {', '.join(sorted(more))}")
    if person.get("name") != entry.name:
        return Finding(LOST, entry.name, f"has another name now: {person.get('name')}")
    return None


def not_recognised(entry: Entry, answer: Answer) -> Finding | None:
    """Whether the photo that was enrolled finds its own face, at distance 0, before all others."""
    faces = faces_of(answer) or []
    for face in faces:
        best = _best(face)
        is_ours = best.get("id") == entry.person_id and face.get("matched_face_id") in entry.face_ids
        if is_ours and abs(face.get("distance", 1.0)) < SAME_PHOTO_DISTANCE:
            return None
    seen = [f"{_best(face).get('name')} at {face.get('distance')}" for face in faces]
    return Finding(LOST, entry.name, f"its own photo finds {', '.join(seen) or f'nobody ({answer})'}")


def _best(face: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first candidate, whatever was decided: with twins enrolled it may rightly be `ambiguous`."""
    candidates = face.get("candidates") or []
    return dict(candidates[0].get("person") or {}) if candidates else {}


def audit(entries: Iterable[Entry], others: Iterable[str], ask: Ask) -> list[Finding]:
    """Check every entry, and that there is nobody else but the people with the ids `others`."""
    entries = list(entries)
    people = list_people(ask)
    findings = _look_over(people, entries, set(others))
    for entry in entries:
        if entry.state == ENROLLED:
            finding = faces_differ(entry, ask("GET", f"/v1/people/{entry.person_id}", b"", ""))
            finding = finding or not_recognised(entry, ask("POST", "/recognize", *as_form(entry.photo)))
            findings += [finding] if finding else []
    return findings


def list_people(ask: Ask) -> list[dict[str, Any]]:
    """All people of the gallery, page by page."""
    people: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = ask("GET", f"/v1/people?limit=100{'&cursor=' + quote(cursor) if cursor else ''}", b"", "").json()
        people += page.get("people", [])
        cursor = page.get("next_cursor")
    return people


def _look_over(people: list[dict[str, Any]], entries: list[Entry], others: set[str]) -> list[Finding]:
    """What the list of all people shows: those who should be gone, halves, doubles, strangers."""
    gone = {entry.person_id for entry in entries if entry.state == GONE}
    open_names = {entry.name for entry in entries if entry.state not in (ENROLLED, GONE, REFUSED)}
    enrolled = {entry.person_id for entry in entries if entry.state == ENROLLED}
    names = Counter(str(person["name"]).casefold() for person in people)
    doubled = [name for name, number in names.items() if number > 1]
    findings = [Finding(DOUBLED, name, f"{names[name]} people have this name") for name in doubled]
    for person in people:
        person_id, name = str(person["id"]), str(person["name"])
        if not person.get("faces"):
            findings.append(Finding(HALF, name, f"{person_id} has no face"))
        if person_id in gone:
            findings.append(Finding(STILL_THERE, name, f"{person_id} was deleted, which was acknowledged"))
        elif person_id not in enrolled | others and name not in open_names:
            findings.append(Finding(STRANGE, name, f"{person_id} is nobody whom we have enrolled"))
    return findings


def _face_ids(person: Mapping[str, Any]) -> frozenset[str]:
    faces = person.get("faces")
    return frozenset(str(face["id"]) for face in faces) if isinstance(faces, list) else frozenset()
