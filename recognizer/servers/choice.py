"""Which server the supervisor runs: the wanted one, or Flask's own where gunicorn cannot run, never silently."""

from __future__ import annotations

import importlib.util

from recognizer.config import Settings


def choose(settings: Settings) -> tuple[Settings, str]:
    """The settings with a server that can run here, and a warning where it is not the wanted one, else ""."""
    lacking = _what_gunicorn_lacks()
    if settings.server != "gunicorn" or lacking is None:
        return settings, ""
    lines = (
        "WARNING: THIS IS FLASK'S DEVELOPMENT SERVER. IT IS NOT FOR PRODUCTION.",
        "",
        f"gunicorn cannot run here: the module `{lacking}` is missing.",
        "Install gunicorn, or serve with waitress: --server waitress",
    )
    edge = "*" * 78
    boxed = "\n".join([edge, *(f"* {line:<74} *" for line in lines), edge])
    return settings.model_copy(update={"server": "development"}), boxed


def processes_in_words(settings: Settings) -> str:
    """How many requests are served at a time, for the greeting."""
    if settings.server == "gunicorn":
        return f"{settings.workers} workers with {settings.threads} threads each"
    if settings.server == "waitress":
        return f"waitress, one process with {settings.workers * settings.threads} threads"
    return "Flask's development server, reloads when a file of the package changes"


def for_one_process(settings: Settings) -> Settings:
    """The settings with everything that is counted per worker given to the only one."""
    workers = settings.workers
    return settings.model_copy(
        update={
            "workers": 1,
            "threads": workers * settings.threads,
            "worker_memory_bytes": workers * settings.worker_memory_bytes,
            "pool_min": workers * settings.pool_min,
            "pool_max": workers * settings.pool_max,
        }
    )


def _what_gunicorn_lacks() -> str | None:
    """The module without which it cannot be imported; Windows has none of the last three."""
    needed = ("gunicorn", "fcntl", "grp", "pwd")
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)
