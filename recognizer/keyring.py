"""What kept photos, and embeddings where that is wanted, are encrypted with: AES-256-GCM under one of several keys.

A sealed text is: version (1 byte, 1), id of the key (8), nonce (12, random), ciphertext with its tag (16 bytes more
than the plain text). It opens only in the place it was sealed for: the place, such as `photo:<face id>`, is
authenticated too, so that nobody can give one person's photo to another in the database. A key seals at most 2^32
texts, as NIST SP 800-38D asks for random nonces.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recognizer.errors import ConfigError, EncryptionKeyMissing, SealBroken

KEY_BYTES = 32
_VERSION = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12
_HEADER_BYTES = len(_VERSION) + _ID_BYTES
OVERHEAD_BYTES = _HEADER_BYTES + _NONCE_BYTES + 16


class Key(NamedTuple):
    """A key and what it is called: the first bytes of a hash of it, as hexadecimal digits."""

    id: str
    secret: bytes

    @classmethod
    def of_text(cls, text: str) -> Self:
        """A key from its base64; raises ValueError."""
        try:
            secret = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != KEY_BYTES:
            raise ValueError(f"each encryption key must be base64 of {KEY_BYTES} random bytes")
        return cls(hashlib.sha256(b"recognizer key id\0" + secret).hexdigest()[: 2 * _ID_BYTES], secret)


class Keyring:
    """The keys of an installation, the one in use first; the others only open what was sealed before.

    Safe to use from many threads. Without any key it is empty, and false.
    """

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = {key.id: AESGCM(key.secret) for key in keys}

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Keys as a key file has them: base64, with commas or line ends between; # begins a comment.

        Raises:
            ValueError: that is no key.
        """
        lines = (line.partition("#")[0] for line in text.splitlines())
        return cls([Key.of_text(part) for line in lines for part in re.split(r"[,\s]+", line) if part])

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """What the keys are called, the one in use first."""
        return tuple(self._keys)

    def require(self, key_ids: Iterable[str] = ()) -> None:
        """See to it that there is a key to seal with, and that all of `key_ids` are here to open with.

        Raises:
            EncryptionKeyMissing
        """
        if missing := sorted(set(key_ids) - set(self._keys)):
            raise EncryptionKeyMissing(
                f"This was encrypted with the key {missing[0]}, which the service does not have; add it to its keys."
            )
        if not self._keys:
            raise EncryptionKeyMissing(
                "Kept photos, and embeddings where that is wanted, are only stored encrypted, and there is no key to "
                "do it with; make one with `recognizer encryption create-key`, and reload the service."
            )

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt for a place, such as `photo:<face id>`, with the key in use.

        Raises:
            EncryptionKeyMissing: there is no key.
        """
        self.require()
        key_id, key = next(iter(self._keys.items()))
        header, nonce = _VERSION + bytes.fromhex(key_id), secrets.token_bytes(_NONCE_BYTES)
        return header + nonce + key.encrypt(nonce, plain, header + place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypt what was sealed for this place.

        Raises:
            EncryptionKeyMissing: it was sealed with a key that is not here.
            SealBroken: it was changed, or sealed for another place.
        """
        key_id = key_id_of(sealed)
        self.require([key_id])
        nonce = sealed[_HEADER_BYTES : _HEADER_BYTES + _NONCE_BYTES]
        try:
            return self._keys[key_id].decrypt(
                nonce, sealed[_HEADER_BYTES + _NONCE_BYTES :], sealed[:_HEADER_BYTES] + place.encode()
            )
        except (InvalidTag, ValueError) as error:
            raise SealBroken(
                "What is stored was changed since it was encrypted, or is not where it belongs; restore a backup."
            ) from error


def key_id_of(sealed: bytes) -> str:
    """Which key a text was sealed with; raises SealBroken where it is no sealed text."""
    if len(sealed) < OVERHEAD_BYTES or sealed[:1] != _VERSION:
        raise SealBroken("What is stored is not encrypted as this version does it; restore a backup.")
    return sealed[len(_VERSION) : _HEADER_BYTES].hex()


def new_key() -> str:
    """A new key, as base64."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def read_keys(path: Path, wanted: Path | None) -> str:
    """The content of a key file; empty where there is none and none is `wanted`.

    Raises:
        ConfigError: it cannot be read, or others can read it as well.
    """
    try:
        with path.open(encoding="utf-8") as file:
            if os.name != "nt" and os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"Others may read the encryption keys in {path}; close it with chmod 600.")
            return file.read()
    except FileNotFoundError as error:
        if wanted is None:
            return ""
        raise ConfigError(
            f"There is no file {path} with encryption keys; make it with `recognizer encryption create-key`."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The encryption keys in {path} cannot be read: {error}.") from error
