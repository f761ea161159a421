"""The page of a report: one HTML file with everything in it, for people. The verdict comes first."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dde2e8; --good: #1a7f4b; --bad: #c0322b; --open: #8a6d1a; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink); background: #f4f6f8;
  margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; }
header { border-radius: 10px; padding: 20px 24px; color: #fff; background: var(--open); }
header.passed { background: var(--good); } header.failed { background: var(--bad); }
header h1 { margin: 0; font-size: 28px; letter-spacing: .02em; } header p { margin: 6px 0 0; opacity: .95; }
header li { margin: 4px 0; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 16px 24px; margin-top: 16px;
  overflow-x: auto; }
h2 { font-size: 17px; margin: 0 0 8px; } section p { color: var(--soft); margin: 4px 0 10px; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.yes { color: var(--good); font-weight: 600; white-space: nowrap; }
.no { color: var(--bad); font-weight: 600; white-space: nowrap; }
.open { color: var(--open); font-weight: 600; white-space: nowrap; } small { color: var(--soft); }
img { width: 100%; height: auto; } .columns { display: grid; gap: 0 40px; grid-template-columns: 1fr 1fr; }
@media (max-width: 760px) { .columns { grid-template-columns: 1fr; } }
"""
MARKS = {True: '<span class="yes">&#10003; holds</span>', False: '<span class="no">&#10007; fails</span>'}
NOT_JUDGED = '<span class="open">not judged</span>'
EXAMPLES_SHOWN, FAULTS_SHOWN = 12, 200


class Html(str):
    """Text that is HTML already and is not escaped again."""


def page(report: Mapping[str, Any], picture: bytes | None) -> str:
    """The whole page; `picture` is a PNG."""
    parts = [
        _head(report),
        _criteria(report),
        _picture(picture),
        _faults(report),
        _columns(_statuses(report), _ledger(report)),
        _latency(report),
        _memory(report),
        _examples(report),
        _run(report),
    ]
    title = f"Soak {escape(report['began'][:16])}: {escape(report['verdict'])}"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{meta}<title>{title}</title><style>{STYLE}</style></head>"
    return f'<!doctype html>\n<html lang="en">{head}<body><main>{"".join(parts)}</main></body></html>\n'


def _head(report: Mapping[str, Any]) -> str:
    recognition, minutes = report["recognition"], report["seconds"] / 60
    faults = f", {len(report['faults'])} faults" if "faults" in report else ""
    done = f"{recognition['requests']:,} requests in {minutes:,.1f} minutes, {report['concurrency']} clients{faults}"
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in report["reasons"])
    verdict = report["verdict"]
    why = f"<ul>{reasons}</ul>" if reasons else ""
    began = escape(report["began"].replace("T", " "))
    return f'<header class="{verdict}"><h1>{verdict.upper()}</h1><p>{done}. Began {began}.</p>{why}</header>'


def _criteria(report: Mapping[str, Any]) -> str:
    rows = [
        (each["name"], each["figure"], each["limit"], Html(MARKS.get(each["holds"], NOT_JUDGED)), each["note"])
        for each in report.get("criteria", ())
    ]
    return _section("What was asked", _table(("criterion", "measured", "limit", "", ""), rows))


def _picture(picture: bytes | None) -> str:
    if picture is None:
        return ""
    data = base64.b64encode(picture).decode()
    return _section("Over time", f'<img alt="memory, latency, requests and faults" src="data:image/png;base64,{data}">')


def _faults(report: Mapping[str, Any]) -> str:
    if "faults" not in report:
        return ""
    rows, faults = [], report["faults"]
    shown_faults = sorted(sorted(faults, key=_slowness)[-FAULTS_SHOWN:], key=lambda fault: fault["at"])
    for fault in shown_faults:
        recovery = fault["recovery_seconds"]
        is_good = recovery is not None and recovery <= fault["recovery_limit_seconds"]
        shown = "never" if recovery is None else f"{recovery:.1f} s"
        excused = ", ".join(f"{number} x {what}" for what, number in fault["excused"].items()) or "no request failed"
        mark = Html(f'<span class="{"yes" if is_good else "no"}">{shown}</span>')
        limit = f"{fault['recovery_limit_seconds']:g} s"
        rows.append((_clock(fault["at"]), fault["kind"], fault["said"], mark, limit, excused))
    intro = (
        "While a fault lasts and for a stated time after it, 503, 504 and clean connection errors are excused, wrong "
        "answers never. Recovered is the first good answer to a request that began after the last trouble, and not "
        "before killed processes are back."
    )
    if len(faults) > FAULTS_SHOWN:
        intro += f" Of {len(faults):,} faults the {FAULTS_SHOWN} with the longest recoveries are shown."
    left_out = "".join(f"<p>Left out: {escape(k)} ({escape(w)}).</p>" for k, w in report["faults_left_out"].items())
    head = ("at", "fault", "done to", "recovery", "limit", "what clients saw")
    return _section("Faults", f"<p>{intro}</p>{_table(head, rows)}{left_out}")


