"""API keys: made, shown once, checked, rotated, revoked, expired."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from database_proxy import Proxy

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound, Conflict, DeadlineExceeded, InvalidRequest, KeyNotFound
from recognizer.gallery.key_uses import KeyUses
from recognizer.gallery.keys import SCOPES, Keys
from recognizer.gallery.pool import Pool

Sql = Callable[[str], list[tuple[object, ...]]]


@pytest.fixture
def keys(pool: Pool) -> Keys:
    return Keys(pool)


def test_a_key_is_shown_once_and_verified_ever_after(keys: Keys) -> None:
    record, key = keys.create(scopes=["recognize"], label="door")
    assert re.fullmatch(r"rk_[0-9a-f]{16}_[0-9a-f]{64}", key)
    assert keys.verify(key) == record
    assert (record.scopes, record.collection, record.label, record.revoked_at) == (("recognize",), None, "door", None)
    assert key.split("_")[2] not in repr(keys.list())


def test_only_the_hash_of_the_secret_is_stored(keys: Keys, sql: Sql) -> None:
    _, key = keys.create(scopes=SCOPES)
    secret = key.split("_")[2]
    stored = str(sql("SELECT to_jsonb(api_keys)::text FROM api_keys"))
    assert secret not in stored
    assert hashlib.sha256(secret.encode()).hexdigest() in stored


def test_keys_differ(keys: Keys) -> None:
    assert len({keys.create(scopes=["admin"])[1] for _ in range(5)}) == 5


def test_wrong_keys_are_not_valid(keys: Keys) -> None:
    record, key = keys.create(scopes=["recognize"])
    _, other = keys.create(scopes=["recognize"])
    wrong = [
        "",
        "rk_",
        key[:-1],
        key + "0",
        key + "\n",
        key.upper(),
        f" {key}",
        f"rk_{record.id}_{'0' * 64}",
        f"rk_{record.id}_{other.split('_')[2]}",
        f"rk_{'0' * 16}_{key.split('_')[2]}",
        "x\x00",
        "ключ",
        "\ud800",
    ]
    assert [presented for presented in wrong if keys.verify(presented)] == []


def test_a_revoked_key_is_not_valid_and_stays_listed(keys: Keys) -> None:
    record, key = keys.create(scopes=["recognize"])
    keys.revoke(record.id)
    assert keys.verify(key) is None
    [revoked] = keys.list()
    assert revoked.revoked_at is not None
    keys.revoke(record.id)
    assert keys.list() == [revoked], "revoking again changes nothing"
    with pytest.raises(KeyNotFound):
        keys.revoke("0" * 16)


def test_whether_any_key_is_active(keys: Keys) -> None:
    assert not keys.any_active()
    record, _ = keys.create(scopes=["recognize"])
    assert keys.any_active()
    keys.revoke(record.id)
    assert not keys.any_active()


def test_admin_includes_the_other_scopes(keys: Keys) -> None:
    admin, _ = keys.create(scopes=["admin"])
    enroll, _ = keys.create(scopes=["enroll"])
    assert all(admin.allows(scope) for scope in SCOPES)
    assert [scope for scope in SCOPES if enroll.allows(scope)] == ["enroll"]


@pytest.mark.parametrize("scopes", [[], ["root"], ["recognize", "everything"], "admin"])
def test_impossible_scopes_are_refused(keys: Keys, scopes: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        keys.create(scopes=scopes)


def test_a_key_belongs_to_a_collection_that_exists(keys: Keys, sql: Sql) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    record, key = keys.create(scopes=["enroll", "recognize"], collection="VISITORS")
    assert record.collection == "Visitors"
    assert record.scopes == ("recognize", "enroll")
    assert keys.verify(key) == record
    with pytest.raises(CollectionNotFound):
        keys.create(scopes=["enroll"], collection="nowhere")


def test_keys_are_listed_oldest_first(keys: Keys) -> None:
    made = [keys.create(scopes=["recognize"], label=f"key {number}")[0] for number in range(3)]
    assert keys.list() == made


def test_verifying_keeps_the_deadline(keys: Keys) -> None:
    _, key = keys.create(scopes=["recognize"])
    with pytest.raises(DeadlineExceeded):
        keys.verify(key, Deadline(0))


def soon(**ahead: float) -> datetime:
    return datetime.now(UTC) + timedelta(**ahead)


def test_a_key_expires_by_itself(keys: Keys, sql: Sql) -> None:
    record, key = keys.create(scopes=["recognize"], expires_at=soon(hours=1))
    found = keys.verify(key)
    assert found is not None
    assert (found.expires_at, found.is_valid) == (record.expires_at, True)
    sql("UPDATE api_keys SET expires_at = now()")
    assert keys.verify(key) is None
    assert not keys.any_active()
    assert [listed.is_valid for listed in keys.list()] == [False]


@pytest.mark.parametrize("ahead", [{"seconds": -1}, {"days": 3651}])
def test_an_impossible_end_is_refused_and_makes_nothing(keys: Keys, ahead: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="expires in the future"):
        keys.create(scopes=["recognize"], expires_at=soon(**ahead))
    assert keys.list() == []


def test_a_rotated_key_has_another_secret_and_is_the_same_otherwise(keys: Keys) -> None:
    record, old = keys.create(scopes=["recognize"], label="door", expires_at=soon(days=1))
    rotated, new = keys.rotate(record.id)
    assert (keys.verify(old), keys.verify(new)) == (None, rotated)
    assert rotated.rotated_at is not None
    assert replace(rotated, rotated_at=None) == record


def test_an_expired_key_is_rotated_with_a_new_end_only(keys: Keys, sql: Sql) -> None:
    record, old = keys.create(scopes=["recognize"], expires_at=soon(days=1))
    sql("UPDATE api_keys SET expires_at = now() - interval '1 s'")
    with pytest.raises(Conflict, match="expired"):
        keys.rotate(record.id)
    _, new = keys.rotate(record.id, expires_at=soon(days=2))
    assert keys.verify(new)
    assert keys.verify(old) is None


def test_a_revoked_key_is_never_rotated(keys: Keys, sql: Sql) -> None:
    record, _ = keys.create(scopes=["recognize"])
    keys.revoke(record.id)
    before = sql("SELECT * FROM api_keys")
    with pytest.raises(Conflict, match="revoked"):
        keys.rotate(record.id)
    assert sql("SELECT * FROM api_keys") == before


def test_within_a_collection_only_its_keys_are_there(keys: Keys, sql: Sql) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    general, _ = keys.create(scopes=["recognize"])
    other, _ = keys.create(scopes=["recognize"], collection="default")
    own, key = keys.create(scopes=["recognize"], collection="visitors")
    assert keys.list(collection="VISITORS") == [own]
    for foreign in (general, other):
        for change in (keys.rotate, keys.revoke):
            with pytest.raises(KeyNotFound):
                change(foreign.id, collection="visitors")
    assert keys.verify(key) == own
    assert all(record.is_valid for record in keys.list())
    assert keys.revoke(own.id, collection="Visitors").revoked_at is not None


def test_the_keys_of_a_deleted_collection_are_revoked_and_stay(keys: Keys, sql: Sql) -> None:
    sql("INSERT INTO collections (name, name_key) VALUES ('Visitors', 'visitors')")
    _, key = keys.create(scopes=["admin"], collection="visitors")
    sql("DELETE FROM collections WHERE name = 'Visitors'")
    assert keys.verify(key) is None
    assert keys.any_created(), "the service would be open to this machine again"
    assert [record.is_valid for record in keys.list()] == [False]


@pytest.mark.parametrize(
    "key_id", ["", "'; DROP TABLE api_keys; --", "0' OR '1'='1", "%", "A" * 16, "0" * 17, "\x00", "\ud800"]
)
def test_an_id_that_is_none_is_not_found(keys: Keys, key_id: str) -> None:
    keys.create(scopes=["recognize"])
    for change in (keys.rotate, keys.revoke):
        with pytest.raises(KeyNotFound):
            change(key_id)
    assert [record.is_valid for record in keys.list()] == [True]


def test_a_label_is_kept_as_it_is_written(keys: Keys) -> None:
    label = "'); DROP TABLE api_keys; -- %s {0} <b>"
    assert keys.create(scopes=["recognize"], label=label)[0].label == label
    assert keys.create(scopes=["recognize"], label="a\r\nX-Admin: yes")[0].label == "a X-Admin: yes"
    for hidden in ("a\x00b", "\x1b[2J", "\u202egnp.exe"):
        with pytest.raises(InvalidRequest):
            keys.create(scopes=["recognize"], label=hidden)


def test_a_refusal_takes_the_same_steps_whether_or_not_the_id_exists(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, right = keys.create(scopes=["recognize"])
    compared: list[tuple[int, int]] = []
    really = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return really(one, other)

    monkeypatch.setattr("recognizer.gallery.keys.hmac.compare_digest", compare)
    secret = "0" * 64
    assert keys.verify(f"rk_{record.id}_{secret}") is None
    assert keys.verify(f"rk_{'0' * 16}_{secret}") is None
    assert compared == [(32, 32)] * 2
    monkeypatch.setattr("recognizer.gallery.keys.hmac.compare_digest", lambda *_: True)
    assert keys.verify(right), "it is this comparison that decides"
    assert keys.verify(f"rk_{'0' * 16}_{secret}") is None, "nobody's digest opens nothing"


def test_uses_are_written_together_and_only_forwards(pool: Pool, keys: Keys, sql: Sql) -> None:
    used, idle = (keys.create(scopes=["recognize"])[0].id for _ in range(2))
    uses = KeyUses(pool)
    for _ in range(3):
        uses.note(used)
    uses.note("0" * 16)  # deleted meanwhile
    assert sql("SELECT count(last_used_at) FROM api_keys") == [(0,)]
    uses.flush()
    last = {record.id: record.last_used_at for record in keys.list()}
    assert last[idle] is None
    assert last[used] is not None
    assert abs(last[used] - datetime.now(UTC)) < timedelta(minutes=1)
    sql("UPDATE api_keys SET last_used_at = now() + interval '1 h'")  # by another worker
    before = sql("SELECT last_used_at FROM api_keys ORDER BY id")
    uses.note(used)
    uses.flush()
    assert sql("SELECT last_used_at FROM api_keys ORDER BY id") == before


def test_uses_are_written_at_the_end_and_wait_for_nobody(pool: Pool, keys: Keys, database_url: str) -> None:
    used, locked = (keys.create(scopes=["recognize"])[0].id for _ in range(2))
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("UPDATE api_keys SET label = 'x' WHERE id = %s", (locked,))
        with KeyUses(pool) as uses:
            uses.note(used)
            uses.note(locked)
    assert {record.id: record.last_used_at is not None for record in keys.list()} == {used: True, locked: False}


def test_uses_that_cannot_be_written_are_let_go(open_pool: Callable[..., Pool], proxy: Proxy, keys: Keys) -> None:
    uses = KeyUses(open_pool(proxy.url))
    proxy.shut()
    uses.note(keys.create(scopes=["recognize"])[0].id)
    uses.flush()
    assert [record.last_used_at for record in keys.list()] == [None]
