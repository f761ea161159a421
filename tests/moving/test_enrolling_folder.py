"""A folder of people as a source: whose each photo is, and what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recognizer.enrolling.folder import Folder
from recognizer.enrolling.items import Item, NoPhoto
from recognizer.errors import StartupError

LIMIT = 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "people").mkdir()
    return tmp_path / "people"


def put(path: Path, content: bytes = b"photo") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(root: Path) -> dict[str, str]:
    """By path: the person, or why it is no photo."""
    return {
        each.label: each.person if isinstance(each, Item) else each.outcome.reasons[0] for each in Folder(root, LIMIT)
    }


def test_folders_below_a_persons_are_that_persons(root: Path) -> None:
    put(root / "Ada" / "1.jpg")
    put(root / "Ada" / "2024" / "summer" / "2.JPG")
    put(root / "Grace" / "without_suffix")
    put(root / "loose.jpg")
    assert found(root) == {
        "Ada/1.jpg": "Ada",
        "Ada/2024/summer/2.JPG": "Ada",
        "Grace/without_suffix": "Grace",
        "loose.jpg": "no_person",
    }


def test_what_is_no_photo_has_a_row_and_is_not_opened(root: Path) -> None:
    put(root / "Ada" / ".DS_Store")
    put(root / "Ada" / ".hidden" / "1.jpg")
    put(root / "Ada" / "all.zip")
    os.mkfifo(root / "Ada" / "pipe.jpg")
    (root / "Ada" / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "Ada" / "loop.jpg").symlink_to("loop.jpg")
    assert found(root) == {
        "Ada/.DS_Store": "not_a_photo",
        "Ada/.hidden": "not_a_photo",
        "Ada/all.zip": "not_a_photo",
        "Ada/gone.jpg": "broken_link",
        "Ada/loop.jpg": "broken_link",
        "Ada/pipe.jpg": "not_a_photo",
    }


def test_no_link_leads_out_of_the_folder(root: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "secret" / "1.jpg", b"secret")
    put(root / "Ada" / "1.jpg")
    (root / "Ada" / "out.jpg").symlink_to(secret)
    (root / "Ada" / "in.jpg").symlink_to("1.jpg")
    (root / "Bob").symlink_to(secret.parent)
    (root / "Ada" / "again").symlink_to(root / "Ada")
    assert found(root) == {
        "Ada/1.jpg": "Ada",
        "Ada/again": "link_to_folder",
        "Ada/in.jpg": "Ada",
        "Ada/out.jpg": "link_outside",
        "Bob": "link_outside",
    }


def test_a_photo_that_became_a_link_meanwhile_is_not_read(root: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "secret.jpg", b"secret")
    photo = put(root / "Ada" / "1.jpg")
    (item,) = Folder(root, LIMIT)
    assert isinstance(item, Item)
    assert item.read() == b"photo"
    photo.unlink()
    photo.symlink_to(secret)
    with pytest.raises(NoPhoto) as caught:
        item.read()
    assert caught.value.outcome.reasons == ("unreadable",)


def test_what_cannot_be_read_is_said(root: Path) -> None:
    put(root / "Ada" / "1.jpg", bytes(LIMIT + 1))
    put(root / "Ada" / "2.jpg")
    large, gone = Folder(root, LIMIT)
    (root / "Ada" / "2.jpg").unlink()
    reasons = []
    for item in (large, gone):
        assert isinstance(item, Item)
        with pytest.raises(NoPhoto) as caught:
            item.read()
        reasons.append((caught.value.outcome.status, *caught.value.outcome.reasons))
    assert reasons == [("refused", "image_too_large"), ("failed", "unreadable")]


def test_a_folder_that_is_not_there_or_empty_is_said(root: Path) -> None:
    with pytest.raises(StartupError, match="No such file"):
        Folder(root / "no", LIMIT)
    with pytest.raises(StartupError, match="Not a directory"):
        Folder(put(root / "file"), LIMIT)
    (root / "file").unlink()
    (root / "Ada").mkdir()
    with pytest.raises(StartupError, match="no photos"):
        Folder(root, LIMIT).count()
