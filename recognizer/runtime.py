"""What one worker owns and has to close: the database pool and the models. Opened after fork."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from recognizer.comparing import Comparer
from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import ConfigError, RecognizerError
from recognizer.gallery.cohort_keeper import CohortKeeper
from recognizer.gallery.holdings import Holdings
from recognizer.gallery.index_keeper import IndexKeeper
from recognizer.gallery.key_uses import KeyUses
from recognizer.gallery.keys import Keys
from recognizer.gallery.migrate import pending
from recognizer.gallery.opened import Opened
from recognizer.gallery.pool import Pool
from recognizer.gallery.retention import RetentionKeeper
from recognizer.gallery.store import Gallery
from recognizer.gallery.template_index import TemplateIndex
from recognizer.gallery.trail import Trail
from recognizer.metrics import Metrics, Tally
from recognizer.news import News
from recognizer.scene import Scenes
from recognizer.service import Service
from recognizer.vision.engine import Engine, open_engine
from recognizer.vitals import Vitals

EXPORTS = 2
"""So many exports of people at a time in a worker: each holds a photo in memory."""

HEALTH_TIMEOUT_SECONDS = 1.5
"""How long a readiness check waits for the database."""


class Runtime:
    """One worker's resources; `close()` releases them, in reverse order and only once."""

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ConfigError(
                "RECOGNIZER_DATABASE_URL is not set; `recognizer serve` sets it for its workers, "
                "a server started by hand needs it."
            )
        self.settings = settings
        self.calibrating = threading.Lock()
        self.exporting = threading.BoundedSemaphore(EXPORTS)
        self.metrics = Metrics()
        self.tally = Tally()
        with contextlib.ExitStack() as opening:
            self.pool = Pool.open(settings)
            opening.callback(self.pool.close)
            self.key_uses = opening.enter_context(KeyUses(self.pool))
            self.engine: Engine = open_engine(settings)
            opening.callback(self.engine.close)
            opened = opening.enter_context(Opened(self.pool, settings.worker_memory_bytes // 4))
            opening.enter_context(CohortKeeper(self.pool, opened))
            opening.enter_context(RetentionKeeper(self.pool))
            index = TemplateIndex(settings.database_url.get_secret_value())
            opening.enter_context(IndexKeeper(self.pool, index))
            opening.enter_context(Vitals(self.engine, self.pool, self.metrics, self.tally, settings.vitals_seconds))
            self.news = opening.enter_context(News(self.pool, settings))
            self._closing = opening.pop_all()
        self.gallery = Gallery(self.pool, opened)
        self.holdings = Holdings(self.pool)
        self.keys = Keys(self.pool)
        self.trail = Trail(self.pool)
        self.service = Service(self.engine, self.gallery, settings)
        self.scenes = Scenes(self.engine, self.gallery, self.service)
        self.comparer = Comparer(self.engine, self.gallery, settings)

    def health(self) -> dict[str, dict[str, Any]]:
        """What readiness depends on: each part with `ok` and, where it is not, a `detail`."""
        checks: dict[str, dict[str, Any]] = {
            "models": {"ok": True, "model_id": self.engine.model_id, **self.engine.parts},
            "encryption": {"ok": True, "keys": list(self.settings.keyring.ids)},
        }
        try:
            with self.pool.connection(Deadline(HEALTH_TIMEOUT_SECONDS)) as connection:
                missing = pending(connection)
        except RecognizerError as error:
            checks["database"] = {"ok": False, "detail": str(error)}
        else:
            checks["database"] = {"ok": True}
            checks["migrations"] = {"ok": not missing}
            if missing:
                checks["migrations"]["detail"] = f"Not applied yet: {', '.join(missing)}."
        return checks

    def end_streams(self) -> None:
        """End the answers that have no end; new ones are refused."""
        self.news.end()

    def close(self) -> None:
        """Close the models, then the pool."""
        self._closing.close()
