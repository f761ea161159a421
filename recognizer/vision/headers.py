"""What the first bytes of an image tell before a decoder sees them: its format, and whether its structure is sane.

Decoders walk these structures element by element, in Python or once over the whole picture, so a few
megabytes of tiny elements would hold one of them for seconds to hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from recognizer.errors import ImageCorrupt, ImageUnsupported

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are read, by the names the decoder uses."""

MAX_JPEG_SEGMENTS = 2_000
"""Segments before the picture itself. A camera writes about 20; 11 MB of depth map in 64 kB pieces makes 170."""

MAX_JPEG_SCANS = 100
"""Passes over the picture. A progressive JPEG has about 10; each one costs up to 25 ms on 64 megapixels."""

_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    # "BM", file size, two reserved words, offset, then the size of a header that exists: text has none of it
    ("BMP", re.compile(rb"BM.{8}....[\x0c-\x7c]\0\0\0", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
)
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset({0x01, _START_OF_IMAGE, _END_OF_IMAGE, *range(0xD0, 0xD8)})
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
# inside a scan, 0xff is followed by a stuffed zero or by a restart marker
_END_OF_PASS = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


def check_header(data: bytes) -> str:
    """Tell the format by signature and refuse what no decoder should be asked to walk.

    Returns:
        one of `FORMATS`.

    Raises:
        ImageUnsupported: the bytes begin like none of the formats.
        ImageCorrupt: a JPEG of absurdly many segments or scans.
    """
    for name, signature in _SIGNATURES:
        if signature.match(data):
            if name == "JPEG":
                _check_jpeg(data)
            return name
    raise ImageUnsupported("This is no image the service reads; send a JPEG, PNG, WebP, GIF, BMP or TIFF.")


def _check_jpeg(data: bytes) -> None:
    # counting bytes is quick and an upper bound; only a suspicious file is walked to its end
    suspicious = data.count(bytes((0xFF, _START_OF_SCAN))) > MAX_JPEG_SCANS
    segments = scans = 0
    for marker in _jpeg_markers(data):
        if marker != _START_OF_SCAN:
            segments += 1
        elif not suspicious:
            return
        else:
            scans += 1
        if segments > MAX_JPEG_SEGMENTS or scans > MAX_JPEG_SCANS:
            raise ImageCorrupt("This JPEG has an absurd number of parts; save it again as an ordinary JPEG.")


def _jpeg_markers(data: bytes) -> Iterator[int]:
    """The markers of the first image in `data`, junk between them skipped as decoders do."""
    position, pattern = 0, _NEXT_MARKER
    while found := pattern.search(data, position):
        marker = found[1][0]
        yield marker
        if marker == _END_OF_IMAGE:
            return
        position = found.end()
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2])
        pattern = _END_OF_PASS if marker == _START_OF_SCAN else _NEXT_MARKER
