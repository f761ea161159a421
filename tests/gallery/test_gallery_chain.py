"""Whatever the owner of the table does to the audit trail, the chain shows it; what an anchor is for, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
import pytest

from recognizer.deadline import Deadline
from recognizer.errors import InvalidRequest
from recognizer.faces import NewFace
from recognizer.gallery import audit, chain
from recognizer.gallery.chain import EMPTY, Anchor, Head, Verdict
from recognizer.gallery.migrate import migrate
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery
from recognizer.gallery.trail import Trail, TrailQuery

NewFaces = Callable[..., NewFace]
Sql = Callable[[str], list[tuple[Any, ...]]]

OPEN = "ALTER TABLE audit DISABLE TRIGGER keep; "
CLOSE = "; ALTER TABLE audit ENABLE TRIGGER keep"
START_ANEW = "TRUNCATE audit; UPDATE audit_head SET number = 0, hash = decode(repeat('00', 32), 'hex')"

WITHOUT_RULES = """
    ALTER TABLE audit DROP CONSTRAINT IF EXISTS audit_pkey;
    ALTER TABLE audit DROP CONSTRAINT IF EXISTS audit_number_check;
    ALTER TABLE audit DROP CONSTRAINT IF EXISTS audit_subject_check;
    ALTER TABLE audit DROP CONSTRAINT IF EXISTS audit_hash_check;
    ALTER TABLE audit ALTER at DROP NOT NULL, ALTER actor DROP NOT NULL, ALTER action DROP NOT NULL,
                      ALTER detail DROP NOT NULL, ALTER hash DROP NOT NULL
"""

AS_20 = """
    INSERT INTO audit SELECT {number}, at, actor, action, collection, subject, detail, request_id, hash
    FROM audit WHERE number = 20
"""
CUT = "DELETE FROM audit WHERE number > 18"
CORRECT_HEAD = """
    UPDATE audit_head SET number = last.number, hash = last.hash
    FROM (SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1) AS last
"""

SWAP = """
    UPDATE audit SET number = -number WHERE number IN (7, 8);
    UPDATE audit SET number = CASE number WHEN -7 THEN 8 ELSE 7 END WHERE number < 0
