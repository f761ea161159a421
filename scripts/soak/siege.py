"""A run with faults: the same as without, but with a service of our own, a ledger, and somebody who breaks things."""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

from soak.audit import Finding, audit
from soak.crew import Crew, Hand, Supplies
from soak.facts import latency
from soak.faultlog import FaultLog
from soak.forms import as_form, bad_inputs, enlarged
from soak.guests import Guests
from soak.harm import FLOOD_TIMES, Harm
from soak.ledger import ENROLLING, LEAVING, Ledger
from soak.load import Tally
from soak.photos import Photo
from soak.places import REQUEST_SECONDS
from soak.problems import Wrong
from soak.processes import ProcessTree, Sampler, find_watch
from soak.run import Soak, sampling_seconds
from soak.saboteur import Saboteur
from soak.slope import memory_slope
from soak.talk import Answer, Client, NoAnswer
from soak.verdict import counts, criteria
from soak.witness import Witness

SETTLE_SECONDS, AUDIT_SECONDS, HURRY_SECONDS = 60.0, 600.0, 15.0
SURE = 0.9  # confidence at rest of the photos that have to be recognised whoever else comes and goes
HUGE_MEGAPIXELS = 12.0


class Siege(Soak):
    """One run with faults; `newcomers` are one photo each of people who are enrolled and deleted on the way."""

    def __init__(
        self,
        options: argparse.Namespace,
        to_enrol: list[Photo],
        to_recognise: list[Photo],
        newcomers: list[Photo],
        odd: list[Photo],
    ) -> None:
        super().__init__(options, to_enrol, to_recognise)
        self._newcomers, self._odd = newcomers, odd
        self.faults = FaultLog()
        self.findings: list[Finding] | None = None
        self._residents: dict[str, str] = {}
        self._enrolled_at_rest = 0
        self.facts["seed"] = options.seed

    def photos_in_words(self) -> str:
        words = f"{len(self._newcomers)} of people who come and go, {len(self._odd)} odd images"
        return f"{super().photos_in_words()}, {words}"

    def _prepare(self, client: Client, guests: Guests) -> list[Photo]:
        self._ledger = Ledger(f"{guests.name}-n", self._newcomers)
        self._enrol_newcomers(client)
        known = super()._prepare(client, guests)
        self._residents = guests.ids
        sure = [photo for photo in known if photo.rest and photo.rest.confidence >= SURE]
        if not sure:
            raise Wrong("no photo is recognised so surely at rest that it had to be under load: use other photos.")
        largest = [made for photo in sure[:2] if (made := enlarged(photo, HUGE_MEGAPIXELS))]
        huge = [photo for photo in guests.recognise_at_rest(largest) if photo.rest] if largest else []
        self._supplies = Supplies(sure, huge, self._odd, bad_inputs(sure))
        self.facts |= {"photos_sure": len(sure), "newcomers": len(self._newcomers), "odd_images": len(self._odd)}
        return sure

    def _enrol_newcomers(self, client: Client) -> None:
        """Everybody is there at rest: how sure a face is depends on who else is enrolled."""
        print(f"Enrolling {len(self._newcomers)} people ...", flush=True)
        chance = random.Random(self.options.seed)
        while entry := self._ledger.begin(chance):
            body, kind = as_form(entry.photo, name=entry.name, face="largest")
            answer = client.ask("POST", "/enroll", body, kind, once=entry.key)
            entry.attempts += 1
            if answer.status == 201:
                self._ledger.enrolled(entry, answer.json())
            elif answer.status == 422:
                self._ledger.refused(entry)
            else:
                raise Wrong(f"enrolling {entry.photo.label} failed with {answer}")
            self._ledger.let_go(entry)
        self._enrolled_at_rest = self._ledger.counts["enrolments"]

    def _load(self, client: Client, run: str, photos: list[Photo]) -> None:
        options, facts, length = self.options, self.facts, self.options.minutes * 60
        assert self.own, "a run with faults has a service of its own"
        watch, facts["processes_seen_by"] = find_watch(facts["url"], None)
        if not isinstance(watch, ProcessTree):
            raise Wrong("the processes of the service cannot be seen here, so nothing can be done to them.")
        every = sampling_seconds(length)
        self.tally = Tally(slot_seconds=every)
        self._witness = Witness(run, self.tally, self.faults)
        harm = Harm(watch, self.own.pid, facts["url"], photos[0].data, self._flood)
        facts["faults_left_out"] = harm.left_out
        print(f"Load: {options.concurrency} clients for {options.minutes:g} minutes, seed {options.seed}; faults at")
        print(f"random times: {', '.join(harm.acts)}.", flush=True)
        harm.spares_the_oldest_from = time.monotonic() + length / 4
        for kind, why in harm.left_out.items():
            print(f"Left out: {kind} ({why}).")
        self._fight(Sampler(watch, self.tally.began, every, self.tally.requests), harm, length)
        self._settle_and_audit(client)
        self.own.keep_log(options.report.with_suffix(".log"))

    def _fight(self, sampler: Sampler, harm: Harm, length: float) -> None:
        """The load and the faults, until the time is over or the service is silent for good."""
        assert self.tally
        threads, seed = self.options.concurrency, self.options.seed
        crew = Crew(self.facts["url"], self._supplies, self._witness, self._ledger, threads, seed)
        saboteur = Saboteur(harm, self.faults, random.Random(seed), length)
        try:
            self._watch_over(crew, sampler, length)
        except KeyboardInterrupt:  # the ledger is compared all the same, in a hurry
            self.interrupted = True
        self.seconds = min(length, time.monotonic() - self.tally.began)
        saboteur.stop(self.interrupted)  # while there is load: without requests no recovery is seen
        crew.stop(5 if self.interrupted else REQUEST_SECONDS + 5)
        sampler.stop()
        self.samples, self.answered = sampler.samples, sampler.answered
        print()
        if saboteur.broke:
            self.problems.append(saboteur.broke)

    def _more_progress(self) -> str:
        counts = self._ledger.counts
        return f"  faults {len(self.faults.faults)}  enrolled {counts['enrolments']}  deleted {counts['deletions']}"

    def _flood(self, seconds: float) -> int:
        """Ten times as many clients for some seconds; what they are answered is judged like everything else."""
        threads: int = (FLOOD_TIMES - 1) * self.options.concurrency
        seed = self.options.seed + len(self.faults.faults)
        crowd = Crew(self.facts["url"], self._supplies, self._witness, self._ledger, threads, seed, only="recognise")
        time.sleep(seconds)
        crowd.stop(0)
        return threads

    # -- afterwards --

    def _settle_and_audit(self, client: Client) -> None:
        """Send again what was not answered, then compare the ledger with the service."""
        print("Comparing the ledger with the gallery ...", flush=True)
        deadline = time.monotonic() + (HURRY_SECONDS if self.interrupted else SETTLE_SECONDS)
        chance = random.Random(self.options.seed)
        hand = Hand(client, self._supplies, self._witness, self._ledger, chance)
        while (entry := self._ledger.pick(chance, ENROLLING, LEAVING)) and time.monotonic() < deadline:
            done = hand.enrol(entry) if entry.state == ENROLLING else hand.delete(entry)
            self._ledger.let_go(entry)
            time.sleep(0 if done else 0.5)
        deadline = time.monotonic() + (HURRY_SECONDS if self.interrupted else AUDIT_SECONDS)

        def ask(method: str, path: str, body: bytes, kind: str) -> Answer:
            if time.monotonic() > deadline:
                raise NoAnswer("there was no time to check everything")
            return client.ask(method, path, body, kind, patience=10)

        try:
            self.findings = audit(self._ledger.entries, self._residents.values(), ask)
        except NoAnswer as error:
            self.leftovers.append(f"the ledger could not be compared with the gallery to the end ({error}).")

    def report(self) -> dict[str, Any]:
        """Everything that is known, and the verdict, which is that of the criteria."""
        report = super().report()
        if self.tally is None:
            return report
        slope = memory_slope(self.samples, self.answered, self.seconds)
        enrolments = self._ledger.counts["enrolments"] - self._enrolled_at_rest
        faults = self.faults.to_judge(self.interrupted)
        asked = criteria(self.tally.outcomes, self.findings, faults, slope, enrolments)
        asked.insert(-1, counts(report["counts"]))
        reasons = [*self.problems, *(each.sentence() for each in asked if each.holds is False), *self.leftovers]
        verdict = "failed" if reasons else "interrupted" if self.interrupted else "passed"
        return report | {
            "verdict": verdict,
            "reasons": reasons,
            "criteria": [each.as_json() for each in asked],
            "faults": [fault.as_json(self.tally.began) for fault in self.faults.faults],
            "ledger": self._ledger.summary() | {"findings": [list(each) for each in self.findings or ()]},
            "statuses": [[action, status, n] for (action, status), n in sorted(self._witness.statuses.items())],
            "latency": latency(self._witness.seconds),
        }
