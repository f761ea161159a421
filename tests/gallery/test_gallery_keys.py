"""API keys: made, shown once, checked, revoked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import pytest

from recognizer.deadline import Deadline
from recognizer.errors import CollectionNotFound, DeadlineExceeded, InvalidRequest, NotFound
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
    with pytest.raises(NotFound):
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