def _slowness(fault: Mapping[str, Any]) -> float:
    recovery = fault["recovery_seconds"]
    return float("inf") if recovery is None else float(recovery)


def _statuses(report: Mapping[str, Any]) -> str:
    counted: Counter[str] = Counter()
    for _, status, number in report.get("statuses", ()):
        counted[status] += number
    if not counted:
        names = {"right": "right", "bad_inputs_refused": "bad inputs refused", "busy": "busy"}
        counted.update({label: report["recognition"][name] for name, label in names.items()})
        counted.update(report["recognition"]["errors"])
    rows = [(status, f"{number:,}") for status, number in counted.most_common()]
    return _section("Answers", _table(("status", "number"), rows, numbers=1))


def _ledger(report: Mapping[str, Any]) -> str:
    ledger = report.get("ledger")
    if not ledger:
        return ""
    names = {
        "enrolments_acknowledged": "enrolments acknowledged",
        "deletions_acknowledged": "deletions acknowledged",
        "retried": "sent more than once, with the same Idempotency-Key",
        "unanswered": "never answered",
        "enrolled_at_the_end": "enrolled at the end: all looked at, face by face",
    }
    rows = [(label, f"{ledger[name]:,}") for name, label in names.items()]
    rows += [(f"{kind}: {name}", said) for kind, name, said in ledger["findings"]]
    return _section("The ledger", _table(("", "number"), rows, numbers=1))


def _latency(report: Mapping[str, Any]) -> str:
    names = ("p50_ms", "p95_ms", "p99_ms", "longest_ms")
    rows = [
        (action, f"{row['answers']:,}", *(f"{row[name] or 0:,.0f}" for name in names))
        for action, row in report.get("latency", {}).items()
    ]
    if not rows:
        row = report["performance"]
        rows = [("recognise", f"{report['recognition']['right']:,}", *(f"{row[name] or 0:,.0f}" for name in names))]
    head = ("good answers to", "number", "p50, ms", "p95, ms", "p99, ms", "longest, ms")
    rate = f"<p>{report['performance']['recognised_per_second']:,.1f} photos recognised a second.</p>"
    return _section("Time to answer", rate + _table(head, rows, numbers=5))


def _memory(report: Mapping[str, Any]) -> str:
    rows = [
        (kind, str(row["processes"]), str(row["replaced"]), f"{row['first_mb']:,.0f}", f"{row['last_mb']:,.0f}")
        for kind, row in report["memory"].items()
    ]
    counted = [(what, "", "", f"{row['first']:,.0f}", f"{row['last']:,.0f}") for what, row in report["counts"].items()]
    seen = f"<p>Second half of the run. {escape(report['processes_seen_by'])}.</p>"
    if slope := report.get("slope"):
        limits = f"{slope['value']:+.2f} MB per 1,000 requests, 95 % limits {slope['low']:+.2f} to {slope['high']:+.2f}"
        words = (
            f"Slope of the workers' memory: {limits}, from {slope['lives']} processes over {slope['requests']:,} "
            "requests. Only processes that lived through the second half count, of which the faults spare the oldest: "
            "a new one grows until it has met its largest photo. Each has a level of its own, all share one slope."
        )
        seen += f"<p>{words}</p>"
    head = ("in MB, or a number", "processes", "replaced", "at first", "at last")
    return _section("Memory, threads, files, connections", seen + _table(head, rows + counted, numbers=4))


def _examples(report: Mapping[str, Any]) -> str:
    examples = report["recognition"]["error_examples"][:EXAMPLES_SHOWN]
    if not examples:
        return ""
    rows = [(_clock(e["after_seconds"]), e["what"], e["request_id"], f"{e['photo']} {e['said']}") for e in examples]
    return _section("What went wrong, for example", _table(("at", "what", "request", "said"), rows))


def _run(report: Mapping[str, Any]) -> str:
    facts = {
        name: report.get(name) for name in ("url", "server", "seed", "people", "photos", "newcomers", "odd_images")
    }
    facts |= report.get("machine", {})
    rows = [(name.replace("_", " "), str(value)) for name, value in facts.items() if value is not None]
    return _section("The run and the machine", _table(("", ""), rows))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _columns(*sections: str) -> str:
    return f'<div class="columns">{"".join(sections)}</div>' if all(sections) else "".join(sections)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table; its last `numbers` columns are numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="n"' if len(cells) - number <= numbers else "" for number in range(len(cells))]
        shown = [cell if isinstance(cell, Html) else escape(cell) for cell in cells]
        cells_html = "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, shown, strict=True))
        return f"<tr>{cells_html}</tr>"

    return f"<table>{line(head, 'th') if any(head) else ''}{''.join(line(row, 'td') for row in rows)}</table>"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
