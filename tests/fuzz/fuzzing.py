"""How long the fuzzers go on: `FUZZ_EXAMPLES=100000 pytest tests/fuzz` by hand, a few seconds each otherwise."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def bounded(usual: int) -> settings:
    """So many examples unless others are asked for; the same ones each time, so that a failure comes again."""
    return settings(
        max_examples=EXAMPLES or usual,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Some bytes changed, then perhaps a piece cut out, doubled or put in from something else."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 8))):
        if data:  # headers are where most decisions are made
            far = draw(st.booleans())
            at = draw(st.integers(0, len(data) - 1 if far else min(len(data) - 1, 64)))
            data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
    way = draw(st.sampled_from(["keep", "cut off", "cut out", "double", "put in"]))
    if way == "cut off":
        del data[start:]
    elif way == "cut out":
        del data[start:end]
    elif way == "double":
        data[end:end] = data[start:end]
    elif way == "put in":
        data[start:start] = draw(st.binary(max_size=200) | whole)
    return bytes(data)
