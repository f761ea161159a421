"""Bytes to upright RGB pixels, bounded in bytes, pixels and time. The only user of PIL.

Checks come in the order of their cost: length, signature, the size in the header, and only then the
picture itself, as small as it may be. Pixels exist only inside `with decoded(...)`.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image, ImageFile

from recognizer.errors import ImageCorrupt, ImageTooLarge, ImageUnsupported
from recognizer.faces import Pixels
from recognizer.vision.headers import FORMATS, check_header

_BAD_BYTES: Final = (
    # what Pillow's decoders raise on broken files; none of it is a mistake of ours
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_ORIENTATION_TAG: Final = 0x0112
_TO_UPRIGHT: Final = {
    # EXIF orientation -> what makes the picture upright (EXIF 2.32, 4.6.4 A, tag 274)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_WEIGHTS: Final = {
    # how often a pixel counts, where decoding costs far more than a PNG's 247 MB and 0.5 s for 64 megapixels
    "WEBP": 4,  # libwebp and Pillow hold four copies: 984 MB
    "TIFF": 2,  # a single strip is buffered whole: 420 MB, 720 MB with 16 bits per colour
    "run-length BMP": 16,  # undone in Python: 5 s
}

_MAX_SIDE_PIXELS: Final = 65_535
"""What a JPEG can have; a picture that is longer is a stripe, made to take an unusual way through a decoder."""

_STRIP_PIXELS: Final = 4_000_000

_FULL_SCALES: Final = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""White, in grey pictures of many bits: floating point, then 8, 10, 12, 14 and 16 bits."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may have: bytes and pixels as sent; `working_pixels` is what it is decoded down to."""

    max_bytes: int
    max_pixels: int
    working_pixels: int


@dataclass(slots=True)
class DecodedImage:
    """An upright image.

    `width` and `height` are those of the image as sent (upright). `pixels`, (H, W, 3) uint8 RGB,
    C-contiguous and read-only, may be smaller: `scale` is its width divided by `width`, at most 1.
    """

    pixels: Pixels = field(repr=False)
    width: int
    height: int
    format: str
    scale: float


@contextmanager
def decoded(data: bytes, limits: ImageLimits) -> Iterator[DecodedImage]:
    """Decode an image; its pixels are gone when the block ends.

    Transparent pixels are shown on white, of an animation the first frame is taken, colour profiles
    are ignored; otherwise the pixels are those of Pillow's `convert("RGB")`, as `face_recognition` has them.

    Raises:
        ImageTooLarge: more bytes or pixels than `limits` allow; found before decoding.
        ImageUnsupported: no image of an allowed format.
        ImageCorrupt: it cannot be decoded to the end.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The image has {len(data):,} bytes, at most {limits.max_bytes:,} are allowed; send a smaller one."
        )
    image_format = check_header(data)
    _tame_pillow(limits)
    try:
        image = _decode(data, image_format, limits)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge("The image has too many pixels; send a smaller one.") from error
    except _BAD_BYTES as error:
        raise ImageCorrupt(
            f"The {image_format} image is damaged or incomplete; send the original file again."
        ) from error
    try:
        yield image
    finally:
        del image.pixels


def resized(pixels: Pixels, height: int, width: int, box: tuple[float, float, float, float] | None = None) -> Pixels:
    """The image, or the part of it in `box` (left, top, right, bottom), at another size: bilinear, averaging when it
    becomes smaller."""
    if box is not None:
        left, top = int(box[0]), int(box[1])
        pixels = pixels[top : math.ceil(box[3]), left : math.ceil(box[2])]  # Pillow copies what it is given
        box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    with (
        closing(Image.fromarray(pixels)) as image,
        closing(image.resize((width, height), Image.Resampling.BILINEAR, box)) as changed,
    ):
        return np.asarray(changed)


def as_png(pixels: Pixels) -> bytes:
    """The image, (H, W, 3) uint8 RGB, as a PNG file, which holds every pixel as it is."""
    file = io.BytesIO()
    with closing(Image.fromarray(pixels)) as image:
        image.save(file, "PNG")
    return file.getvalue()


def _tame_pillow(limits: ImageLimits) -> None:
    """Undo what others may have done to Pillow's global state; cheap, and the same from every thread."""
    # importing face_recognition sets this, and half a face would be recognised as a whole one
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Pillow's own limit, twice this, must not come before ours; below it, it catches lying inner headers
    if Image.MAX_IMAGE_PIXELS is not None and limits.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
    # warnings.catch_warnings is not thread-safe; what Pillow finds odd about a file is no news for the log
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _decode(data: bytes, image_format: str, limits: ImageLimits) -> DecodedImage:
    with ExitStack() as opened:

        def own(image: Image.Image) -> Image.Image:
            return opened.enter_context(closing(image))

        source = own(Image.open(io.BytesIO(data), formats=FORMATS))
        width, height = source.size
        _check_pixels(source, limits)
        scale = min(1.0, math.sqrt(limits.working_pixels / (width * height)))
        size = max(1, int(width * scale)), max(1, int(height * scale))
        source.draft(None, size)
        source.load()
        image = own(_to_rgb(source) if source.size == size else _reduced(source, size))
        upright = _TO_UPRIGHT.get(_orientation(source))
        source.close()
        if upright is not None:
            image = own(image.transpose(upright))
            if upright not in (_TO_UPRIGHT[2], _TO_UPRIGHT[3], _TO_UPRIGHT[4]):
                width, height = height, width
        return DecodedImage(np.asarray(image), width, height, image_format, image.width / width)


