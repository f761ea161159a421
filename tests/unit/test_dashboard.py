"""The Grafana dashboard names only what is measured, and shows all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recognizer.metrics import VOCABULARY

DASHBOARD = Path(__file__).resolve().parents[2] / "config" / "grafana-dashboard.json"

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
SAMPLES = {name + suffix: name for name, declared in VOCABULARY.items() for suffix in SUFFIXES[declared.kind]}
"""What a scrape holds, and the metric of the vocabulary that it belongs to."""

OF_THE_SCRAPE = {"instance", "job"}
"""Labels that Prometheus itself adds."""

ROWS = [
    "Traffic",
    "Latency by route",
    "Stages",
    "Decisions",
    "Errors by code",
    "Engine queue",
    "Pool",
    "Database",
    "Memory per worker",
    "Restarts",
]


def labels_of(sample: str) -> set[str]:
    declared = VOCABULARY[SAMPLES[sample]]
    own = {"le"} if sample.endswith("_bucket") else {"pid"} if declared.over_workers == "liveall" else set()
    return {*declared.labels, *own, *OF_THE_SCRAPE}


def samples_in(query: str) -> set[str]:
    return set(re.findall(r"\brecognizer_\w+", query))


def mistakes(query: str, legend: str = "") -> list[str]:
    """What in a query does not exist; [] when it is right."""
    unknown = [f"no metric {sample}" for sample in samples_in(query) if sample not in SAMPLES]
    if unknown or not samples_in(query):
        return unknown or ["no metric at all"]
    found = []
    for sample, matchers in re.findall(r"(recognizer_\w+)\s*\{([^}]*)\}", query):
        named = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", matchers)
        found += [f"{sample} has no label {label}" for label in named if label not in labels_of(sample)]
    everywhere = set.intersection(*(labels_of(sample) for sample in samples_in(query)))
    groups = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", query)
    grouped = {label.strip() for group in groups for label in group.split(",") if label.strip()}
    found += [f"nothing to group by {label}" for label in grouped - everywhere]
    shown = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))
    aggregated = re.search(r"\b(?:sum|min|max|avg|count)\b", query) is not None
    found += [f"no {label} for the legend" for label in shown - (grouped if aggregated else everywhere)]
    return found


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Title of the panel, query, legend."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


def test_every_query_names_only_declared_metrics_and_labels(dashboard: dict[str, Any]) -> None:
    assert {title: found for title, query, legend in queries(dashboard) if (found := mistakes(query, legend))} == {}


def test_the_choice_of_instances_uses_a_declared_metric(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert set(variables) == {"datasource", "instance"}
    assert variables["datasource"]["type"] == "datasource"
    assert mistakes(variables["instance"]["query"]["query"]) == []


def test_every_declared_metric_is_on_a_panel(dashboard: dict[str, Any]) -> None:
    shown = {SAMPLES[sample] for _, query, _ in queries(dashboard) for sample in samples_in(query)}
    assert shown == set(VOCABULARY)


def test_the_dashboard_can_be_imported_anywhere(dashboard: dict[str, Any]) -> None:
    assert [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"] == ROWS
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in dashboard["panels"]:
        places = [panel, *panel.get("targets", [])] if panel["type"] != "row" else []
        assert all(place["datasource"] == chosen for place in places), panel["title"]
    assert all('instance=~"$instance"' in query for _, query, _ in queries(dashboard))


def test_no_two_panels_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells


@pytest.mark.parametrize(
    ("query", "legend"),
    [
        ("recognizer_requests", ""),  # a counter's samples end in _total
        ("rate(recognizer_surprises_total[5m])", ""),
        ("recognizer_pool_idle_total", ""),
        ("recognizer_request_seconds", ""),
        ("up", ""),
        ('sum(rate(recognizer_requests_total{person="Ada"}[5m]))', ""),
        ("sum by (person) (rate(recognizer_requests_total[5m]))", ""),
        ("sum by (le) (rate(recognizer_requests_total[5m]))", ""),
        ("sum by (pid) (recognizer_pool_idle)", ""),  # added up over the workers before it is scraped
        ("sum by (route) (rate(recognizer_requests_total[5m]))", "{{status}}"),
        ("recognizer_pool_idle", "{{route}}"),
    ],
)
def test_this_test_sees_mistakes(query: str, legend: str) -> None:
    assert mistakes(query, legend)
