"""One run, from the first request to the report."""

from __future__ import annotations

import argparse
import contextlib
import time
from dataclasses import asdict
from typing import Any

from soak.console import Console
from soak.crew import Crew
from soak.facts import machine
from soak.forms import with_versions
from soak.guests import Guests
from soak.judging import judge_answers, judge_counts, judge_memory, percentile_ms
from soak.load import Load, Slot, Tally
from soak.own import OwnService
from soak.photos import Photo
from soak.places import DEFAULT_URL, ERASE_SECONDS, REQUEST_SECONDS
from soak.problems import Wrong
from soak.processes import Sample, Sampler, find_watch
from soak.slope import memory_slope
from soak.talk import Client, NoAnswer, greet, wait_until_ready
from soak.verdict import counts_in_words, plain_criteria


class Soak:
    """One run, from the first request to the report."""

    def __init__(self, options: argparse.Namespace, to_enrol: list[Photo], to_recognise: list[Photo]) -> None:
        self.options = options
        self.problems: list[str] = []
        self.leftovers: list[str] = []
        self.interrupted = False
        self.own: OwnService | None = None
        self.facts: dict[str, Any] = {"began": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "minutes": options.minutes}
        self.facts["machine"] = machine()
        self.tally: Tally | None = None
        self.samples: list[Sample] = []
        self.answered: list[int] = []
        self.seconds = 0.0
        self._to_enrol, self._to_recognise = to_enrol, to_recognise

    def photos_in_words(self) -> str:
        """How many photos there are for what."""
        return f"{len(self._to_enrol)} to enrol, {len(self._to_recognise)} to recognise"

    def run(self) -> None:
        """Set up, load, judge, tear down; the gallery is left as it was, whatever happens."""
        try:
            with contextlib.ExitStack() as closing:
                client, is_own = self._reach_service(closing)
                client.ask("GET", "/v1/people?limit=1")  # shows whether a key is needed
                guests = Guests(client)
                if not is_own:
                    closing.callback(self._erase, guests)
                photos = self._prepare(client, guests)
                self._load(client, guests.name, photos)
        except NoAnswer as error:
            self.problems.append(f"the service stopped answering before the load began ({error}).")
        except Wrong as error:
            self.problems.insert(0, str(error))
        except KeyboardInterrupt:
            self.interrupted = True

    def _reach_service(self, closing: contextlib.ExitStack) -> tuple[Client, bool]:
        url, is_own = self.options.url, self.options.url is None
        if is_own:
            own = self.own = OwnService()
            closing.callback(self._stop, own)
            why = "Faults" if self.options.faults else f"No service runs at {DEFAULT_URL}"
            print(f"{why}: starting a service at {own.url}, with a temporary data directory.", flush=True)
            own.wait_until_ready()
            url, self.options.key = own.url, None  # the key is somebody else's
        client = Client(url, self.options.key)
        closing.callback(client.close)
        try:
            greet(client, url)
        except NoAnswer as error:
            raise Wrong(f"no service answers at {url} ({error}): start it, or correct --url.") from error
        wait_until_ready(client)
        self.facts |= {"url": url, "own_service": is_own}
        return client, is_own

    def _prepare(self, client: Client, guests: Guests) -> list[Photo]:
        """Enrol, recognise everything once, and say what comes."""
        guests.enrol(self._to_enrol)
        for refused in guests.refused:
            print(f"Left out, not enrolled: {refused}")
        versions = with_versions(self._to_recognise)
        print(f"Recognising {len(versions)} photos once, at rest ...", flush=True)
        seen = guests.recognise_at_rest(versions)
        known = [photo for photo in seen if photo.rest]
        left_out = [f"{photo.label}, {photo.form}" for photo in seen if not photo.rest]
        self.facts |= {
            "server": client.send("GET", "/health/live").headers.get("Server", "server not named"),
            "concurrency": self.options.concurrency,
            "people": len(guests.ids),
            "people_named": guests.name,
            "photos": len(known),
            "photos_left_out": left_out,
            "not_enrolled": guests.refused,
        }
        print(
            f"{len(guests.ids)} people are enrolled, as {guests.name}-<number>; {len(known)} photos are recognised at"
        )
        print(f"rest and are the load, {len(left_out)} are not and are left out.")
        return known

    def _load(self, client: Client, run: str, photos: list[Photo]) -> None:
        options, facts = self.options, self.facts
        length = options.minutes * 60
        every = sampling_seconds(length)
        watch, facts["processes_seen_by"] = find_watch(facts["url"], options.key)
        print(f"Load: {options.concurrency} requests at a time to {facts['url']} ({facts['server']}) for", end=" ")
        print(f"{options.minutes:g} minutes.\nMemory: {facts['processes_seen_by']}.", flush=True)
        self.tally = Tally(slot_seconds=every)
        sampler = Sampler(watch, self.tally.began, every, self.tally.requests)
        load = Load(facts["url"], options.key, run, photos, self.tally, options.concurrency)
        patience = 2.0
        try:
            self._watch_over(load, sampler, length)
            patience = REQUEST_SECONDS + 5
        finally:
            self.seconds = min(length, time.monotonic() - self.tally.began)
            load.stop(seconds=patience)
            sampler.stop()
            self.samples, self.answered = sampler.samples, sampler.answered
            print()

    def _more_progress(self) -> str:
        return ""

    def _watch_over(self, load: Load | Crew, sampler: Sampler, length: float) -> None:
        assert self.tally
        console = Console()
        deadline = self.tally.began + length
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            console.show(self.tally, sampler.memory_mb(), length, self._more_progress())
            if load.given_up():
                seconds = self.tally.last_answer - self.tally.began
                self.problems.append(f"the service stopped answering {seconds:.0f} s after the load began.")
                return

    def _erase(self, guests: Guests) -> None:
        try:
            problem = guests.erase(ERASE_SECONDS / 4 if self.problems else ERASE_SECONDS)
        except KeyboardInterrupt:  # the second: somebody is in a hurry
            self.interrupted = True
            problem = f"the people named {guests.name}-* are still in the gallery: stopped before they were erased."
        if problem:
            self.leftovers.append(problem)
        else:
            print(f"The people named {guests.name}-* are erased.", flush=True)

    def _stop(self, own: OwnService) -> None:
        if problem := own.stop():
            self.leftovers.append(problem)
        else:
            print("The service is stopped.", flush=True)

    def report(self) -> dict[str, Any]:
        """Everything that is known, and the verdict."""
        report: dict[str, Any] = {"verdict": "", "reasons": [], "interrupted": self.interrupted, **self.facts}
        reasons = list(self.problems)
        if self.tally:
            report["seconds"] = round(self.seconds, 1)
            late = [slot for n, slot in enumerate(self.tally.slots) if n * self.tally.slot_seconds >= self.seconds / 2]
            memory, leaks = judge_memory(self.samples, self.seconds, sum(slot.requests for slot in late))
            counts, growing = judge_counts(self.samples, self.seconds)
            wrong = judge_answers(self.tally)
            slope = memory_slope(self.samples, self.answered, self.seconds)
            report["slope"] = slope.as_json() if slope else None
            figures = (str(sum(self.tally.errors().values())), _in_words(memory), counts_in_words(counts))
            asked = plain_criteria((wrong, leaks, growing), figures, slope)
            reasons += wrong + leaks + growing + [asked[-1].sentence()] * (asked[-1].holds is False)
            report["criteria"] = [each.as_json() for each in asked]
            report["recognition"] = _recognition(self.tally)
            report["memory"], report["counts"] = memory, counts
            report["performance"] = _performance(self.tally, self.seconds)
            report["timeline"] = [_moment(n * self.tally.slot_seconds, s) for n, s in enumerate(self.tally.slots)]
            report["samples"] = [
                asdict(sample) | {"requests": number}
                for sample, number in zip(self.samples, self.answered, strict=True)
            ]
        reasons += self.leftovers
        verdict = "failed" if reasons else "interrupted" if self.interrupted else "passed"
        return report | {"verdict": verdict, "reasons": reasons}