"""
SHIFT = "UPDATE audit SET number = -number WHERE number > 7; UPDATE audit SET number = {} - number WHERE number < 0; "

TAMPERED = {
    "at": ("UPDATE audit SET at = at + interval '1 microsecond' WHERE number = 7", "Entry 7 is not as it was"),
    "actor": ("UPDATE audit SET actor = 'somebody' WHERE number = 7", "Entry 7 is not as it was"),
    "action": ("UPDATE audit SET action = 'listed' WHERE number = 7", "Entry 7 is not as it was"),
    "collection": ("UPDATE audit SET collection = NULL WHERE number = 7", "Entry 7 is not as it was"),
    "subject": ("UPDATE audit SET subject = sha256('x') WHERE number = 7", "Entry 7 is not as it was"),
    "no subject": ("UPDATE audit SET subject = NULL WHERE number = 7", "Entry 7 is not as it was"),
    "detail": ("UPDATE audit SET detail = '{\"faces\": 2}' WHERE number = 7", "Entry 7 is not as it was"),
    "detail's spaces": ("UPDATE audit SET detail = replace(detail, ' ', '') WHERE number = 7", "Entry 7 is not as it"),
    "request_id": ("UPDATE audit SET request_id = 'another' WHERE number = 7", "Entry 7 is not as it was"),
    "hash": ("UPDATE audit SET hash = sha256('x') WHERE number = 7", "Entry 7 is not as it was"),
    "first": ("UPDATE audit SET actor = 'somebody' WHERE number = 1", "Entry 1 is not as it was"),
    "last": ("UPDATE audit SET actor = 'somebody' WHERE number = 20", "Entry 20 is not as it was"),
    "taken out": ("DELETE FROM audit WHERE number = 7", "Entry 7 is missing; the next one is 8."),
    "first taken out": ("DELETE FROM audit WHERE number = 1", "Entry 1 is missing; the next one is 2."),
    "many taken out": ("DELETE FROM audit WHERE number BETWEEN 3 AND 12", "Entry 3 is missing; the next one is 13."),
    "taken out, closed up": (
        f"DELETE FROM audit WHERE number = 7; {SHIFT.format(-1)} {CORRECT_HEAD}",
        "Entry 7 is not as it was",
    ),
    "put in": (f"{SHIFT.format(1)} {AS_20.format(number=8).replace('= 20', '= 21')}", "Entry 8 is not as it was"),
    "swapped": (SWAP, "Entry 7 is not as it was"),
    "cut off": (CUT, "Entry 19 is missing: the trail was cut off there, 20 was its last entry."),
    "all taken out": ("DELETE FROM audit", "Entry 1 is missing: the trail was cut off there"),
    "added": (AS_20.format(number=21), "Entry 21 was put in: the last one that was written is 20."),
    "added with the head": (f"{AS_20.format(number=21)}; {CORRECT_HEAD}", "Entry 21 is not as it was"),
    "added far away": (AS_20.format(number=2**62), "was put in: the last one that was written is 20."),
    "before the first": (AS_20.format(number=0), "Entry 0 was put in: numbers begin with 1."),
    "twice": (AS_20.format(number=20), "There is a second entry 20."),
    "no time": ("UPDATE audit SET at = NULL WHERE number = 7", "Entry 7 is not as it was"),
    "no time of ours": ("UPDATE audit SET at = 'infinity' WHERE number = 7", "Entry 7 is not as it was"),
    "no hash": ("UPDATE audit SET hash = NULL WHERE number = 7", "Entry 7 is not as it was"),
    "no detail": ("UPDATE audit SET detail = NULL WHERE number = 7", "Entry 7 is not as it was"),
    "empty subject": ("UPDATE audit SET subject = '' WHERE number = 8", "Entry 8 is not as it was"),
    "head's number": ("UPDATE audit_head SET number = 19", "The table audit_head has another hash than its entry 19."),
    "head's hash": ("UPDATE audit_head SET hash = sha256('x')", "The table audit_head has another hash than its entry"),
    "head far away": (
        "UPDATE audit_head SET number = 4611686018427387904",
        "Entry 21 is missing: the trail was cut off",
    ),
    "no head": ("DELETE FROM audit_head", "The table audit_head has 0 rows instead of one"),
}


@pytest.fixture
def trail(empty_url: str, pool: Pool, new_face: NewFaces) -> Gallery:
    """Twenty entries, in a database of the test's own: every even one has no subject."""
    migrate(empty_url, 30)
    gallery = Gallery(pool)
    with audit.acting("4b78033e945a5367", "request"):
        for number in range(10):
            gallery.enrol("default", [new_face()], name=f"Person {number}", deadline=Deadline(60))
            gallery.people("default", deadline=Deadline(60))
    return gallery


def verify(pool: Pool, *anchors: Anchor) -> Verdict:
    return chain.verify(pool, anchors, lambda done, of: None)


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "AT_A_TIME", 6)  # so that there are borders


@pytest.mark.usefixtures("trail")
def test_a_trail_is_whole_and_its_head_is_told(pool: Pool, sql: Sql) -> None:
    steps: list[tuple[int, int]] = []
    verdict = chain.verify(pool, [], lambda done, of: steps.append((done, of)))
    assert verdict.fault is None
    assert [(verdict.head.number, verdict.head.hash.hex())] == sql("SELECT number, encode(hash, 'hex') FROM audit_head")
    assert [(verdict.first, verdict.last)] == sql("SELECT min(at), max(at) FROM audit")
    assert steps == [(6, 20), (12, 20), (18, 20), (20, 20)]
    assert Head.read(f" {verdict.head}\n") == verdict.head


def test_an_empty_trail_is_whole(pool: Pool, sql: Sql) -> None:
    sql(f"{OPEN}{START_ANEW}{CLOSE}")
    assert verify(pool) == Verdict(EMPTY)
    assert verify(pool, Anchor(EMPTY, "the file")).fault is None
    assert "Entry 1 is missing" in str(verify(pool, Anchor(Head(1, bytes(32)), "the file")).fault)
    assert "Entry 0 is another one" in str(verify(pool, Anchor(Head(0, b"x" * 32), "the file")).fault)


