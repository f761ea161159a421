"""The picture of a report, and both written to the disk."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(report: Mapping[str, Any], path: Path) -> str | None:
    """Draw the picture; a sentence when it cannot be drawn, which is no failure of the service."""
    if importlib.util.find_spec("matplotlib") is None:
        return (
            "No picture: matplotlib is not installed here. To get it:\n"
            f"  {sys.executable} -m pip install matplotlib\n"
            f"  {sys.executable} {Path(sys.argv[0])} --plot {path.with_suffix('.json')}"
        )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, latency, rate) = pyplot.subplots(3, 1, figsize=(11, 10), sharex=True, layout="constrained")
    figure.suptitle(f"{report['url']} ({report['server']}), {report['began'][:16]}: {report['verdict'].upper()}")
    _draw_memory(memory, report["samples"])
    moments = report["timeline"][:-1]  # the last stretch of time is incomplete and would look like a breakdown
    at = [moment["at"] / 60 for moment in moments]
    for name, colour in (("p50_ms", "tab:blue"), ("p99_ms", "tab:orange")):
        values = [math.nan if moment[name] is None else moment[name] for moment in moments]
        latency.plot(at, values, color=colour, label=name.removesuffix("_ms"))
    step = at[1] * 60 if len(at) > 1 else 1.0
    rate.plot(at, [moment["requests"] / step for moment in moments], color="tab:green", label="requests")
    for name, colour in (("errors", "tab:red"), ("busy", "tab:purple")):
        rate.bar(at, [moment[name] / step for moment in moments], width=step / 60, color=colour, label=name)
    axes = ((memory, "memory, MB"), (latency, "time to answer, ms"), (rate, "per second"))
    for panel, label in axes:
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    rate.set_xlabel("minutes")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return None


def _draw_memory(panel: Any, samples: Sequence[Mapping[str, Any]]) -> None:
    colours = {"workers": "tab:blue", "supervisor": "tab:gray", "database": "tab:orange"}
    at = [sample["at"] / 60 for sample in samples]
    for kind in dict.fromkeys(process["kind"] for sample in samples for process in sample["processes"]):
        own = [[p for p in sample["processes"] if p["kind"] == kind] for sample in samples]
        colour = colours.get(kind, "black")
        panel.plot(at, [sum(p["memory_mb"] for p in some) for some in own], color=colour, label=f"{kind}, all")
        for pid in dict.fromkeys(p["pid"] for some in own for p in some) if kind == "workers" else ():
            points = [(x, p["memory_mb"]) for x, some in zip(at, own, strict=True) for p in some if p["pid"] == pid]
            panel.plot(*zip(*points, strict=True), color=colour, linewidth=0.7, alpha=0.6, label=f"worker {pid}")
    if samples:
        panel.axvspan(at[-1] / 2, at[-1], color="black", alpha=0.05, label="judged")


def write(report: Mapping[str, Any], path: Path) -> list[str]:
    """Write the report and the picture beside it; sentences about what could not be written."""
    problems = []
    try:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"Report: {path}")
    except OSError as error:
        problems.append(f"the report could not be written to {path}: {error.strerror}.")
    if "timeline" in report:
        picture = path.with_suffix(".png")
        try:
            print(draw(report, picture) or f"Picture: {picture}")
        except OSError as error:
            problems.append(f"the picture could not be written to {picture}: {error.strerror}.")
    return problems
