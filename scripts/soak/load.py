"""The load: threads that send photos one after the other, and the tally of what came back."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from soak.forms import WAYS, bad_inputs
from soak.guests import difference, fault_of
from soak.photos import Photo
from soak.places import SILENCE_SECONDS
from soak.talk import Answer, Client, NoAnswer

BAD_INPUT_SHARE = 0.05


@dataclass
class Slot:
    """What happened in one stretch of time."""

    seconds: list[float] = field(default_factory=list)
    requests: int = 0
    errors: int = 0
    busy: int = 0
    excused: int = 0


class Tally:
    """What the answers were; safe to use from many threads."""

    RIGHT, REFUSED, BUSY, EXCUSED, DONE = "right", "refused", "busy", "excused by a fault", "done"
    OWN = (RIGHT, REFUSED, BUSY, EXCUSED, DONE)

    def __init__(self, slot_seconds: float) -> None:
        self.slot_seconds = slot_seconds
        self.began = self.last_answer = time.monotonic()
        self.slots: list[Slot] = [Slot()]
        self.outcomes: Counter[str] = Counter()
        self.forms: Counter[str] = Counter()
        self.examples: list[dict[str, Any]] = []
        self.unanswered = 0
        self._lock = threading.Lock()

    def note(self, outcome: str, answer: Answer | None, form: str, request_id: str, said: str = "") -> None:
        """Note one request; any outcome that is not one of ours is an error."""
        with self._lock:
            elapsed = time.monotonic() - self.began
            while len(self.slots) <= elapsed / self.slot_seconds:
                self.slots.append(Slot())
            slot = self.slots[-1]
            slot.requests += 1
            self.outcomes[outcome] += 1
            self.unanswered = 0 if answer else self.unanswered + 1
            self.last_answer = time.monotonic() if answer else self.last_answer
            if outcome == self.RIGHT and answer:
                slot.seconds.append(answer.seconds)
                self.forms[form] += 1
            elif outcome == self.BUSY:
                slot.busy += 1
            elif outcome == self.EXCUSED:
                slot.excused += 1
            elif outcome not in self.OWN:
                slot.errors += 1
                if self.outcomes[outcome] <= 3:
                    example = {"after_seconds": round(elapsed, 1), "what": outcome, "photo": form}
                    self.examples.append({**example, "request_id": request_id, "said": said[:300]})

    def errors(self) -> dict[str, int]:
        with self._lock:
            return {outcome: number for outcome, number in self.outcomes.most_common() if outcome not in self.OWN}

    def requests(self) -> int:
        with self._lock:
            return self.outcomes.total()

    def seconds(self, last_slots: int = 0) -> list[float]:
        """How long right answers took, in order of time; of the last slots only where so asked."""
        with self._lock:
            return [value for slot in self.slots[-last_slots:] for value in slot.seconds]


class Load:
    """Threads that send photos one after the other until told to stop."""

    def __init__(
        self, url: str, key: str | None, run: str, photos: Sequence[Photo], tally: Tally, threads: int
    ) -> None:
        self._photos, self._bad, self._tally, self._run = photos, bad_inputs(photos), tally, run
        self._clients = [Client(url, key) for _ in range(threads)]
        self._stop = threading.Event()
        self._numbers = itertools.count(1)
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def given_up(self) -> bool:
        """Whether nobody has answered for a while."""
        silent = time.monotonic() - self._tally.last_answer > SILENCE_SECONDS
        return silent and self._tally.unanswered >= len(self._threads)

    def stop(self, seconds: float) -> None:
        """Let the requests in flight finish within `seconds`."""
        self._stop.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, number: int) -> None:
        chance, client = random.Random(number), self._clients[number]
        while not self._stop.is_set():
            request_id = f"{self._run}-{next(self._numbers)}"
            if chance.random() < BAD_INPUT_SHARE:
                photo, (body, kind) = None, chance.choice(self._bad)
            else:
                photo = chance.choice(self._photos)
                body, kind = chance.choice(WAYS)(photo)
            self._send(client, photo, body, kind, request_id)
        client.close()

    def _send(self, client: Client, photo: Photo | None, body: bytes, kind: str, request_id: str) -> None:
        label = f"{photo.label}, {photo.form}" if photo else f"bad input, {kind}"
        try:
            answer = client.send("POST", "/recognize", body, kind, request_id)
        except NoAnswer as error:
            if not self._stop.is_set():
                self._tally.note(str(error), None, label, request_id)
                self._stop.wait(0.5)
            return
        if answer.is_busy():
            self._tally.note(Tally.BUSY, answer, label, request_id)
            self._stop.wait(answer.patience())
            return
        if photo:
            outcome = fault_of(photo, answer) or Tally.RIGHT
            if outcome == Tally.RIGHT:
                self._tally.note(outcome, answer, photo.form, request_id)
            else:
                self._tally.note(outcome, answer, label, request_id, difference(photo, answer))
        else:
            refused = answer.status in (400, 413, 415, 422)
            outcome = Tally.REFUSED if refused else f"bad input answered with status {answer.status}"
            self._tally.note(outcome, answer, label, request_id, str(answer))
