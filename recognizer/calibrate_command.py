"""`recognizer calibrate`: the report on a collection, from the database, without a server and without models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from recognizer import installation
from recognizer.calibration import Report, calibrate
from recognizer.calibration.picture import draw
from recognizer.calibration.written import as_json, as_text
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import StartupError
from recognizer.gallery.pool import Pool
from recognizer.gallery.store import Gallery
from recognizer.vision.analysis import model_id
from recognizer.vision.weights import resnet_sha256

LIMIT_SECONDS = 600.0


def report(settings: Settings, collection: str) -> Report:
    """Read the collection and calibrate; a terminal shows how far it is.

    Raises:
        CollectionNotFound, DatabaseUnavailable, DeadlineExceeded, StartupError
    """
    # the name of the model's files is all it takes to find the faces that can be compared
    model = model_id(resnet_sha256(), settings.detector, settings.embedding_crops)
    deadline = Deadline(LIMIT_SECONDS)
    with installation.database(settings) as url, Pool.open(settings, url) as pool:
        enrolled = Gallery(pool).embeddings(collection, model, deadline)
    return calibrate(enrolled, settings.target_fpir, deadline, threshold=settings.threshold, progress=_tell)


def _tell(done: int, of: int) -> None:
    """How far it is, on one line of a terminal that goes away in the end."""
    if sys.stderr.isatty():
        click.echo(f"\r{done:,} of {of:,} photos tried " if done < of else "\r\x1b[K", nl=False, err=True)


def written(found: Report, json_wanted: bool) -> str:
    """The report as it is printed."""
    return json.dumps(as_json(found), indent=2, ensure_ascii=False) if json_wanted else as_text(found)


def save_picture(found: Report, path: Path) -> None:
    """Draw the report.

    Raises:
        StartupError: the file cannot be written.
    """
    try:
        path.write_bytes(draw(found))
    except OSError as error:
        raise StartupError(f"The picture {path} cannot be written: {error.strerror}.") from error