def sampling_seconds(length: float) -> float:
    """How often to look at the processes in a run of so many seconds."""
    return min(2.0, max(0.25, length / 60)) if length <= 3600 else length / 1800


def answers(url: str) -> bool:
    """Whether a recognizer answers; another program on the port is none."""
    client = Client(url, None)
    try:
        greet(client, url)
    except (NoAnswer, Wrong):
        return False
    finally:
        client.close()
    return True


def _in_words(memory: dict[str, Any]) -> str:
    return ", ".join(f"{kind} {row['first_mb']:,.0f} to {row['last_mb']:,.0f} MB" for kind, row in memory.items())


def _recognition(tally: Tally) -> dict[str, Any]:
    return {
        "requests": tally.requests(),
        "right": tally.outcomes[Tally.RIGHT],
        "bad_inputs_refused": tally.outcomes[Tally.REFUSED],
        "busy": tally.outcomes[Tally.BUSY],
        "errors": tally.errors(),
        "error_examples": tally.examples,
        "right_by_form": dict(tally.forms.most_common()),
    }


def _performance(tally: Tally, seconds: float) -> dict[str, Any]:
    taken = tally.seconds()
    names = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "longest_ms": 1.0}
    rate = round(len(taken) / seconds, 2) if seconds else 0.0
    return {"recognised_per_second": rate, **{name: percentile_ms(taken, share) for name, share in names.items()}}


def _moment(at: float, slot: Slot) -> dict[str, Any]:
    latency = {"p50_ms": percentile_ms(slot.seconds, 0.5), "p99_ms": percentile_ms(slot.seconds, 0.99)}
    return {"at": round(at, 2), "requests": slot.requests, "errors": slot.errors, "busy": slot.busy, **latency} | {
        "excused": slot.excused
    }
