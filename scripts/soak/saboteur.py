"""The saboteur: a thread that does one fault after the other, at random times, until it is told to stop."""

from __future__ import annotations

import random
import threading
import time

from soak.faultlog import Fault, FaultLog
from soak.harm import Harm

WAIT_SECONDS = 45.0  # so long is a recovery waited for, beyond every limit
_GLANCE_SECONDS = 0.05


class Saboteur:
    """Every kind comes once, in random order, before any comes again; the next when the last one is over."""

    def __init__(self, harm: Harm, log: FaultLog, chance: random.Random, length_seconds: float) -> None:
        self._harm, self._log, self._chance = harm, log, chance
        self._gaps = (1.0, max(2.0, min(25.0, length_seconds / 60)))
        self._last_begin = time.monotonic() + length_seconds - min(20.0, length_seconds / 5)
        self._stop, self._hurry = threading.Event(), threading.Event()
        self.broke: str | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self, hurry: bool) -> None:
        """No fault after the one that is being done; in a hurry its recovery is not waited for."""
        self._stop.set()
        if hurry:
            self._hurry.set()
        self._thread.join(WAIT_SECONDS + 30)

    def _work(self) -> None:
        deck: list[str] = []
        while not self._stop.wait(self._chance.uniform(*self._gaps)) and time.monotonic() < self._last_begin:
            if not deck:
                deck = self._chance.sample(sorted(self._harm.acts), len(self._harm.acts))
            kind = deck.pop()
            if not self._harm.may(kind):
                continue
            fault = self._log.begin(kind)
            try:
                fault.said = self._harm.do(fault.kind, self._chance)
            except Exception as error:  # noqa: BLE001 - whatever it was, the fault was not done and has to be told
                self.broke = f"the fault `{fault.kind}` could not be done: {type(error).__name__} {error}."
            fault.ended = time.monotonic()
            self._await_recovery(fault)

    def _await_recovery(self, fault: Fault) -> None:
        """Until the processes are back and requests have been answered again for a second."""
        assert fault.ended
        deadline = fault.ended + WAIT_SECONDS
        while time.monotonic() < deadline and not self._hurry.is_set():
            if fault.back is None and self._harm.is_back(fault.kind):
                fault.back = time.monotonic()
            recovered = fault.recovered
            if fault.back and recovered and time.monotonic() > recovered + 1.0:
                return
            time.sleep(_GLANCE_SECONDS)
