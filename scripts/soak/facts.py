"""Facts for the report: the machine it was made on, and how long which requests took."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from soak.judging import percentile_ms
from soak.places import MB

SHARES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "longest_ms": 1.0}


def machine() -> dict[str, Any]:
    """What this machine is, as far as it can be seen."""
    seen: dict[str, Any] = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    if hasattr(os, "getloadavg"):
        seen["load_before"] = round(os.getloadavg()[0], 2)
    if importlib.util.find_spec("psutil"):
        import psutil

        seen["memory_mb"] = psutil.virtual_memory().total // MB
    return seen


def latency(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """By what was asked for: how many answers, and how long they took."""
    return {
        action: {"answers": len(taken)} | {name: percentile_ms(taken, share) for name, share in SHARES.items()}
        for action, taken in sorted(seconds.items())
    }
