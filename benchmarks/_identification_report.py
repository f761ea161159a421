"""What `identification.py` prints and draws about the galleries of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from _identification import (
    Figures,
    Judged,
    Probes,
    Weights,
    det,
    expected,
    limits,
    percentiles,
    plain,
    resampled,
    share,
    tpir,
)
from _open_set import NO_FACE, PLAIN_THRESHOLD, Outcome, arrays_of
from _report import table

RATES = (0.1, 0.01, 0.001)
RESAMPLES = 1_000
FEW = 10
"""Strangers named, below which a figure is a hint."""
FACTOR = 2
"""Within which realised FPIR is to be of its target."""
CURVE_POINTS = 60
COLOURS = {"distance": "tab:gray", "rule": "tab:blue"}


class Limited(NamedTuple):
    """A figure and its 95 % limits."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Limited:
        return Limited(*(factor * each for each in self))

    def text(self, digits: int) -> str:
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    def percent(self) -> str:
        return self.times(100).text(1)


@dataclass(frozen=True)
class Result:
    """What came of all galleries of one size. The rows are `distance` and `rule`."""

    people: int
    draws: int
    target: float
    outcomes: Sequence[Outcome]
    probes: Probes
    judged: dict[str, Judged]
    rates: Figures
    """FPIRs: RATES, that of the rule as decided, then those of the curve."""
    points: dict[str, Figures]
    """By row, (1, rates + 2): TPIR at each of `rates`, then TPIR and FPIR with the threshold in force."""
    spread: dict[str, Figures]
    """The same of RESAMPLES, the same ones for both rows."""

    def tpir_at(self, row: str, rate: int) -> Limited:
        value, values = self.points[row][0, rate], self.spread[row][:, rate]
        return Limited(value, *limits(value, values, self.probes.people))

    def ratio_at(self, rate: int) -> Limited | None:
        """TPIR of the rule as a multiple of that of the distance."""
        if self.points["distance"][0, rate] == 0:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            value, values = (of["rule"][:, rate] / of["distance"][:, rate] for of in (self.points, self.spread))
        return Limited(value[0], *percentiles(values))

    def decided(self, row: str) -> tuple[Limited, Limited]:
        """TPIR and FPIR with the threshold in force."""
        people = (self.probes.people, self.probes.strangers)
        both = []
        for column, number in zip((-2, -1), people, strict=True):
            value, values = self.points[row][0, column], self.spread[row][:, column]
            both.append(Limited(value, *limits(value, values, number)))
        return both[0], both[1]


def result_of(people: int, draws: int, target: float, outcomes: Sequence[Outcome], seed: int) -> Result:
    """Reckon all figures and their limits."""
    probes, distance, rule = arrays_of(outcomes)
    judged = {"distance": distance, "rule": rule}
    named = float(share(rule.match, ~probes.enrolled, plain(probes))[0])
    curve = np.geomspace(1 / max(2, int((~probes.enrolled).sum())), 1, CURVE_POINTS)
    rates = np.array([*RATES, named, *curve])
    points = {row: _figures(judged[row], probes, rates, plain(probes)) for row in judged}
    parts: dict[str, list[Figures]] = {row: [] for row in judged}
    for weights in resampled(probes, RESAMPLES, seed):
        for row, found in parts.items():
            found.append(_figures(judged[row], probes, rates, weights))
    spread = {row: np.concatenate(found) for row, found in parts.items()}
    return Result(people, draws, target, outcomes, probes, judged, rates, points, spread)


def _figures(judged: Judged, probes: Probes, rates: Figures, weights: Weights) -> Figures:
    named = share(judged.match & judged.right, probes.enrolled, weights)
    wrongly = share(judged.match, ~probes.enrolled, weights)
    return np.column_stack([tpir(judged, probes, rates, weights), named, wrongly])


def galleries_in_words(draws: int, people: int) -> str:
    return f"{draws} {'gallery' if draws == 1 else 'galleries'} of {people:,} people"


def percent(share: float) -> str:
    return f"{share * 100:g} %"


# -- in print --


def report(result: Result) -> None:
    """All tables of one size of galleries, each figure with its 95 % limits."""
    enrolled, strangers = int(result.probes.enrolled.sum()), int((~result.probes.enrolled).sum())
    galleries = galleries_in_words(result.draws, result.people)
    print(f"\n{galleries}: {enrolled:,} probes of {result.probes.people:,} of them,")
    print(f"{strangers:,} probes of {result.probes.strangers:,} strangers. In brackets: 95 % limits.\n")
    head = ("TPIR, %", *(f"at FPIR {percent(rate)}" for rate in RATES))
    print(table(head, [*(_matched_row(result, row) for row in result.judged), _ratio_row(result)]))
    for line in _warnings(result):
        print(line)
    print("\n" + table(("as decided, %", "TPIR", "FPIR", "times the target"), _decided_rows(result)))
    print(f"\n{verdict(result)}\n")
    head = ("decisions of the rule, %", "right", "wrong", "ambiguous", "low quality", "unknown", "no face")
    print(table(head, _decision_rows(result)))


def _matched_row(result: Result, row: str) -> tuple[str, ...]:
    figures = (result.tpir_at(row, n).percent() if _measurable(result, rate) else "-" for n, rate in enumerate(RATES))
    return (row, *figures)


