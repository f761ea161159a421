"""The picture of a report: memory, latency, requests and, with faults, what was broken when."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"workers": "tab:blue", "supervisor": "tab:gray", "database": "tab:orange"}
WORKERS_NAMED = 4  # more of them, since many were killed, would fill the legend
FAULTS_LINED = 200  # more lines would hide the curves


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

    faults = report.get("faults") or []
    heights = [3, 3, 3, 2] if faults else [3, 3, 3]
    figure, panels = pyplot.subplots(
        len(heights), 1, figsize=(11, sum(heights) + 1), height_ratios=heights, sharex=True, layout="constrained"
    )
    figure.suptitle(f"{report['url']} ({report['server']}), {report['began'][:16]}: {report['verdict'].upper()}")
    _draw_memory(panels[0], report["samples"])
    moments = report["timeline"][:-1]  # the last stretch of time is incomplete and would look like a breakdown
    _draw_latency(panels[1], moments)
    _draw_rate(panels[2], moments)
    labels = ("memory, MB", "time to answer, ms", "per second")
    for panel, label in zip(panels[:3], labels, strict=True):
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        for fault in faults if len(faults) <= FAULTS_LINED else ():
            panel.axvline(fault["at"] / 60, color="tab:red", alpha=0.35, linewidth=0.8)
    if faults:
        _draw_faults(panels[3], faults)
    panels[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return None


def _draw_latency(panel: Any, moments: Sequence[Mapping[str, Any]]) -> None:
    at = [moment["at"] / 60 for moment in moments]
    for name, colour in (("p50_ms", "tab:blue"), ("p99_ms", "tab:orange")):
        values = [math.nan if moment[name] is None else moment[name] for moment in moments]
        panel.plot(at, values, color=colour, linewidth=1.0, label=name.removesuffix("_ms"))


def _draw_rate(panel: Any, moments: Sequence[Mapping[str, Any]]) -> None:
    at = [moment["at"] / 60 for moment in moments]
    step = at[1] * 60 if len(at) > 1 else 1.0
    panel.plot(
        at, [moment["requests"] / step for moment in moments], color="tab:green", linewidth=1.0, label="requests"
    )
    for name, colour in (("excused", "tab:orange"), ("busy", "tab:purple"), ("errors", "tab:red")):
        rates = [moment.get(name, 0) / step for moment in moments]
        if name != "excused" or any(rates):
            label = "refused, by a fault" if name == "excused" else name
            panel.bar(at, rates, width=step / 60, color=colour, label=label)


def _draw_memory(panel: Any, samples: Sequence[Mapping[str, Any]]) -> None:
    at = [sample["at"] / 60 for sample in samples]
    for kind in dict.fromkeys(process["kind"] for sample in samples for process in sample["processes"]):
        own = [[p for p in sample["processes"] if p["kind"] == kind] for sample in samples]
        colour = COLOURS.get(kind, "black")
        panel.plot(at, [sum(p["memory_mb"] for p in some) for some in own], color=colour, label=f"{kind}, all")
        pids = list(dict.fromkeys(p["pid"] for some in own for p in some)) if kind == "workers" else []
        for number, pid in enumerate(pids):
            points = [(x, p["memory_mb"]) for x, some in zip(at, own, strict=True) for p in some if p["pid"] == pid]
            label = f"worker {pid}" if len(pids) <= WORKERS_NAMED else "_" if number else "each worker"
            panel.plot(*zip(*points, strict=True), color=colour, linewidth=0.7, alpha=0.6, label=label)
    if samples:
        panel.axvspan(at[-1] / 2, at[-1], color="black", alpha=0.05, label="judged")


def _draw_faults(panel: Any, faults: Sequence[Mapping[str, Any]]) -> None:
    """A line for each kind: how long the fault lasted, and until when the service was troubled by it."""
    kinds = sorted({fault["kind"] for fault in faults}, reverse=True)
    for fault in faults:
        row, lasted = kinds.index(fault["kind"]), (fault["seconds"] or 0.0) / 60
        panel.barh(row, lasted, left=fault["at"] / 60, height=0.5, color="tab:red")
        healing = (fault["recovery_seconds"] or 0.0) / 60
        panel.barh(row, healing, left=fault["at"] / 60 + lasted, height=0.5, color="tab:orange")
        panel.plot(fault["at"] / 60, row, marker="|", color="tab:red", markersize=10)
    panel.set_yticks(range(len(kinds)), kinds)
    panel.set_ylim(-0.7, len(kinds) - 0.3)
    panel.grid(alpha=0.3, axis="x")
    panel.set_title("faults (red) and recoveries (orange)", fontsize="medium", loc="left")
