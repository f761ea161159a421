"""The crew: clients that recognise, enrol, look, delete and send rubbish, each one request after the other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from soak.audit import Finding, faces_differ, not_recognised
from soak.forms import WAYS, as_form
from soak.guests import difference, faces_of, fault_of
from soak.ledger import ENROLLED, ENROLLING, LEAVING, Entry, Ledger
from soak.load import Tally
from soak.photos import Photo
from soak.places import SILENCE_SECONDS
from soak.talk import Answer, Client
from soak.witness import LOST, TAKEN, WRONG, Request, Witness

MIX = {"recognise": 50, "odd": 11, "huge": 2, "bad": 4, "enrol": 12, "delete": 10, "look": 8, "again": 3}
"""Shares of what is done; `again` repeats an acknowledged enrolment with its key."""

REFUSED = (400, 413, 415, 422)
POOR = ("no_face", "face_too_small", "low_quality")
TAKEN_FOR_OTHER = "face_belongs_to_other_person"
PAUSE_SECONDS = 0.2  # after a failure: nobody hammers at a door that is shut


@dataclass
class Supplies:
    """What there is to send; `odd` are images of which is only known that the answer is always the same one."""

    known: Sequence[Photo]
    huge: Sequence[Photo]
    odd: Sequence[Photo]
    bad: Sequence[tuple[bytes, str]]
    first: dict[str, tuple[int, int]] = field(default_factory=dict)


class Crew:
    """Threads that work until told to stop; `only` is the one thing they do."""

    def __init__(
        self, url: str, supplies: Supplies, witness: Witness, ledger: Ledger, threads: int, seed: int, only: str = ""
    ) -> None:
        self._supplies, self._witness, self._ledger = supplies, witness, ledger
        self._url, self._only = url, only
        self._stop = threading.Event()
        chances = [random.Random(seed * 1000 + n) for n in range(threads)]
        self._threads = [threading.Thread(target=self._work, args=(chance,), daemon=True) for chance in chances]
        for thread in self._threads:
            thread.start()

    def given_up(self) -> bool:
        """Whether nobody has answered for so long that going on is pointless; a fault may take some seconds."""
        tally = self._witness.tally
        return time.monotonic() - tally.last_answer > 4 * SILENCE_SECONDS and tally.unanswered >= len(self._threads)

    def stop(self, seconds: float) -> None:
        """Let the requests in flight finish within `seconds`."""
        self._stop.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, chance: random.Random) -> None:
        hand = Hand(Client(self._url, None), self._supplies, self._witness, self._ledger, chance)
        names, shares = list(MIX), list(MIX.values())
        try:
            while not self._stop.is_set():
                if not hand.do(self._only or chance.choices(names, shares)[0]):
                    self._stop.wait(PAUSE_SECONDS)
        except Exception as error:  # an answer that no check was made for: no client ends silently
            self._witness.tally.note(f"{WRONG}: no check can read an answer", None, "client", "", repr(error))
            raise
        finally:
            hand.client.close()


class Hand:
    """One client; `do()` says whether what it sent was answered."""

    def __init__(
        self, client: Client, supplies: Supplies, witness: Witness, ledger: Ledger, chance: random.Random
    ) -> None:
        self.client = client
        self._supplies, self._witness, self._ledger, self._chance = supplies, witness, ledger, chance

    def do(self, what: str) -> bool:
        """One thing; where there is nothing to do it with, a photo is recognised instead."""
        if what in ("enrol", "delete", "look", "again"):
            done = self._with_entry(what)
            if done is not None:
                return done
        if what == "odd" and self._supplies.odd:
            return self._send_odd(self._chance.choice(self._supplies.odd))
        if what == "bad":
            body, kind = self._chance.choice(self._supplies.bad)
            refused = Request("bad input", "POST", "/recognize", body, kind, expected=REFUSED, good=Tally.REFUSED)
            return self._witness.ask(self.client, refused) is not None
        photos = self._supplies.huge if what == "huge" and self._supplies.huge else self._supplies.known
        return self._recognise(self._chance.choice(photos))

    def _recognise(self, photo: Photo) -> bool:
        body, kind = self._chance.choice(WAYS)(photo)
        request = Request("recognise", "POST", "/recognize", body, kind, label=photo.form, good=Tally.RIGHT)

        def check(answer: Answer) -> tuple[str, str] | None:
            fault = fault_of(photo, answer)
            return (f"{WRONG}: {fault}", f"{photo.label}: {difference(photo, answer)}") if fault else None

        return self._witness.ask(self.client, request, check) is not None

    def _send_odd(self, photo: Photo) -> bool:
        """An image from elsewhere: any clear answer will do, but it has to be the same each time."""
        request = Request("odd image", "POST", "/recognize", *as_form(photo), label=photo.label)
        request = request._replace(expected=(200, *REFUSED), good=Tally.DONE)

        def check(answer: Answer) -> tuple[str, str] | None:
            now = (answer.status, len(faces_of(answer) or ()))
            before = self._supplies.first.setdefault(photo.label, now)
            said = f"{photo.label}: (status, faces) {now}, before {before}"
            return None if now == before else (f"{WRONG}: another answer to the same image", said)

        return self._witness.ask(self.client, request, check) is not None

    # -- what the ledger knows of --

    def _with_entry(self, what: str) -> bool | None:
        """Enrol, delete or look; what was not answered is sent again first. None: there is nobody to do it with."""
        entry = self._ledger.pick(self._chance, ENROLLING, LEAVING)
        if entry is None and what == "enrol":
            entry = self._ledger.begin(self._chance)
        elif entry is None:
            entry = self._ledger.pick(self._chance, ENROLLED)
        if entry is None:
            return None
        try:
            return self._go_on_with(entry, what)
        finally:
            self._ledger.let_go(entry)

    def _go_on_with(self, entry: Entry, what: str) -> bool:
        if entry.state == ENROLLING or what == "again":
            return self.enrol(entry) and (self._chance.random() < 0.5 or self.look(entry))
        if entry.state == LEAVING or what == "delete":
            return self.delete(entry)
        return self.look(entry)

    def enrol(self, entry: Entry) -> bool:
        """Send the enrolment, the same one as before when it has been sent before."""
        entry.attempts += 1
        body, kind = as_form(entry.photo, name=entry.name, face="largest")
        request = Request("enrol", "POST", "/enroll", body, kind, once=entry.key, expected=(201, 422))

        def check(answer: Answer) -> tuple[str, str] | None:
            if answer.status == 422:
                return self._refused(entry, answer)
            fault = self._ledger.enrolled(entry, answer.json())
            return (f"{WRONG}: {fault}", f"{entry.name}: {answer}") if fault else None

        return self._witness.ask(self.client, request, check) is not None

    def _refused(self, entry: Entry, answer: Answer) -> tuple[str, str] | None:
        """A new person may be taken for another one, rarely; the photo is sent again when others are there."""
        code, said = answer.json().get("code"), f"{entry.photo.person}: {answer}"
        proved = entry.photo.person in self._ledger.proved
        if proved and code == TAKEN_FOR_OTHER:
            return f"{TAKEN}: a new person for somebody else", said
        if not proved:
            self._ledger.refused(entry)
            if code in POOR:
                return None
        return f"{WRONG}: enrolment refused", said

    def delete(self, entry: Entry) -> bool:
        """Erase the person; that there is none is an answer when an earlier deletion was not answered."""
        again, entry.state = entry.state == LEAVING, LEAVING
        request = Request("delete", "DELETE", f"/v1/people/{entry.person_id}", expected=(200, 404))

        def check(answer: Answer) -> tuple[str, str] | None:
            if answer.status == 404 and not again:
                self._ledger.left(entry)
                return f"{LOST}: gone before it was deleted", f"{entry.name}: {answer}"
            if answer.status == 200 and answer.json().get("left") != 0:
                return f"{WRONG}: something is left of a deleted person", f"{entry.name}: {answer.body!r}"
            self._ledger.left(entry)
            return None

        if self._witness.ask(self.client, request, check) is None:
            return False
        return self._chance.random() < 0.5 or self._look_for_deleted(entry)

    def _look_for_deleted(self, entry: Entry) -> bool:
        request = Request("look", "GET", f"/v1/people/{entry.person_id}", expected=(200, 404))
        still = (f"{WRONG}: a deleted person is still there", entry.name)
        return (
            self._witness.ask(self.client, request, lambda answer: still if answer.status == 200 else None) is not None
        )

    def look(self, entry: Entry) -> bool:
        """Whether somebody enrolled is there with all faces and is found by the photo."""
        if entry.state != ENROLLED:
            return True
        person = Request("look", "GET", f"/v1/people/{entry.person_id}", expected=(200, 404))
        if self._witness.ask(self.client, person, _as_check(faces_differ, entry)) is None:
            return False
        own = Request(
            "recognise", "POST", "/recognize", *as_form(entry.photo), label="enrolled photo", good=Tally.RIGHT
        )
        return self._witness.ask(self.client, own, _as_check(not_recognised, entry)) is not None


def _as_check(
    compare: Callable[[Entry, Answer], Finding | None], entry: Entry
) -> Callable[[Answer], tuple[str, str] | None]:
    def check(answer: Answer) -> tuple[str, str] | None:
        finding = compare(entry, answer)
        return (f"{LOST}: {finding.kind}", f"{finding.name}: {finding.said}") if finding else None

    return check
