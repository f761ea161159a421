"""The picture and the page of a report: complete, self-contained, and nothing in it is taken for HTML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from soak.faultlog import Fault
from soak.files import show
from soak.page import page
from soak.verdict import criteria


def report(**changed: Any) -> dict[str, Any]:
    """A report of a minute with two faults."""
    killed = Fault(1, "worker killed", 110.0, 110.0, "process 7", back=110.5, last_trouble=110.2, recovered=111.0)
    lasting = Fault(2, "PostgreSQL frozen", 130.0, 133.0, "12 processes", back=133.0, recovered=133.2)
    outcomes = {"right": 90, "wrong: wrong person": 1}
    worker = {"pid": 7, "kind": "workers", "memory_mb": 300.0, "threads": 5, "files": 20}
    moment = {"requests": 9, "errors": 0, "busy": 0, "excused": 1, "p50_ms": 100.0, "p99_ms": None}
    row = {"processes": 2, "replaced": 1, "first_mb": 1.0, "last_mb": 2.0}
    made = {
        "verdict": "failed",
        "reasons": ["Wrong answers: 1, allowed is 0 (<b>somebody</b> else)."],
        "began": "2026-01-02T03:04:05+0000",
        "seconds": 60.0,
        "url": "http://127.0.0.1:1",
        "server": "gunicorn",
        "concurrency": 4,
        "processes_seen_by": "RSS",
        "criteria": [each.as_json() for each in criteria(outcomes, [], [killed, lasting], None, 3)],
        "faults": [fault.as_json(100.0) for fault in (killed, lasting)],
        "faults_left_out": {"settings reloaded": "it stops"},
        "recognition": {
            "requests": 91,
            "right": 90,
            "bad_inputs_refused": 0,
            "busy": 0,
            "error_examples": [],
            "errors": {"wrong: wrong person": 1},
        },
        "performance": {"recognised_per_second": 1.5, "p50_ms": 1, "p95_ms": 2, "p99_ms": 3, "longest_ms": 4},
        "memory": {"workers": row},
        "counts": {"threads": {"first": 5, "last": 5, "leak": False}},
        "slope": None,
        "machine": {"cores": 2},
        "timeline": [{"at": float(at), **moment} for at in range(5)],
        "samples": [{"at": float(at), "processes": [worker], "connections": 1} for at in range(5)],
        "statuses": [["recognise", "200", 90], ["look", "200", 5]],
    }
    return made | changed


def test_the_verdict_comes_first_and_each_criterion_has_its_figure() -> None:
    html = page(report(), None)
    body = html.partition("<body>")[2]
    assert re.sub("<[^>]+>", " ", body).split()[0] == "FAILED"
    assert body.index("Wrong answers") < body.index("Recovery: worker killed") < body.index("process 7")
    assert body.count("&#10007; fails") == 1
    assert "not judged" in body
    assert "settings reloaded (it stops)" in body


def test_what_was_said_is_text_and_no_html() -> None:
    assert "<b>somebody" not in page(report(), None)


@pytest.mark.parametrize("faults", [True, False])
def test_page_and_picture_are_made_with_faults_and_without(faults: bool, tmp_path: Path) -> None:
    made = report()
    for name in () if faults else ("faults", "faults_left_out", "statuses", "slope"):
        del made[name]
    assert show(made, tmp_path / "soak.json") == []
    html = (tmp_path / "soak.html").read_text()
    assert html.count("data:image/png;base64,") == 1
    assert not re.search(r'(src|href)="(?!data:)|@import|url\(', html)
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert ("what clients saw" in html) == faults


def test_of_very_many_faults_the_longest_recoveries_are_shown() -> None:
    faults = report()["faults"][:1] * 500
    late = faults[0] | {"said": "the slow one", "recovery_seconds": 2.9}
    html = page(report(faults=[*faults, late, *faults]), None)
    assert html.count("process 7") < 300
    assert "the slow one" in html
