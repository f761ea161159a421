"""What takes half a minute or more, nearly all of it waiting: all of it goes on beside the tests of this file.

One test alone takes as long as all of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from soak_stub import SCRIPT, command, made_checkout, report, running_stub
from system_calls import ROOT, Service, recognize

LIMIT_SECONDS = 160
ILL = {"keeps memory": "memory of the workers keeps growing", "dies": "the service stopped answering"}
"""What is wrong with a service that is found out late, and what is said of it."""


class Run(NamedTuple):
    """The soak script at work in a folder, which holds what it leaves and, as `said`, what it prints."""

    folder: Path
    process: subprocess.Popen[bytes]

    def said(self) -> str:
        """Everything, when it has ended."""
        self.process.wait(LIMIT_SECONDS)
        return (self.folder / "said").read_text()


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """The runs of the soak script, by what is wrong with the service."""
    with ExitStack() as closing:

        def begin(folder: Path, where: Path, arguments: list[str]) -> Run:
            said = closing.enter_context((folder / "said").open("wb"))
            process = closing.enter_context(subprocess.Popen(arguments, cwd=where, stdout=said, stderr=said))
            closing.callback(process.terminate)
            return Run(folder, process)

        siege = tmp_path_factory.mktemp("siege")
        options = ("--faults", "--minutes", "0.6", "--seed", "5", "--report", str(siege / "soak.json"))
        begun = {"faults": begin(siege, ROOT, [sys.executable, str(SCRIPT), *options])}
        for behaviour in ILL:
            checkout = made_checkout(tmp_path_factory.mktemp(behaviour.replace(" ", "-")))
            url = closing.enter_context(running_stub(checkout, behaviour))
            options = ("--photos", "photos", "--minutes", "0.5", "--url", url)
            begun[behaviour] = begin(checkout, checkout, command(*options))
        yield begun


def test_a_worker_beyond_its_memory_budget_is_replaced_and_no_request_fails(own_service: Service, photos: Path) -> None:
    own_service.start(RECOGNIZER_WORKER_MEMORY_BYTES=str(128 * 2**20))  # less than the models need
    before = own_service.said().count("Booting worker")
    data = (photos / "obama.jpg").read_bytes()
    deadline = time.monotonic() + 120
    statuses = set()
    while own_service.said().count("Booting worker") < before + 2:
        assert time.monotonic() < deadline, own_service.said()
        statuses.add(recognize(own_service.url, data).status_code)
        time.sleep(0.02)
    assert statuses == {200}
    assert "is replaced" in own_service.said()
    assert recognize(own_service.url, data).status_code == 200


@pytest.mark.parametrize("behaviour", ILL)
def test_what_is_wrong_is_said_in_one_sentence(runs: dict[str, Run], behaviour: str) -> None:
    run = runs[behaviour]
    said = run.said()
    assert run.process.returncode == 1, said
    verdict = next(line for line in said.splitlines() if line.startswith("FAILED: "))
    assert ILL[behaviour] in verdict, said
    assert "Traceback" not in said
    assert report(run.folder)["verdict"] == "failed"


def test_the_real_service_is_right_while_things_are_broken(runs: dict[str, Run]) -> None:
    """Correctness is judged here, never seconds: on a busy machine a recovery may take longer than it should."""
    run = runs["faults"]
    said, report_path = run.said(), run.folder / "soak.json"
    seen = json.loads(report_path.read_text())
    criteria = {each["name"]: each["holds"] for each in seen["criteria"]}
    asked = ("Wrong answers", "Lost, doubled or half enrolments, deletions undone", "Hangs", "Something was done")
    assert all(criteria[name] for name in asked), said
    assert criteria["Unexpected statuses and broken connections"], said
    assert len({fault["kind"] for fault in seen["faults"]}) >= 4
    assert seen["ledger"]["enrolments_acknowledged"] > seen["ledger"]["deletions_acknowledged"] > 0
    passed = all(holds is not False for holds in criteria.values())
    assert (run.process.returncode == 0) == (seen["verdict"] == "passed") == passed
    page = report_path.with_suffix(".html").read_text()
    assert seen["verdict"].upper() in page
    assert "data:image/png;base64," in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "worker killed" in page
