"""What the use cases are made of, apart from the engine and the gallery (tests/api has them together)."""

from __future__ import annotations

import hashlib

from recognizer.service import EnrolRequest


def test_a_retry_after_an_upgrade_is_the_same_request() -> None:
    """The digest that 0.1 has stored; an option that came later counts only where it is given."""
    request = EnrolRequest("default", [b"a photo"], name="Ada", metadata={"door": 3})
    digest = hashlib.sha256(repr(("Ada", None, None, {"door": 3}, False)).encode())
    digest.update(hashlib.sha256(b"a photo").digest())
    assert request.digest() == digest.digest()
    forced = EnrolRequest("default", [b"a photo"], name="Ada", metadata={"door": 3}, force=True)
    assert forced.digest() != request.digest()
