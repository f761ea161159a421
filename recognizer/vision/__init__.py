"""Bytes to faces: decoding, detection, alignment, encoding, quality. Knows no HTTP and no SQL."""
