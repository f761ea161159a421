"""Damaged images of every format: an image, or one of the three errors; never another exception, never more memory."""

from __future__ import annotations

import io

from fuzzing import bounded, damaged
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from recognizer.errors import ImageCorrupt, ImageTooLarge, ImageUnsupported
from recognizer.vision.images import ImageLimits, decoded

LIMITS = ImageLimits(max_bytes=2**20, max_pixels=2**20, working_pixels=2**18)


def _images() -> list[bytes]:
    plain = Image.radial_gradient("L").resize((61, 47))
    made = []
    for kind, mode, options in [
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 0}),
        ("PNG", "I;16", {}),
        ("GIF", "P", {"save_all": True, "append_images": [plain.convert("P")] * 2}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "1", {"compression": "group4"}),
    ]:
        file = io.BytesIO()
        (plain.convert("I").convert(mode) if mode == "I;16" else plain.convert(mode)).save(file, kind, **options)
        made.append(file.getvalue())
    return made


@bounded(1500)
@given(damaged(st.sampled_from(_images())))
def test_damaged_images_give_an_image_or_one_clear_error(data: bytes) -> None:
    try:
        with decoded(data, LIMITS) as image:
            assert image.pixels.nbytes <= 3 * LIMITS.max_pixels
            assert image.width * image.height <= LIMITS.max_pixels
    except (ImageCorrupt, ImageTooLarge, ImageUnsupported) as error:
        assert str(error).endswith(".")
