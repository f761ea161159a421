"""Bytes to pixels: what is accepted, what is refused and with which word, and what the pixels are."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFile

from recognizer.errors import ImageCorrupt, ImageTooLarge, ImageUnsupported
from recognizer.faces import Pixels
from recognizer.vision.images import DecodedImage, ImageLimits, decoded

LIMITS = ImageLimits(max_bytes=20 * 2**20, max_pixels=64_000_000, working_pixels=8_000_000)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def pixels_of(data: bytes, limits: ImageLimits = LIMITS) -> Pixels:
    with decoded(data, limits) as image:
        return image.pixels.copy()


def read(data: bytes, limits: ImageLimits = LIMITS) -> DecodedImage:
    """The image without its pixels, which end with the block."""
    with decoded(data, limits) as image:
        return image


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """A picture without any symmetry: red to the right, green downwards, blue in one corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = columns * 255 // max(1, width - 1)
    picture[..., 1] = rows * 255 // max(1, height - 1)
    picture[: height // 3, : width // 4, 2] = 255
    return Image.fromarray(picture)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


# -- what the pixels are --


@pytest.mark.parametrize("name", ["obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg", "32bit.png"])
def test_pixels_are_those_of_convert_rgb(photo: Callable[[str], bytes], name: str) -> None:
    data = photo(name)
    with Image.open(io.BytesIO(data)) as image, decoded(data, LIMITS) as ours:
        assert np.array_equal(ours.pixels, np.array(image.convert("RGB")))
        assert (ours.width, ours.height, ours.scale) == (*image.size, 1.0)
        assert ours.pixels.flags.c_contiguous
        assert ours.pixels.dtype == np.uint8


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_is_read_and_named(image_format: str) -> None:
    data = encode(scene(), image_format)
    assert read(data).format == image_format
    assert np.abs(pixels_of(data).astype(int) - np.asarray(scene()).astype(int)).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
@pytest.mark.parametrize("working_pixels", [8_000_000, 1_000], ids=["whole", "reduced"])
def test_every_mode_becomes_rgb(mode: str, working_pixels: int) -> None:
    grey = np.asarray(scene(128, 96).convert("L"))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        image = scene(128, 96).convert(mode)
    data = encode(image, "JPEG" if mode == "YCbCr" else "TIFF")
    expected = Image.fromarray(grey) if mode in ("I;16", "I", "F") else image
    with decoded(data, ImageLimits(10**6, 10**6, working_pixels)) as ours:
        size = ours.pixels.shape[1], ours.pixels.shape[0]
        expected = expected.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        difference = np.abs(ours.pixels.astype(int) - np.asarray(expected).astype(int))
        assert ours.pixels.shape[2] == 3
        assert ours.pixels.shape[0] * ours.pixels.shape[1] <= working_pixels
        assert difference.mean() < 6


def test_opaque_alpha_changes_nothing_and_transparency_is_white() -> None:
    image = scene().convert("RGBA")
    assert np.array_equal(pixels_of(encode(image, "PNG")), np.asarray(scene()))
    image.putalpha(0)
    assert (pixels_of(encode(image, "PNG")) == 255).all()
    image.putalpha(128)
    half = (np.asarray(scene()).astype(int) + 255) / 2
    assert np.abs(pixels_of(encode(image, "PNG")) - half).max() <= 2


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_colour_is_white(image_format: str) -> None:
    image = Image.new("P", (20, 10), 1)
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.paste(0, (0, 0, 10, 10))
    pixels = pixels_of(encode(image, image_format, transparency=0))
    assert pixels[5, 2].tolist() == [255, 255, 255]
    assert pixels[5, 15].tolist() == [200, 30, 30]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    first, second = Image.new("RGB", (30, 20), "red"), Image.new("RGB", (30, 20), "blue")
    for image_format in ("GIF", "PNG", "WEBP", "TIFF"):
        data = encode(first, image_format, save_all=True, append_images=[second])
        assert pixels_of(data)[10, 10, 0] > 200, image_format
        assert pixels_of(data)[10, 10, 2] < 60, image_format


STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored(orientation: int, image_format: str, picture: Image.Image) -> bytes:
    """`picture` as a camera held that way would store it."""
    turn = STORED_AS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(image_format, {})
    return encode(picture if turn is None else picture.transpose(turn), image_format, exif=exif, **options)


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("working_pixels", [8_000_000, 2_000], ids=["whole", "reduced"])
def test_orientation_is_applied(orientation: int, image_format: str, working_pixels: int) -> None:
    data = stored(orientation, image_format, scene(96, 64))
    with decoded(data, ImageLimits(10**6, 10**6, working_pixels)) as image:
        assert (image.width, image.height) == (96, 64)
        expected = scene(96, 64).resize((image.pixels.shape[1], image.pixels.shape[0]), Image.Resampling.BILINEAR)
        assert np.abs(image.pixels.astype(int) - np.asarray(expected).astype(int)).mean() < 6


def test_a_broken_exif_block_does_not_refuse_a_good_photo() -> None:
    for rubbish in (
        b"Exif\0\0" + b"\xff" * 40,
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12",
    ):
        assert read(encode(scene(), "JPEG", exif=rubbish)).width == 64


# -- large images are decoded small --


def test_a_large_jpeg_is_decoded_small() -> None:
    data = encode(scene(1600, 1200), "JPEG", quality=90)
    limits = ImageLimits(10**7, 10**7, working_pixels=100_000)
    with decoded(data, limits) as image:
        height, width, _ = image.pixels.shape
        assert (image.width, image.height) == (1600, 1200)
        assert 90_000 < width * height <= 100_000
        assert image.scale == width / 1600
        expected = scene(1600, 1200).resize((width, height), Image.Resampling.BILINEAR)
        assert np.abs(image.pixels.astype(int) - np.asarray(expected).astype(int)).mean() < 3


def test_strips_join_without_a_seam() -> None:
    picture = Image.effect_noise((1303, 1303), 90).convert("RGB")
    limits = ImageLimits(10**8, 10**7, working_pixels=800 * 800)
    ours = pixels_of(encode(picture, "PNG"), limits)
    whole = np.asarray(picture.resize((ours.shape[1], ours.shape[0]), Image.Resampling.BILINEAR))
    per_row = np.abs(ours.astype(int) - whole.astype(int)).mean(axis=(1, 2))
    assert ours.shape[0] in (799, 800)
    assert np.median(per_row) < 0.1
    assert np.count_nonzero(per_row > 1) <= 2 * 3  # one row on either side of each of three joints


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (20_000, 3)])
def test_extreme_shapes_are_reduced_too(size: tuple[int, int]) -> None:
    image = read(encode(Image.new("RGB", size), "PNG"), ImageLimits(10**7, 10**6, 10_000))
    assert (image.width, image.height) == size


