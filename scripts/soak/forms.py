"""What is sent: a photo in other formats and sizes, in the three ways the service takes it, and what is no photo."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from soak.photos import Photo


def with_versions(photos: Sequence[Photo]) -> list[Photo]:
    """The photos as they are and, with Pillow, each in two of the other formats and sizes in turn."""
    if importlib.util.find_spec("PIL") is None:
        print("Pillow is not installed here: photos are sent as they are, not in other formats and sizes.")
        return list(photos)
    forms = itertools.cycle(_versions())
    made = []
    for photo in photos:
        made.append(photo)
        for form, content_type, make in itertools.islice(forms, 2):
            with contextlib.suppress(OSError, ValueError):  # Pillow need not read what the service reads
                made.append(replace(photo, form=form, content_type=content_type, data=make(photo.data)))
    return made


def enlarged(photo: Photo, megapixels: float) -> Photo | None:
    """The photo with as many pixels as a camera's; None without Pillow."""
    if importlib.util.find_spec("PIL") is None:
        return None
    from PIL import Image

    image = Image.open(io.BytesIO(photo.data)).convert("RGB")
    factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
    stream = io.BytesIO()
    image.resize((round(image.width * factor), round(image.height * factor))).save(stream, "JPEG", quality=88)
    form = f"JPEG of {megapixels:g} megapixels"
    return replace(photo, form=form, content_type="image/jpeg", data=stream.getvalue())


def _versions() -> list[tuple[str, str, Callable[[bytes], bytes]]]:
    from PIL import Image, ImageOps

    def upright(data: bytes, longest: int = 1000) -> Image.Image:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        image.thumbnail((longest, longest))
        return image

    def saved(image: Image.Image, form: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        return stream.getvalue()

    def resized(data: bytes, factor: float = 1.0, longest: int = 0) -> bytes:
        image = upright(data)
        factor = longest / max(image.size) if longest else factor
        return saved(image.resize([round(side * factor) for side in image.size]), "JPEG", quality=92)

    def lying(data: bytes) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn it clockwise to see it upright
        return saved(upright(data).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)

    return [
        ("PNG", "image/png", lambda data: saved(upright(data), "PNG")),
        ("JPEG x 0.8", "image/jpeg", lambda data: resized(data, 0.8)),
        ("WebP", "image/webp", lambda data: saved(upright(data), "WEBP", quality=90)),
        ("JPEG x 1.6", "image/jpeg", lambda data: resized(data, 1.6)),
        ("BMP", "image/bmp", lambda data: saved(upright(data), "BMP")),
        ("JPEG EXIF-rotated", "image/jpeg", lying),
        ("GIF", "image/gif", lambda data: saved(upright(data, 600), "GIF")),
        ("JPEG 1200 pixels", "image/jpeg", lambda data: resized(data, longest=1200)),
        ("progressive JPEG", "image/jpeg", lambda data: saved(upright(data), "JPEG", progressive=True)),
    ]


def as_form(photo: Photo, **options: str) -> tuple[bytes, str]:
    boundary = "soak" + hashlib.sha256(photo.data[:1000]).hexdigest()
    lines = [f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in options.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="photo"\r\nContent-Type: '
    start = "".join([*lines, head, photo.content_type, "\r\n\r\n"]).encode()
    return start + photo.data + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def as_json(photo: Photo) -> tuple[bytes, str]:
    return b'{"image": "' + base64.b64encode(photo.data) + b'"}', "application/json"


WAYS = (as_form, as_json, lambda photo: (photo.data, photo.content_type))


def bad_inputs(photos: Sequence[Photo]) -> list[tuple[bytes, str]]:
    """Bodies that deserve an answer of 400, 413, 415 or 422, and no more of the service's time."""
    jpeg = next((photo.data for photo in photos if photo.data.startswith(b"\xff\xd8")), photos[0].data)
    text = Photo("", "notes.txt", "", "image/jpeg", b"This is no photo. " * 50)
    return [
        (jpeg[: len(jpeg) // 2], "image/jpeg"),
        as_form(text),
        as_form(replace(text, data=b"")),
        (b'{"image": "/etc/passwd"}', "application/json"),
        (b'{"image": ', "application/json"),
    ]