def _check_pixels(image: Image.Image, limits: ImageLimits) -> None:
    if max(image.size) > _MAX_SIDE_PIXELS:
        raise ImageTooLarge(
            f"A side of the image has {max(image.size):,} pixels, at most {_MAX_SIDE_PIXELS:,} are allowed; crop it."
        )
    kind = "run-length BMP" if image.format == "BMP" and image.info.get("compression") else image.format
    allowed = limits.max_pixels // _WEIGHTS.get(kind or "", 1)
    if image.width * image.height > allowed:
        raise ImageTooLarge(
            f"The {kind} image has {image.width:,} x {image.height:,} pixels, at most {allowed:,} are allowed; "
            "send a smaller one."
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 when there is none or the EXIF block is broken: a good photo is not refused."""
    if image.format == "TIFF":
        return 1  # Pillow has applied it while loading
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _BAD_BYTES:
        return 1


def _reduced(source: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Shrink to RGB of `size`, strip by strip: a second full-size copy in another mode never exists."""
    width, height = size
    rows_per_row = source.height / height
    rows = max(1, int(_STRIP_PIXELS / source.width / rows_per_row))
    result = Image.new("RGB", size)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first, last = top * rows_per_row, min(float(source.height), bottom * rows_per_row)
        with (
            closing(source.crop((0, int(first), source.width, math.ceil(last)))) as part,
            closing(_to_rgb(part, whole=source)) as strip,
        ):
            box = (0, first - int(first), source.width, last - int(first))
            with closing(strip.resize((width, bottom - top), Image.Resampling.BILINEAR, box)) as small:
                result.paste(small, (0, top))
    return result


def _to_rgb(image: Image.Image, whole: Image.Image | None = None) -> Image.Image:
    """A new RGB image of any mode; `whole` is what `image` is a part of, to be scaled alike."""
    if image.mode == "LAB":
        raise ImageUnsupported("Images in Lab colours are not read; send it in RGB.")
    if image.mode.startswith(("I", "F")):
        return _from_wide_grey(image, whole or image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    with closing(image.convert("RGBA")) as rgba:
        white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _from_wide_grey(image: Image.Image, whole: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floating point, brought to 0..255 by the nearest usual full scale."""
    highest = whole.getextrema()[1]
    assert isinstance(highest, int | float)
    full_scales = _FULL_SCALES if image.mode == "F" else _FULL_SCALES[1:]
    full_scale = next((scale for scale in full_scales if highest <= scale), highest)
    with np.errstate(all="ignore"):  # floating point pictures may hold infinities and what is no number
        values = np.nan_to_num(np.asarray(image, dtype=np.float32) * np.float32(255.0 / full_scale))
    with closing(Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))) as grey:
        return grey.convert("RGB")
