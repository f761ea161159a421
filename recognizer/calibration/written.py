"""The report as JSON and as text; figures are rounded to what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from recognizer.calibration.figures import AtScore, Figure, Rate, Spread
from recognizer.calibration.mending import Outlier, Pair
from recognizer.calibration.report import Report, percent
from recognizer.faces import PersonRef

PAIR = ("likeness", "score", "person", "and")

SHOWN = 10
"""So many of each list stand in the text; JSON has more."""


def as_json(report: Report) -> dict[str, Any]:
    """The report in JSON types, without the single scores."""
    findings = report.findings
    return {
        "collection": report.collection,
        "gallery_revision": report.revision,
        "people": {
            "enrolled": report.used.people_enrolled,
            "used": report.used.people,
            "with_two_photos": report.used.people_with_two_photos,
        },
        "photos": {"enrolled": report.used.photos_enrolled, "used": report.used.photos},
        "rule": {"target_fpir": report.target_fpir, **_at(report.in_force)} if report.in_force else None,
        "figures": [_figure(figure) for figure in report.figures],
        "recommendation": {
            "target_fpir": report.recommendation.target_fpir,
            "reason": report.recommendation.reason,
        },
        "scores": {
            "genuine": _spread(report.genuine),
            "impostor": _spread(report.impostor),
            "strangers": _spread(report.strangers),
        },
        "outliers": _list(findings.outlier_count, [_outlier(each) for each in findings.outliers]),
        "probable_duplicates": _list(findings.duplicate_count, [_pair(each) for each in findings.duplicates]),
        "confusable_pairs": _list(findings.confusable_count, [_pair(each) for each in findings.confusable]),
        "notes": list(report.notes),
    }


def _list(count: int, listed: list[dict[str, Any]]) -> dict[str, Any]:
    return {"count": count, "listed": listed}


def _figure(figure: Figure) -> dict[str, Any]:
    measured = _at(figure.measured) if figure.measured else None
    return {"fpir": figure.fpir, "measured": measured, "too_few": figure.too_few, "rule": _at(figure.rule)}


def _at(at: AtScore) -> dict[str, Any]:
    return {"score": round(at.score, 4), "tpir": _rate(at.tpir), "fpir": _rate(at.fpir)}


def _rate(rate: Rate | None) -> dict[str, Any] | None:
    if rate is None:
        return None
    return {
        "rate": round(rate.share, 4) if rate.stated else None,
        "low": round(rate.low, 4),
        "high": round(rate.high, 4),
        "events": rate.events,
        "trials": rate.trials,
        "people": rate.people,
    }


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {"count": spread.count, "percentiles": {str(at): round(score, 4) for at, score in spread.percentiles}}


def _outlier(outlier: Outlier) -> dict[str, Any]:
    return {
        "person": _known(outlier.person),
        "face_ids": list(outlier.face_ids),
        "likeness": round(outlier.likeness, 3),
        "more_like": _known(outlier.rival) if outlier.rival else None,
        "suggestion": outlier.suggestion,
    }


def _pair(pair: Pair) -> dict[str, Any]:
    people = [_known(person) for person in pair.people]
    return {"people": people, "likeness": round(pair.likeness, 3), "score": round(pair.score, 3)}


def _known(person: PersonRef) -> dict[str, str]:
    return {"id": person.id, "name": person.name}


# -- for a terminal --


def as_text(report: Report) -> str:
    """The report for a reader."""
    used = report.used
    parts = [
        f"Collection {report.collection}, revision {report.revision}. "
        f"People: {_of(used.people, used.people_enrolled)}, with two photos or more: {used.people_with_two_photos:,}. "
        f"Photos: {_of(used.photos, used.photos_enrolled)}."
    ]
    parts += report.notes
    if report.in_force:
        parts += ["", *_rates(report, report.in_force)]
        parts += ["", *_spreads(report)]
    parts += ["", f"Recommended target: {report.recommendation.reason}."]
    return "\n".join([*parts, *_findings(report)])


def _of(used: int, enrolled: int) -> str:
    return f"{used:,}" if used == enrolled else f"{used:,} of {enrolled:,}"


def _rates(report: Report, in_force: AtScore) -> Iterator[str]:
    rows = [("", "score", "genuine named (TPIR)", "strangers named (FPIR)")]
    rows.append(_row(f"rule in force, target {percent(report.target_fpir)}", in_force))
    for figure in report.figures:
        if figure.fpir != report.target_fpir:
            rows.append(_row(f"rule at {percent(figure.fpir)}", figure.rule))
    rows += [_row(f"measured at {percent(each.fpir)}", each.measured) for each in report.figures if each.measured]
    yield from _table(rows)
    for figure in report.figures:
        if figure.too_few:
            yield f"measured at {percent(figure.fpir)}: {figure.too_few}"


def _row(name: str, at: AtScore) -> tuple[str, str, str, str]:
    return name, f"{at.score:.3f}", _rate_in_words(at.tpir), _rate_in_words(at.fpir)


def _rate_in_words(rate: Rate | None) -> str:
    if rate is None:
        return "unknown"
    counts = f"{rate.events:,} of {rate.trials:,}"
    if not rate.stated:
        return f"{counts}, too few for a rate"
    low, high = (f"{share * 100:.1f}" for share in (rate.low, rate.high))
    return f"{rate.share * 100:.1f} % ({low} to {high})  {counts}"


def _spreads(report: Report) -> Iterator[str]:
    known = [
        ("genuine photos", report.genuine),
        ("strangers' best", report.strangers),
        ("strangers, each pair", report.impostor),
    ]
    rows = [
        (name, f"{found.count:,}", *(f"{score:.3f}" for _, score in found.percentiles))
        for name, found in known
        if found
    ]
    if rows:
        first = next(found for _, found in known if found)
        heads = [f"{at} %" for at, _ in first.percentiles]
        yield from _table([("scores below which are", "count", *heads), *rows])


def _findings(report: Report) -> Iterator[str]:
    findings = report.findings
    outliers = [
        (f"{each.likeness:.2f}", each.person.name, each.rival.name if each.rival else "", ", ".join(each.face_ids))
        for each in findings.outliers
    ]
    yield from _section(
        "Photos unlike their person's others (look at each; delete it if it is poor or of somebody else)",
        findings.outlier_count,
        ("likeness", "person", "more like", "face"),
        outliers,
    )
    yield from _section(
        "Probably one person, enrolled as two (merge them, if so)",
        findings.duplicate_count,
        PAIR,
        _pairs(findings.duplicates),
    )
    yield from _section(
        "People who may be taken for each other (more photos of both help)",
        findings.confusable_count,
        PAIR,
        _pairs(findings.confusable),
    )


def _pairs(pairs: Sequence[Pair]) -> list[tuple[str, ...]]:
    return [(f"{each.likeness:.2f}", f"{each.score:.2f}", each.people[0].name, each.people[1].name) for each in pairs]


def _section(title: str, count: int, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if count:
        yield ""
        yield f"{title}: {count:,}" + (f", the first {SHOWN}" if count > SHOWN else "")
        yield from _table([head, *rows[:SHOWN]])


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
