"""The faults of a run: when each began and ended, what it excuses, and when the service was itself again.

While a fault lasts and for a stated time after, an answer "not now" (503, 504) or a clean connection error is
excused. The service has recovered with the first good answer to a request that began after the last trouble, and
not before the processes that were killed are back; the time counts from the end of the fault: a kill ends at once, a
frozen database when it may go on, a flood when its clients stop.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Terms(NamedTuple):
    """What is asked of the service after a fault of a kind."""

    recovery_limit_seconds: float
    excused_seconds: float
    in_words: str


TERMS: Mapping[str, Terms] = {
    "worker killed": Terms(3, 5, "kill -9 of a worker in the midst of its requests"),
    "PostgreSQL killed": Terms(10, 15, "kill -9 of PostgreSQL"),
    "PostgreSQL restarted": Terms(10, 15, "PostgreSQL is told to stop in good order (a fast shutdown)"),
    "PostgreSQL frozen": Terms(10, 15, "SIGSTOP of every process of PostgreSQL for some seconds"),
    "connections cut": Terms(3, 5, "database connections are terminated, as an administrator would"),
    "uploads aborted": Terms(3, 5, "clients go away in the midst of their uploads, some with a reset"),
    "half-sent bodies": Terms(3, 5, "clients send half of a body and hold the connection open for some seconds"),
    "flood": Terms(10, 12, "ten times as many clients for some seconds"),
    "settings reloaded": Terms(3, 5, "SIGHUP to the supervisor"),
}
"""By kind of fault. Those of the worker's and of PostgreSQL's death are the project's promises."""


@dataclass
class Fault:
    """One fault; times are those of time.monotonic()."""

    number: int
    kind: str
    began: float
    ended: float | None = None
    said: str = ""
    back: float | None = None
    last_trouble: float | None = None
    recovered: float | None = None
    excused: Counter[str] = field(default_factory=Counter)

    @property
    def terms(self) -> Terms:
        return TERMS[self.kind]

    def excuses(self, began: float, ended: float) -> bool:
        """Whether a request from `began` to `ended` had to do with it."""
        return self.began <= ended and (self.ended is None or began <= self.ended + self.terms.excused_seconds)

    def recovery_seconds(self) -> float | None:
        """None when it has not recovered."""
        if self.ended is None or self.back is None or self.recovered is None:
            return None
        return max(self.recovered, self.back) - self.ended

    def as_json(self, run_began: float) -> dict[str, Any]:
        recovery = self.recovery_seconds()
        return {
            "number": self.number,
            "kind": self.kind,
            "at": round(self.began - run_began, 2),
            "seconds": None if self.ended is None else round(self.ended - self.began, 2),
            "said": self.said,
            "recovery_seconds": None if recovery is None else round(recovery, 2),
            "recovery_limit_seconds": self.terms.recovery_limit_seconds,
            "excused": dict(self.excused),
        }


class FaultLog:
    """All faults of a run, one after the other; safe to use from many threads."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._lock = threading.Lock()

    def begin(self, kind: str) -> Fault:
        """A fault begins; it is noted before it is done, so that nobody sees its effects too early."""
        with self._lock:
            fault = Fault(len(self.faults) + 1, kind, time.monotonic())
            self.faults.append(fault)
            return fault

    def to_judge(self, was_interrupted: bool) -> list[Fault]:
        """All faults, but not the last one when the run was stopped before the service could recover from it."""
        is_cut_short = was_interrupted and self.faults and self.faults[-1].recovery_seconds() is None
        return self.faults[:-1] if is_cut_short else list(self.faults)

    def excuse(self, began: float, ended: float, what: str) -> bool:
        """Whether trouble with a request is excused; it is noted with the fault that it is put down to."""
        with self._lock:
            fault = next((each for each in reversed(self.faults) if each.excuses(began, ended)), None)
            if fault is None:
                return False
            fault.excused[what] += 1
            fault.last_trouble = max(ended, fault.last_trouble or 0.0)
            if fault.recovered is not None and fault.recovered <= ended:
                fault.recovered = None
            return True

    def went_well(self, began: float, ended: float) -> None:
        """A request was answered as it should be."""
        with self._lock:
            fault = self.faults[-1] if self.faults else None
            if fault is None or fault.ended is None or fault.recovered is not None:
                return
            if began >= max(fault.ended, fault.last_trouble or 0.0):
                fault.recovered = ended
