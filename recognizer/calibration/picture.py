"""The picture of a calibration: how genuine photos and strangers score, and where the rule draws its line."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np

from recognizer.calibration.cohorts import Scores
from recognizer.calibration.report import Report, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GENUINE, STRANGERS, RULE, TEXT = "#1b7f5c", "#c8553d", "#222222", "#555555"
MAX_BINS: Final = 60


def draw(report: Report) -> bytes:
    """The two distributions as a PNG; of people who are too few it says so."""
    # 55 MB of memory, which only those workers have that have drawn a picture. Without pyplot nothing is kept between
    # two pictures, and no window system is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _distributions(axes, report)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9.5)
    axes.set_title("What the enrolled photos score", loc="left", fontsize=14, fontweight="bold", pad=26)
    axes.text(0, 1.03, _subtitle(report), transform=axes.transAxes, fontsize=9.5, color=TEXT)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _subtitle(report: Report) -> str:
    used = report.used
    enrolled = f"people: {used.people:,}, photos: {used.photos:,}, target {percent(report.target_fpir)}"
    if not report.in_force:
        return enrolled
    named = [
        f"{what} {percent(rate.share)}" if rate.stated else f"{what} {rate.events:,} of {rate.trials:,}"
        for what, rate in (("genuine named:", report.in_force.tpir), ("strangers named:", report.in_force.fpir))
        if rate
    ]
    return ", ".join([enrolled, *named])


def _distributions(axes: Axes, report: Report) -> None:
    genuine = _known(report.trials.genuine) if report.trials else np.zeros(0)
    strangers = _known(report.trials.stranger) if report.trials else np.zeros(0)
    both = np.concatenate([genuine, strangers])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if not report.in_force or not len(both):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "Too few photos to draw anything", ha="center", va="center", color=TEXT, fontsize=13)
        return
    line = report.in_force.score
    low, high = min(both.min(), line) - 0.02, max(both.max(), line) + 0.02
    bins = np.linspace(low, high, min(MAX_BINS, 10 + int(np.sqrt(len(both)) * 2)) + 1)
    _histogram(axes, strangers, bins, STRANGERS, "strangers, with the best person")
    _histogram(axes, genuine, bins, GENUINE, "genuine photos, with their person")
    axes.axvline(line, color=RULE, linewidth=1.4, linestyle=(0, (5, 3)), label=f"a name from {line:.3f} on")
    axes.set_xlabel("score (likeness, less what either side has in common with its cohort)")
    axes.set_ylabel("share of the photos in each bar, %")
    axes.set_xlim(low, high)
    axes.margins(y=0.08)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _histogram(axes: Axes, scores: Scores, bins: Scores, colour: str, name: str) -> None:
    if not len(scores):
        return
    weights = np.full(len(scores), 100 / len(scores))
    axes.hist(scores, bins=bins.tolist(), weights=weights, color=colour, alpha=0.6, label=f"{name} ({len(scores):,})")


def _known(scores: Scores) -> Scores:
    return scores[np.isfinite(scores)]
