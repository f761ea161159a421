"""`recognizer audit` and `recognizer retention`: what they print, leave and answer the shell."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from recognizer.cli import main
from recognizer.deadline import Deadline
from recognizer.faces import NewFace
from recognizer.gallery import audit
from recognizer.gallery.chain import Head
from recognizer.gallery.store import Gallery

NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]
Run = Callable[..., Result]

START_ANEW = """
    ALTER TABLE audit DISABLE TRIGGER keep;
    TRUNCATE audit;
    ALTER TABLE audit ENABLE TRIGGER keep;
    UPDATE audit_head SET number = 0, hash = decode(repeat('00', 32), 'hex')
"""
CUT = """
    ALTER TABLE audit DISABLE TRIGGER keep;
    DELETE FROM audit WHERE number > 2;
    ALTER TABLE audit ENABLE TRIGGER keep;
    UPDATE audit_head SET number = 2, hash = (SELECT hash FROM audit WHERE number = 2)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(database_url: str, folder: Path, sql: Sql) -> Run:
    """Runs a command on the tests' database, whose trail is empty, and a data directory of the test's own."""
    sql(START_ANEW)

    def do(*arguments: str) -> Result:
        environment = {"RECOGNIZER_DATABASE_URL": database_url}
        return CliRunner().invoke(main, [*arguments, "--data-dir", str(folder)], env=environment)

    return do


@pytest.fixture
def people(run: Run, gallery: Gallery, new_face: NewFaces, sql: Sql) -> dict[str, str]:
    """Entries 1 to 3: a collection, Ada, whose photo is 40 days old, and Grace."""
    gallery.create_collection("Visitors", {}, Deadline(60))
    ids = {}
    with audit.acting("4b78033e945a5367", "request-1"):
        for name in ("Ada", "Grace"):
            done = gallery.enrol("visitors", [new_face()], name=name, deadline=Deadline(60))
            ids[name] = done.person_id
    sql(f"UPDATE faces SET created_at = now() - interval '40 days' WHERE person_id = '{ids['Ada']}'")
    return ids


@pytest.mark.usefixtures("people")
def test_a_whole_trail_is_told_with_its_head_which_is_kept(run: Run, folder: Path, sql: Sql) -> None:
    ((digest, first, last),) = sql(
        "SELECT encode(hash, 'hex'), (SELECT min(at) FROM audit), at FROM audit WHERE number = 3"
    )
    told = run("audit", "verify")
    assert (told.exit_code, told.stderr) == (0, "")
    times = f"from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"
    assert told.stdout == f"The audit trail is whole: 3 entries, {times}.\nHead: 3:{digest}\n"
    file = folder / "audit-head"
    assert file.read_text() == f"3:{digest}\n"
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o077 in (0, 0o010)
    assert run("audit", "verify").exit_code == 0


def test_an_empty_trail_is_whole(run: Run, folder: Path) -> None:
    told = run("audit", "verify")
    assert (told.exit_code, told.stdout) == (0, f"The audit trail is whole: 0 entries.\nHead: 0:{'0' * 64}\n")
    assert run("audit", "verify").exit_code == 0


@pytest.mark.usefixtures("people")
def test_a_trail_that_was_cut_off_is_seen_by_the_kept_head(run: Run, folder: Path, sql: Sql) -> None:
    head = run("audit", "verify").stdout.split("Head: ")[1].strip()
    sql(CUT)
    for _ in range(2):
        told = run("audit", "verify")
        assert (told.exit_code, told.stdout) == (1, "")
        assert told.stderr.startswith(f"Error: Entry 3 is missing: by {folder / 'audit-head'} there were 3.")
        assert told.stderr.endswith("If you have restored an older backup, --accept takes the trail as it is now.\n")
    assert (folder / "audit-head").read_text() == f"{head}\n", "what is wrong is not taken over"
    with_another = run("audit", "verify", "--accept", "--head", head)
    assert with_another.exit_code == 1
    assert "Entry 3 is missing: by --head there were 3." in with_another.stderr
    assert run("audit", "verify", "--accept").stdout.startswith("The audit trail is whole: 2 entries")
    assert run("audit", "verify").exit_code == 0


@pytest.mark.usefixtures("people")
def test_what_is_wrong_in_itself_is_not_accepted(run: Run, folder: Path, sql: Sql) -> None:
    sql("ALTER TABLE audit DISABLE TRIGGER keep; UPDATE audit SET actor = 'x' WHERE number = 2")
    sql("ALTER TABLE audit ENABLE TRIGGER keep")
    for options in ((), ("--accept",)):
        told = run("audit", "verify", *options)
        assert (told.exit_code, told.stdout) == (1, "")
        assert told.stderr.startswith("Error: Entry 2 is not as it was written: it was changed or put in, or another")
        assert told.stderr.count("\n") == 1
    assert not (folder / "audit-head").exists()


