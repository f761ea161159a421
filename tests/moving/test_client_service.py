"""The client and the service, as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recognizer.client import Recognizer, RecognizerClientError

Small = Callable[[str], bytes]


def test_somebody_is_enrolled_recognised_and_erased(
    client: Recognizer, collection: str, small: Small, tmp_path: Path
) -> None:
    (tmp_path / "obama.jpg").write_bytes(small("obama"))
    done = client.enroll(
        [tmp_path / "obama.jpg", small("obama3"), b"no image"],
        name="Obama",
        collection=collection,
        metadata={"office": 44},
        external_id="44",
    )
    assert (done.person.faces, [remark.code for remark in done.refused]) == (2, ["image_unsupported"])
    seen = client.recognize(small("obama2"), collection=collection, include=["embedding"], top_k=2)
    (face,) = seen.faces
    assert (face.decision, face.person and face.person.name) == ("match", "Obama")
    assert face.embedding is not None
    assert len(face.embedding) == 128
    (listed,) = client.people(collection)
    assert (listed.metadata, listed.external_id, listed.created_at.tzinfo is None) == ({"office": 44}, "44", False)
    assert len(client.person(listed.id).faces) == 2
    assert client.verify(small("obama"), person_id=listed.id).same
    assert not client.verify(small("obama"), small("biden")).same
    other = client.enroll(small("obama"), name="Barack", collection=collection, force=True)
    assert client.merge_people(other.person.id, into=listed.id).moved["faces"] == 1
    receipt = client.delete_person(listed.id)
    assert (receipt.deleted["faces"], receipt.left, list(client.people(collection))) == (3, 0, [])


def test_many_images_have_their_results_in_order(client: Recognizer, collection: str, small: Small) -> None:
    client.enroll(small("obama"), name="Obama", collection=collection)
    outcomes = list(client.recognize_many([small("obama2"), b"nothing", small("biden")], collection=collection))
    assert isinstance(outcomes[1], RecognizerClientError)
    assert outcomes[1].code == "image_unsupported"
    decisions = [outcome.faces[0].decision for outcome in outcomes if not isinstance(outcome, RecognizerClientError)]
    assert decisions == ["match", "unknown"]


def test_an_enrolment_that_cannot_be_says_why(client: Recognizer, collection: str, two_faces: bytes) -> None:
    with pytest.raises(RecognizerClientError) as caught:
        client.enroll(two_faces, name="Both", collection=collection)
    assert (caught.value.status, caught.value.code) == (422, "multiple_faces")
    assert caught.value.request_id
    assert client.enroll(two_faces, name="Both", collection=collection, largest_face=True).person.faces == 1


def test_a_collection_comes_and_goes(client: Recognizer) -> None:
    made = client.create_collection("to be deleted? 100 %", target_fpir=0.02)
    assert made in client.collections()
    assert client.collection(made.name) == made
    assert client.delete_collection(made.name).left == 0
    with pytest.raises(RecognizerClientError) as caught:
        client.collection(made.name)
    assert caught.value.code == "collection_not_found"
