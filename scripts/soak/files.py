"""The report on the disk: JSON, and beside it the picture and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soak.page import page
from soak.picture import draw


def write(report: Mapping[str, Any], path: Path) -> list[str]:
    """Write the report, the picture and the page; sentences about what could not be written."""
    problems = []
    try:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"Report: {path}")
    except OSError as error:
        problems.append(f"the report could not be written to {path}: {error.strerror}.")
    return problems + (show(report, path) if "timeline" in report else [])


def show(report: Mapping[str, Any], path: Path) -> list[str]:
    """Write the picture and the page of a report that is at `path`."""
    problems = []
    picture, html = path.with_suffix(".png"), path.with_suffix(".html")
    try:
        missing = draw(report, picture)
        print(missing or f"Picture: {picture}")
        html.write_text(page(report, None if missing else picture.read_bytes()), encoding="utf-8")
        print(f"Page: {html}")
    except OSError as error:
        problems.append(f"the picture could not be written to {picture}, or the page beside it: {error.strerror}.")
    return problems
