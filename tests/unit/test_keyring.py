"""The keys that photos are encrypted with."""

from __future__ import annotations

from pathlib import Path

import pytest

from recognizer import config
from recognizer.errors import ConfigError, EncryptionKeyMissing, SealBroken
from recognizer.keyring import OVERHEAD_BYTES, Keyring, key_id_of, new_key

PLAIN = b"a photo of Ada" * 100


def test_what_was_sealed_opens_in_its_place_alone() -> None:
    keyring = Keyring.of_text(new_key())
    sealed = keyring.seal(PLAIN, "photo:1")
    assert keyring.open(sealed, "photo:1") == PLAIN
    assert len(sealed) == len(PLAIN) + OVERHEAD_BYTES
    assert b"Ada" not in sealed
    with pytest.raises(SealBroken):
        keyring.open(sealed, "photo:2")


def test_the_same_photo_is_never_the_same_twice() -> None:
    keyring = Keyring.of_text(new_key())
    assert keyring.seal(PLAIN, "photo:1") != keyring.seal(PLAIN, "photo:1")


@pytest.mark.parametrize("position", [0, 3, 12, 25, 200, -1])
def test_a_changed_byte_is_found(position: int) -> None:
    keyring = Keyring.of_text(new_key())
    sealed = bytearray(keyring.seal(PLAIN, "photo:1"))
    sealed[position] ^= 1
    with pytest.raises((SealBroken, EncryptionKeyMissing)):  # the latter, where the key's id was changed
        keyring.open(bytes(sealed), "photo:1")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\xff\xd8\xff plain JPEG bytes that nobody has encrypted at all"])
def test_what_is_not_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        Keyring.of_text(new_key()).open(sealed, "photo:1")


def test_the_first_key_seals_and_all_open() -> None:
    old, new = new_key(), new_key()
    sealed = Keyring.of_text(old).seal(PLAIN, "photo:1")
    both = Keyring.of_text(f"# since today\n{new}\n{old}  # until all is encrypted anew\n")
    assert both.open(sealed, "photo:1") == PLAIN
    assert key_id_of(both.seal(PLAIN, "photo:1")) == both.ids[0] != key_id_of(sealed)


def test_a_key_that_is_not_here_is_named() -> None:
    wrong = Keyring.of_text(new_key())
    sealed = wrong.seal(PLAIN, "photo:1")
    with pytest.raises(EncryptionKeyMissing, match=wrong.ids[0]):
        Keyring.of_text(new_key()).open(sealed, "photo:1")
    with pytest.raises(EncryptionKeyMissing, match="create-key"):
        Keyring().seal(PLAIN, "photo:1")
    assert not Keyring()


@pytest.mark.parametrize("text", ["secret", "AAAA", 44 * "A", 42 * "A" + "=A", "ä"])
def test_what_is_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigError, match="base64 of 32 random bytes") as raised:
        config.load({"encryption_keys": text})
    assert text not in str(raised.value)


def test_keys_come_from_the_data_directory_if_they_are_there(tmp_path: Path) -> None:
    assert not config.load({"data_dir": tmp_path}).keyring
    keys = tmp_path / "encryption-keys"
    keys.write_text(new_key())
    keys.chmod(0o600)
    settings = config.load({"data_dir": tmp_path})
    assert settings.keyring.ids == Keyring.of_text(keys.read_text()).ids
    assert keys.read_text().strip() not in str(settings.masked())
    other = new_key()
    assert config.load({"data_dir": tmp_path, "encryption_keys": other}).keyring.ids == Keyring.of_text(other).ids


def test_a_child_process_looks_for_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = config.load({"data_dir": tmp_path}).as_environment()
    (tmp_path / "encryption-keys").write_text("it may not even be allowed to read this")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not config.load().keyring


def test_a_key_file_is_ours_alone(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with pytest.raises(ConfigError, match="create-key"):
        config.load({"encryption_key_file": keys})
    keys.write_text(new_key())
    keys.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        config.load({"encryption_key_file": keys})
    keys.chmod(0o600)
    assert config.load({"encryption_key_file": keys}).keyring