def test_pixels_are_gone_after_the_block() -> None:
    with decoded(encode(scene(), "PNG"), LIMITS) as image:
        assert image.pixels.shape == (48, 64, 3)
    with pytest.raises(AttributeError):
        _ = image.pixels
    with pytest.raises(ZeroDivisionError), decoded(encode(scene(), "PNG"), LIMITS) as image:
        raise ZeroDivisionError  # what the block raises is not taken for a bad image
    with pytest.raises(AttributeError):
        _ = image.pixels


# -- what is refused --


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"hello, I am a text",
        b"BMW is a car maker, and this is a text that happens to begin like a bitmap",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7 and so on",
        b"\0\0\0\x20ftypheic\0\0\0\0",
        b"RIFF\x10\0\0\0WAVEfmt ",
    ],
)
def test_what_is_no_image_is_unsupported(data: bytes) -> None:
    with pytest.raises(ImageUnsupported):
        read(data)


def test_a_format_pillow_knows_and_we_do_not_is_unsupported() -> None:
    for image_format in ("PPM", "TGA", "ICO", "JPEG2000", "PCX"):
        with pytest.raises(ImageUnsupported):
            read(encode(scene(), image_format))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_corrupt(image_format: str, kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # what importing face_recognition does
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8))
    data = encode(noise, image_format)
    assert read(data).width == 160
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageCorrupt):
        read(data[: int(len(data) * kept)])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_scrambled_bytes_give_an_image_or_one_clear_error(image_format: str) -> None:
    dice = random.Random(7)
    good = encode(scene(), image_format)
    for _ in range(150):
        data = bytearray(good)
        for _ in range(dice.randint(1, 12)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            read(bytes(data))
        except (ImageCorrupt, ImageTooLarge, ImageUnsupported):
            continue


def test_too_many_bytes_are_refused_before_anything_else() -> None:
    with pytest.raises(ImageTooLarge, match="1,000"):
        read(b"no image at all" * 100, ImageLimits(1000, 10**6, 10**6))


@pytest.mark.parametrize("size", [(20_000, 10_000), (8_001, 8_000), (65_536, 65_536), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_seen_in_the_header(size: tuple[int, int]) -> None:
    # there is no picture behind the header: decoding would say corrupt
    with pytest.raises(ImageTooLarge):
        read(png(*size))


def test_the_pixel_limit_is_exact() -> None:
    limits = ImageLimits(10**6, 64 * 48, 10**6)
    assert read(encode(scene(64, 48), "PNG"), limits).width == 64
    with pytest.raises(ImageTooLarge, match="3,072"):
        read(encode(scene(65, 48), "PNG"), limits)


def test_formats_that_cost_more_have_a_lower_limit() -> None:
    limits = ImageLimits(10**6, 100 * 100, 10**6)
    assert read(encode(scene(50, 50), "WEBP"), limits).width == 50
    with pytest.raises(ImageTooLarge, match="2,500"):
        read(encode(scene(51, 50), "WEBP"), limits)
    with pytest.raises(ImageTooLarge, match="5,000"):
        read(encode(scene(101, 50), "TIFF"), limits)
    header = struct.pack("<IiiHHIIiiII", 40, 50, 50, 1, 8, 1, 4, 0, 0, 256, 0)
    run_length = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(1024) + b"\0\1\0\0"
    with pytest.raises(ImageTooLarge, match="625"):
        read(run_length, limits)


def test_numbers_that_are_none_do_no_harm() -> None:
    values = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64)
    for odd in (np.nan, np.inf, -np.inf, 3e38):
        values[0, :5] = odd
        assert read(encode(Image.fromarray(values), "TIFF")).width == 64
        assert read(encode(Image.fromarray(np.full((48, 64), odd, np.float32)), "TIFF")).width == 64


def test_a_zip_bomb_is_refused() -> None:
    picture = chunk(b"IDAT", zlib.compress(bytes(10**7), 9))
    with pytest.raises(ImageTooLarge):
        read(png(30_000, 30_000, picture))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50 * 2**20), 9))
    with pytest.raises(ImageCorrupt):
        read(png(10, 10, text, chunk(b"IDAT", zlib.compress(bytes(310)))))
    profile = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(50 * 2**20), 9))
    with pytest.raises(ImageCorrupt):
        read(png(10, 10, profile, chunk(b"IDAT", zlib.compress(bytes(310)))))


def test_a_jpeg_of_countless_scans_or_segments_is_refused() -> None:
    progressive = encode(scene(), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    assert read(progressive[:-2] + last_scan * 50 + b"\xff\xd9").width == 64
    with pytest.raises(ImageCorrupt):
        read(progressive[:-2] + last_scan * 500 + b"\xff\xd9")
    for filler in (b"\xff\xfe\0\2", b"\xff\xe3\0\2", b"\xff\xd0"):
        with pytest.raises(ImageCorrupt):
            read(progressive[:2] + filler * 5000 + progressive[2:])


def test_what_follows_a_jpeg_is_not_counted() -> None:
    # motion photos append a video, in which the bytes of a scan marker occur by chance
    assert read(encode(scene(), "JPEG") + b"\xff\xda\0\x08" * 5000).width == 64
