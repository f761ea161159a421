"""What `recognizer import --re-embed` works with: the engine of this installation, and a report on each face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from recognizer import supervisor
from recognizer.config import Settings, available_cores
from recognizer.enrolling.items import Outcome, Row
from recognizer.enrolling.report import Report
from recognizer.moving.anew import Anew, Looked
from recognizer.moving.manifest import picture
from recognizer.vision.engine import open_engine

QUEUE_SECONDS = 600.0


@contextmanager
def encoding_anew(settings: Settings, report: Path, dry_run: bool) -> Iterator[tuple[Anew, Report]]:
    """What encodes faces anew, on all cores, and the report it writes.

    Raises:
        StartupError: the models or the report cannot be opened.
    """
    supervisor.prepare_models(settings.models_dir)
    # one process has all cores to itself, and whoever waits for one waits as long as it takes
    alone = settings.model_copy(update={"workers": 1, "queue_timeout_seconds": QUEUE_SECONDS})
    with closing(open_engine(alone)) as engine, Report(report) as written:

        def tell(looked: Looked) -> None:
            row = Row(picture("photo", looked.face.id), looked.name, _outcome(looked, dry_run))
            written.add(row)

        yield Anew(engine, tell, available_cores(), settings.max_image_bytes), written


def _outcome(looked: Looked, dry_run: bool) -> Outcome:
    if looked.refused is not None:
        return Outcome("refused", (looked.refused.code,), str(looked.refused))
    if looked.anew is None:
        return Outcome("already_enrolled")
    return Outcome("would_enrol" if dry_run else "enrolled", quality=looked.anew.quality.score)