def _ratio_row(result: Result) -> tuple[str, ...]:
    ratios = (result.ratio_at(n) if _measurable(result, rate) else None for n, rate in enumerate(RATES))
    return ("rule / distance", *(ratio.text(2) if ratio else "-" for ratio in ratios))


def _measurable(result: Result, rate: float) -> bool:
    return expected(rate, result.probes) >= 1


def _warnings(result: Result) -> Iterator[str]:
    for rate in RATES:
        events = expected(rate, result.probes)
        if events < 1:
            yield f"FPIR {percent(rate)} cannot be measured: it takes {round(1 / rate):,} probes of strangers."
        elif events < FEW:
            probes = "1 probe of a stranger" if int(events) == 1 else f"{int(events)} probes of strangers"
            yield f"FPIR {percent(rate)} rests on {probes} named: rather a hint than a figure."


def _decided_rows(result: Result) -> Iterator[tuple[str, ...]]:
    named = {"distance": f"distance at {PLAIN_THRESHOLD:g}", "rule": f"rule, target {percent(result.target)}"}
    for row, name in named.items():
        found, wrongly = result.decided(row)
        yield name, found.percent(), wrongly.percent(), wrongly.times(1 / result.target).text(2)
    there = result.tpir_at("distance", len(RATES))
    yield "distance at the rule's FPIR", there.percent(), f"{result.rates[len(RATES)]:.1%}".rstrip("%"), ""


def verdict(result: Result) -> str:
    """Whether realised FPIR is within FACTOR of the target, and whether that is sure, in a sentence."""
    _, wrongly = result.decided("rule")
    times = wrongly.times(1 / result.target)
    return f"Realised FPIR is {times.text(2)} times its target: {in_factor(times)}."


def in_factor(times: Limited) -> str:
    inside = 1 / FACTOR <= times.value <= FACTOR
    said = f"{'within' if inside else 'not within'} a factor of {FACTOR}"
    if times.low >= 1 / FACTOR and times.high <= FACTOR:
        return f"{said}, and so are the limits"
    if times.high < 1 / FACTOR or times.low > FACTOR:
        return f"{said}, nor are the limits"
    unsure = "but the limits go beyond" if inside else "which may be chance"
    return f"{said}, {unsure}; more strangers would tell"


def _decision_rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Shares of what was decided, with the strangers in whose photos no face was found."""
    for name, enrolled in (("enrolled", True), ("strangers", False)):
        decided = Counter(
            ("right" if each.rule.person == each.shown else "wrong")
            if each.rule.decision == "match"
            else each.rule.decision
            for each in result.outcomes
            if each.enrolled == enrolled
        )
        total = max(1, decided.total())
        kinds = ("right", "wrong", "ambiguous", "low_quality", "unknown", NO_FACE)
        yield name, *(f"{decided[kind] / total * 100:.1f}" for kind in kinds)


def summary(results: Sequence[Result]) -> str:
    """One line for each size."""
    rows = []
    for result in results:
        found, wrongly = result.decided("rule")
        ratio = result.ratio_at(RATES.index(0.01)) if _measurable(result, 0.01) else None
        times = wrongly.times(1 / result.target).text(2)
        rows.append((f"{result.people:,} people", found.percent(), times, ratio.text(2) if ratio else "-"))
    return table(("galleries of", "TPIR, %", "FPIR / target", "TPIR at FPIR 1 %, rule / distance"), rows)


# -- in a picture --


def draw_all(panels: Any, results: Sequence[Result]) -> None:
    """A panel for each size."""
    for panel, result in zip(panels, results, strict=True):
        _draw(panel, result)


def _draw(panel: Any, result: Result) -> None:
    """The DET curves of both rows with their limits, and where the rules in force are on them."""
    lowest = 0.5 / max(1, int(result.probes.enrolled.sum()))
    curve = result.rates[len(RATES) + 1 :]
    leftmost = 0.8 * curve[0]
    for row, judged in result.judged.items():
        wrong, missed = det(judged, result.probes)
        band = [result.tpir_at(row, n) for n in range(len(RATES) + 1, len(result.rates))]
        low, high = (np.maximum(lowest, [1 - getattr(each, side) for each in band]) for side in ("high", "low"))
        colour = COLOURS[row]
        panel.fill_between(curve, low, high, color=colour, alpha=0.15, linewidth=0, step="post")
        panel.step(wrong, np.maximum(lowest, missed), where="post", color=colour, label=row, linewidth=1.8)
        found, wrongly = (each.value for each in result.decided(row))
        at = f"distance at {PLAIN_THRESHOLD:g}" if row == "distance" else f"rule, target {percent(result.target)}"
        point = max(wrongly, curve[0]), max(lowest, 1 - found)
        panel.plot(
            *point, "o", color=colour, markeredgecolor="black", markersize=8, zorder=5, label=f"{at}, as decided"
        )
    panel.axvline(result.target, color="tab:red", linestyle=":", linewidth=1, label="target")
    _dress(panel, result, leftmost)


def _dress(panel: Any, result: Result, leftmost: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set(xscale="log", yscale="log", xlim=(leftmost, 1), ylim=(None, 1))
    panel.set(xlabel="FPIR: strangers named, %", ylabel="1 - TPIR: enrolled people not named rightly, %")
    panel.set_title(f"{galleries_in_words(result.draws, result.people)}; shaded: 95 % limits")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g}"))
        axis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3, which="both")
    panel.legend(fontsize="small", loc="best")