@pytest.mark.parametrize("content", [b"", b"3:abc", b"\xff\xfe", b"rubbish" * 1000])
@pytest.mark.usefixtures("people")
def test_a_damaged_head_is_told_of(run: Run, folder: Path, content: bytes) -> None:
    run("audit", "verify")
    (folder / "audit-head").write_bytes(content)
    told = run("audit", "verify")
    assert (told.exit_code, told.stderr.count("\n")) == (1, 1)
    assert told.stderr.endswith("cannot be read or holds no head; --accept replaces it.\n")
    assert run("audit", "verify", "--accept").exit_code == 0
    Head.read((folder / "audit-head").read_text())
    wrong = run("audit", "verify", "--head", "3")
    assert (wrong.exit_code, wrong.stderr) == (
        1,
        "Error: A head of the audit trail is written NUMBER:HASH, as `recognizer audit verify` does.\n",
    )


def test_entries_are_listed_and_written_out(run: Run, people: dict[str, str]) -> None:
    subject = hashlib.sha256(people["Grace"].encode()).hexdigest()
    listed = run("audit", "list", "--person", people["Grace"])
    (line,) = listed.stdout.splitlines()
    assert line.split()[:1] + line.split()[3:] == [
        *["3", "4b78033e945a5367", "enrolled", "Visitors", subject[:16], '{"faces":', "1}"]
    ]
    assert len(run("audit", "list", "--limit", "2").stdout.splitlines()) == 2
    entries = [json.loads(line) for line in run("audit", "export").stdout.splitlines()]
    assert [entry["number"] for entry in entries] == [1, 2, 3]
    before = bytes(32)
    for entry in entries:  # as docs/adr/0016 says, by anybody
        members = ("number", "at", "actor", "action", "collection", "subject", "detail", "request_id")
        before = hashlib.sha256(before + json.dumps([entry[member] for member in members]).encode()).digest()
        assert entry["hash"] == before.hex()
    assert (entries[2]["subject"], entries[2]["request_id"]) == (subject, "request-1")
    rows = list(csv.DictReader(io.StringIO(run("audit", "export", "--csv", "--action", "enrolled").stdout)))
    assert [(row["number"], row["subject"]) for row in rows][1] == ("3", subject)
    assert run("audit", "list", "--since", "2100-01-01").stdout == ""
    assert len(run("audit", "list", "--until", "2100-01-01T00:00:00").stdout.splitlines()) == 3
    assert run("audit", "list", "--person", "Ada").exit_code == 1


def test_a_spreadsheet_computes_nothing_of_the_csv_and_the_json_is_exact(run: Run, gallery: Gallery) -> None:
    gallery.create_collection("=1+1", {}, Deadline(60))
    (row,) = csv.DictReader(io.StringIO(run("audit", "export", "--csv").stdout))
    assert (row["action"], row["collection"]) == ("collection_created", "'=1+1")
    assert json.loads(run("audit", "export").stdout)["collection"] == "=1+1"


def test_commands_are_named_in_the_trail(run: Run, sql: Sql) -> None:
    assert run("keys", "create", "--label", "Grace").exit_code == 0
    assert sql("SELECT actor, action FROM audit") == [("recognizer keys", "key_created")]


def test_a_dry_run_lists_and_the_other_erases(run: Run, people: dict[str, str], gallery: Gallery, sql: Sql) -> None:
    nobody = run("retention")
    assert nobody.stdout == "No collection keeps people for a limited time; set `retention_days` of one.\n"
    ((latest,),) = sql(f"SELECT created_at FROM faces WHERE person_id = '{people['Ada']}'")
    tried = run("retention", "--dry-run", "--collection", "VISITORS", "--days", "7")
    ada = f"{people['Ada']}  Ada  last photo {latest:%Y-%m-%d}  33 days over"
    assert tried.stdout == f"{ada}\nVisitors: 1 person would be erased.\n"
    assert run("retention", "--days", "7").exit_code == 2
    gallery.change_collection("visitors", {"retention_days": 30}, Deadline(60))
    assert run("retention", "--dry-run").stdout.splitlines()[0] == ada.replace("33 days", "10 days")
    assert len(gallery.people("visitors", deadline=Deadline(60))[0]) == 2
    assert run("retention").stdout == "Visitors: 1 person erased.\n"
    assert [person.name for person in gallery.people("visitors", deadline=Deadline(60))[0]] == ["Grace"]
    assert sql("SELECT actor FROM audit WHERE action = 'expired'") == [("recognizer retention",)]
    unknown = run("retention", "--collection", "nowhere")
    assert (unknown.exit_code, unknown.stderr) == (1, "Error: There is no collection `nowhere`.\n")