@pytest.mark.usefixtures("trail")
def test_nothing_is_done_to_it_by_the_way(sql: Sql) -> None:
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(psycopg2.errors.RaiseException, match="only ever added to"):
            sql(statement)


@pytest.mark.usefixtures("trail")
def test_every_tampering_is_found_and_the_first_wrong_entry_is_named(pool: Pool, sql: Sql) -> None:
    sql(WITHOUT_RULES)
    sql("CREATE TABLE kept AS TABLE audit; CREATE TABLE kept_head AS TABLE audit_head")
    for what, (tampering, fault) in TAMPERED.items():
        sql(f"{OPEN}{tampering}{CLOSE}")
        verdict = verify(pool)
        assert fault in str(verdict.fault), what
        assert not verdict.is_of_anchor, what
        sql(
            f"{OPEN} TRUNCATE audit; INSERT INTO audit TABLE kept; DELETE FROM audit_head;"
            f" INSERT INTO audit_head TABLE kept_head {CLOSE}"
        )
        assert verify(pool).fault is None, f"{what}: mended"


@pytest.mark.usefixtures("trail")
def test_a_cut_with_a_corrected_head_is_seen_by_an_anchor_alone(pool: Pool, sql: Sql) -> None:
    anchor = Anchor(verify(pool).head, "the file")
    sql(f"{OPEN}{CUT}; {CORRECT_HEAD}{CLOSE}")
    assert verify(pool).fault is None
    verdict = verify(pool, anchor)
    assert verdict.is_of_anchor
    assert str(verdict.fault).startswith("Entry 19 is missing: by the file there were 20. The trail was cut off, or")


def test_a_chain_that_was_made_anew_is_seen_by_an_anchor_alone(
    trail: Gallery, pool: Pool, sql: Sql, new_face: NewFaces
) -> None:
    anchor = Anchor(verify(pool).head, "the file")
    entries = [kept.entry for kept in Trail(pool).entries(TrailQuery(), 30)]
    sql(f"{OPEN}{START_ANEW}{CLOSE}")
    with pool.connection() as connection, connection.cursor() as cursor:
        before = bytes(32)
        for entry in entries:  # as they were, but for one of them
            new = entry._replace(actor="somebody else") if entry.number == 7 else entry
            before, stored = new.hash(before), before
            assert stored != before
            cursor.execute(audit.APPEND, {**new._asdict(), "hash": before})
    trail.enrol("default", [new_face()], name="Zoe", deadline=Deadline(60))
    assert verify(pool).fault is None
    verdict = verify(pool, Anchor(verify(pool).head, "now"), anchor)
    assert verdict.is_of_anchor
    assert str(verdict.fault).startswith("Entry 20 is another one than the file says: the trail was made anew")
    assert verdict.head.number == 21


def test_an_earlier_head_holds_for_the_trail_that_grew_from_it(trail: Gallery, pool: Pool, new_face: NewFaces) -> None:
    first = Anchor(verify(pool).head, "the file")
    trail.enrol("default", [new_face()], name="Zoe", deadline=Deadline(60))
    second = Anchor(verify(pool).head, "--head")
    trail.people("default", deadline=Deadline(60))
    verdict = verify(pool, first, second)
    assert (verdict.fault, verdict.head.number) == (None, 22)


def test_entries_that_are_added_meanwhile_are_no_fault(trail: Gallery, pool: Pool) -> None:
    verdict = chain.verify(pool, [], lambda done, of: trail.people("default", deadline=Deadline(60)) and None)
    assert (verdict.fault, verdict.head.number) == (None, 20)


@pytest.mark.parametrize(
    "text", ["", "20", "20:", f"-1:{'0' * 64}", f"20:{'0' * 63}", f"x:{'0' * 64}", f"20:{'G' * 64}"]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="NUMBER:HASH"):
        Head.read(text)
