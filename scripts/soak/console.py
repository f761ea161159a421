"""For people: the progress while it runs, the table at the end."""

from __future__ import annotations

import math
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any

from soak.judging import BUSY_SHARE_ALLOWED, percentile_ms
from soak.load import Tally


class Console:
    """The progress: one line that changes on a terminal, otherwise a line every ten seconds."""

    def __init__(self) -> None:
        self._next = 0.0 if sys.stdout.isatty() else 10.0

    def show(self, tally: Tally, memory_mb: float, length: float, more: str = "") -> None:
        elapsed = time.monotonic() - tally.began
        if elapsed < self._next:
            return
        recent = tally.seconds(last_slots=math.ceil(10 / tally.slot_seconds))
        p50, p99 = (percentile_ms(recent, share) or 0 for share in (0.5, 0.99))
        line = (
            f"{clock(elapsed)} of {clock(length)}  {tally.requests():,} requests  "
            f"{len(recent) / min(10.0, elapsed):.1f}/s  p50 {p50:.0f} ms  p99 {p99:.0f} ms  "
            f"errors {sum(tally.errors().values())}  busy {tally.outcomes[Tally.BUSY]}"
            + (f"  memory {memory_mb:,.0f} MB" if memory_mb else "")
            + more
        )
        if sys.stdout.isatty():
            print(f"\r{line:<110}", end="", flush=True)
        else:
            self._next += 10.0
            print(line, flush=True)


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def print_table(report: Mapping[str, Any]) -> None:
    """The three parts."""
    recognition, performance = report["recognition"], report["performance"]
    forms = ", ".join(f"{form} {number:,}" for form, number in recognition["right_by_form"].items())
    errors = recognition["errors"]
    print(f"\nRECOGNITION   {report['people']} people, {report['photos']} photos in all formats and sizes")
    print(f"  right, as at rest      {recognition['right']:>10,}")
    print(textwrap.fill(forms, 100, initial_indent=" " * 4, subsequent_indent=" " * 4))
    print(f"  bad inputs refused     {recognition['bad_inputs_refused']:>10,}")
    print(f"  busy                   {recognition['busy']:>10,}   up to {BUSY_SHARE_ALLOWED:.0%} of all is no error")
    print(f"  errors                 {sum(errors.values()):>10,}   {', '.join(f'{k}: {n}' for k, n in errors.items())}")
    for example in recognition["error_examples"][:5]:
        print(f"    {example['what']}: {example['photo']}, request {example['request_id']} {example['said']}")
    print(f"\nMEMORY        second half of the run; {report['processes_seen_by']}")
    for kind, row in report["memory"].items():
        replaced = f", {row['replaced']} replaced" if row["replaced"] else ""
        print(
            f"  {kind + ' (' + str(row['processes']) + replaced + ')':<22} {row['first_mb']:>9,.1f} -> "
            f"{row['last_mb']:,.1f} MB   {row['mb_per_hour']:+,.1f} MB per hour   "
            f"{row['mb_per_1000_requests']} MB per 1,000 requests{'   LEAK' if row['leak'] else ''}"
        )
    for what, row in report["counts"].items():
        print(f"  {what:<22} {row['first']:>9,.0f} -> {row['last']:,.0f}{'   LEAK' if row['leak'] else ''}")
    if not report["memory"]:
        print("  not judged: it was not seen, or the run was too short (it takes half a minute)")
    print(f"\nPERFORMANCE   {report['concurrency']} requests at a time, {report['seconds']:.0f} s, {report['server']}")
    print(f"  recognised             {performance['recognised_per_second']:>10,.1f}   a second")
    for name, label in (("p50_ms", "p50"), ("p95_ms", "p95"), ("p99_ms", "p99"), ("longest_ms", "longest")):
        print(f"  {label:<22} {performance[name] or 0:>10,.0f}   ms")
    print()


def print_criteria(report: Mapping[str, Any]) -> None:
    """What was asked of a run with faults, a line each."""
    marks = {True: "ok", False: "FAILS"}
    print()
    for each in report["criteria"]:
        note = f"   {each['note']}" if each["note"] else ""
        figure = f"{each['figure']}   (limit {each['limit']})"
        print(f"  {marks.get(each['holds'], '-'):<6}{each['name']:<52}{figure}{note}")
    for example in report["recognition"]["error_examples"][:5]:
        print(f"    {example['what']}: {example['photo']}, request {example['request_id']} {example['said']}")
    performance = report["performance"]
    print(
        f"  {performance['recognised_per_second']:,.1f} photos a second, p50 {performance['p50_ms'] or 0:,.0f} ms,",
        end=" ",
    )
    print(f"p99 {performance['p99_ms'] or 0:,.0f} ms; {len(report['faults'])} faults; seed {report['seed']}\n")
