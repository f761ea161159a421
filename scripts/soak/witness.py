"""The witness: sends a request, and says at once what its answer was worth.

What is wrong has a name that begins with its kind (`wrong`, `lost`, `unexpected`, `hang`), which is what is judged
in the end. "Not now" and broken connections are excused by a fault that has to do with them, never a wrong answer.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

from soak.faultlog import FaultLog
from soak.load import Tally
from soak.places import REQUEST_SECONDS
from soak.talk import Answer, Client, NoAnswer

WRONG, LOST, UNEXPECTED, HANG, TAKEN = "wrong", "lost", "unexpected", "hang", "taken"
NOT_NOW = {503: ("busy", "database_unavailable", "gallery_behind"), 504: ("deadline_exceeded",)}

Check = Callable[[Answer], tuple[str, str] | None]
"""What is wrong with an answer of an expected status: a name and what was said; None when nothing is."""


class Request(NamedTuple):
    """What to send and which statuses may come back."""

    action: str
    method: str
    path: str
    body: bytes = b""
    kind: str = ""
    once: str = ""
    label: str = ""
    expected: Collection[int] = (200,)
    good: str = Tally.DONE


class Witness:
    """Judges every request; safe to use from many threads, each with a client of its own."""

    def __init__(self, run: str, tally: Tally, faults: FaultLog) -> None:
        self.tally, self.faults = tally, faults
        self.statuses: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, list[float]] = {}
        self._run = run
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def ask(self, client: Client, request: Request, check: Check | None = None) -> Answer | None:
        """Send it; the answer when it is one of those expected, right or wrong, else None."""
        request_id = f"{self._run}-{next(self._numbers)}"
        began = time.monotonic()
        answer, failure = None, ""
        try:
            answer = client.send(request.method, request.path, request.body, request.kind, request_id, request.once)
        except NoAnswer as error:
            failure = str(error)
        ended = time.monotonic()
        outcome, said = self._judge(request, answer, failure, (began, ended), check)
        label = request.label or f"{request.action} {request.path}"
        self.tally.note(outcome, answer, label if outcome not in Tally.OWN else request.label, request_id, said)
        with self._lock:
            self.statuses[request.action, str(answer.status) if answer else failure] += 1
            if answer and outcome in (Tally.RIGHT, Tally.DONE, Tally.REFUSED):
                self.seconds.setdefault(request.action, []).append(answer.seconds)
        return answer if answer and answer.status in request.expected else None

    def _judge(
        self, request: Request, answer: Answer | None, failure: str, when: tuple[float, float], check: Check | None
    ) -> tuple[str, str]:
        """The outcome's name, and what was said."""
        began, ended = when
        if ended - began > REQUEST_SECONDS - 0.5:
            return f"{HANG}: {request.action} took more than {REQUEST_SECONDS:.0f} s", failure or str(answer)
        if answer is None:
            if self.faults.excuse(began, ended, failure):
                return Tally.EXCUSED, ""
            return f"{UNEXPECTED}: {failure}", request.action
        if answer.status in request.expected:
            if check and (wrong := check(answer)):
                return wrong
            self.faults.went_well(began, ended)
            return request.good, ""
        return self._judge_not_now(answer, began, ended)

    def _judge_not_now(self, answer: Answer, began: float, ended: float) -> tuple[str, str]:
        code = str(answer.json().get("code", "no code"))
        named = f"{answer.status} {code}"
        allowed = code in NOT_NOW.get(answer.status, ()) and (answer.status == 504 or "Retry-After" in answer.headers)
        if allowed and self.faults.excuse(began, ended, named):
            return Tally.EXCUSED, ""
        if answer.is_busy() and code == "busy":
            return Tally.BUSY, ""
        return f"{UNEXPECTED}: status {named}", str(answer)
