"""Our people in the service's gallery, and what is right and wrong with an answer about them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from soak.forms import as_form
from soak.photos import Photo, Rest
from soak.problems import Wrong
from soak.talk import Answer, Client, NoAnswer

SAME_DISTANCE = 1e-3


class Guests:
    """People whom we enrol under a name that nobody else has, and erase again."""

    def __init__(self, client: Client) -> None:
        self.name = f"soak-{secrets.token_hex(4)}"
        self.ids: dict[str, str] = {}
        self.refused: list[str] = []
        self._client = client

    def enrol(self, photos: Sequence[Photo]) -> None:
        """Enrol photos one by one; those that are refused are listed.

        Raises:
            Wrong: none could be enrolled, or the service failed.
        """
        numbers = {person: number for number, person in enumerate(dict.fromkeys(photo.person for photo in photos), 1)}
        for photo in photos:
            name = f"{self.name}-{numbers[photo.person]}"
            answer = self._client.ask("POST", "/enroll", *as_form(photo, name=name, face="largest"))
            if answer.status == 201:
                try:
                    self.ids[photo.person] = str(answer.json()["person"]["id"])
                except (KeyError, TypeError):
                    raise Wrong(f"the answer to an enrolment makes no sense ({answer}).") from None
            elif 400 <= answer.status < 500:
                self.refused.append(f"{photo.label} ({answer.json().get('detail', answer.status)})")
            else:
                raise Wrong(f"enrolling {photo.label} failed with {answer}")
        if not self.ids:
            raise Wrong(f"none of the {len(photos)} photos could be enrolled; the first: {self.refused[0]}.")

    def recognise_at_rest(self, photos: Sequence[Photo]) -> list[Photo]:
        """The photos with what the service says of them: nothing where it does not know the person.

        Raises:
            Wrong: it knows fewer than half, or fails.
        """
        seen = []
        for photo in photos:
            answer = self._client.ask("POST", "/recognize", *as_form(photo))
            if answer.status >= 500:
                raise Wrong(f"recognising {photo.label} ({photo.form}) failed at rest with {answer}")
            expected = self.ids.get(photo.person)
            seen.append(replace(photo, rest=rest_of(answer, expected) if expected else None))
        known = sum(photo.rest is not None for photo in seen)
        if 2 * known < len(photos):
            raise Wrong(
                f"at rest only {known} of {len(photos)} photos are recognised: these photos are unsuitable, "
                "the same people are enrolled under other names already, or recognition is broken."
            )
        return seen

    def erase(self, seconds: float) -> str | None:
        """Erase everybody whose name is ours, also those whose enrolment we saw no answer to; what was wrong."""
        deadline = time.monotonic() + seconds
        said = ""
        while time.monotonic() < deadline:
            try:
                answer = self._client.ask("GET", f"/v1/people?limit=100&query={quote(self.name)}", patience=5)
                people = answer.json().get("people", [])
                ours = [person["id"] for person in people if person["name"].startswith(self.name)]
                if answer.status == 200 and not ours:
                    return None
                receipts = [self._client.ask("DELETE", f"/v1/people/{person}", patience=5) for person in ours]
                said = str(next((r for r in [answer, *receipts] if r.status != 200), "they are still there"))
            except (NoAnswer, Wrong, KeyError, TypeError) as error:
                said = str(error)
            time.sleep(0.5)
        return f"the people named {self.name}-* could not be erased and are still in the gallery ({said})."


def faces_of(answer: Answer) -> list[dict[str, Any]] | None:
    faces = answer.json().get("faces")
    return faces if isinstance(faces, list) and all(isinstance(face, dict) for face in faces) else None


def person_id_of(face: Mapping[str, Any]) -> str | None:
    person = face.get("person")
    return str(person.get("id")) if isinstance(person, dict) else None


def rest_of(answer: Answer, expected: str) -> Rest | None:
    faces = faces_of(answer) or []
    face = next((face for face in faces if person_id_of(face) == expected), None)
    if face is None or not isinstance(face.get("distance"), int | float):
        return None
    people = frozenset(person for person in map(person_id_of, faces) if person)
    confidence = face.get("confidence")
    return Rest(
        expected,
        float(face["distance"]),
        people,
        len(faces),
        confidence=float(confidence) if isinstance(confidence, int | float) else 1.0,
    )


def fault_of(photo: Photo, answer: Answer) -> str | None:
    """What is wrong with the answer to a photo, None when it is the answer at rest."""
    assert photo.rest
    if answer.status != 200:
        return f"status {answer.status}"
    faces = faces_of(answer)
    if faces is None:
        return "answer makes no sense"
    now = rest_of(answer, photo.rest.person_id)
    if now is None:
        strangers = {person for person in map(person_id_of, faces) if person} - photo.rest.people
        return "wrong person" if strangers else "person not recognised"
    if now.faces != photo.rest.faces:
        return "other number of faces than at rest"
    return "other distance than at rest" if abs(now.distance - photo.rest.distance) > SAME_DISTANCE else None


def difference(photo: Photo, answer: Answer) -> str:
    """What was expected and what came, for the report."""
    faces = faces_of(answer)
    if answer.status != 200 or faces is None or photo.rest is None:
        return str(answer)
    now = "; ".join(map(_in_words, faces)) or "no face"
    return f"expected {photo.rest.person_id} at {photo.rest.distance} among {photo.rest.faces} faces, got {now}"


def _in_words(face: Mapping[str, Any]) -> str:
    candidates = face.get("candidates") or [{}]
    best = candidates[0].get("person") or {}
    decided = f"{face.get('decision', '')} {person_id_of(face)} at {face.get('distance')}".strip()
    more = f"confidence {face.get('confidence')}, margin {face.get('margin')}, best candidate {best.get('name')}"
    return f"{decided} ({more}, {' '.join(map(str, face.get('reasons', ())))})"
