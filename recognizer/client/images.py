"""What may be given as an image: its bytes, a path to it, or an open file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import BinaryIO, TypeAlias, cast

from recognizer.client.errors import RecognizerClientError

Image: TypeAlias = bytes | str | os.PathLike[str] | BinaryIO
"""The bytes of an image file; a path (text is a path, never a URL); or a file that is open for reading bytes."""


def image_bytes(image: Image) -> bytes:
    """The bytes of an image.

    Raises:
        RecognizerClientError: the file cannot be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    try:
        if isinstance(image, str | os.PathLike):
            with open(image, "rb") as file:
                return file.read()
        return image.read()
    except OSError as error:
        detail = f"The image {error.filename or ''} cannot be read: {error.strerror}.".replace("  ", " ")
        raise RecognizerClientError("image_unreadable", detail) from error


def as_images(images: Image | Iterable[Image]) -> list[bytes]:
    """The bytes of one image or of several."""
    if isinstance(images, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(images, "read"):
        return [image_bytes(cast(Image, images))]
    return [image_bytes(image) for image in images]
