"""The app factory: reads like a table of contents. Importing this module does nothing."""

from __future__ import annotations

from flask import Flask

from recognizer import config
from recognizer.api import (
    calibration,
    collections,
    docs,
    event,
    exposure,
    faces,
    images,
    keys,
    observation,
    ops,
    people,
    problems,
    rejections,
    stream,
    trail,
    v1,
)
from recognizer.api.uploads import UploadRequest
from recognizer.config import Settings
from recognizer.runtime import Runtime


def create_app(settings: Settings | None = None, runtime: Runtime | None = None) -> Flask:
    """Build the WSGI app of one worker.

    Args:
        settings: default: what `config.load()` finds.
        runtime: what the app works with; default: one opened here. `app.extensions["recognizer"]` holds it,
            and whoever runs the app closes it.
    """
    settings = settings or config.load()
    app = Flask(__name__, static_folder=None)
    app.request_class = UploadRequest
    app.url_map.merge_slashes = False  # a redirect would be an answer of another shape
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    runtime = runtime or Runtime(settings)
    app.extensions["recognizer"] = runtime
    observation.register(app, runtime.metrics, runtime.tally)
    exposure.register(app, settings)
    problems.register(app)
    app.register_blueprint(v1.images())
    app.register_blueprint(v1.images(), url_prefix="/v1", name="v1_images")
    app.register_blueprint(event.blueprint(), url_prefix="/v1")
    app.register_blueprint(images.blueprint(), url_prefix="/v1")
    app.register_blueprint(people.blueprint(), url_prefix="/v1")
    app.register_blueprint(faces.blueprint(), url_prefix="/v1")
    app.register_blueprint(rejections.blueprint(), url_prefix="/v1")
    app.register_blueprint(collections.blueprint(), url_prefix="/v1")
    app.register_blueprint(calibration.blueprint(), url_prefix="/v1")
    app.register_blueprint(keys.blueprint(), url_prefix="/v1")
    app.register_blueprint(trail.blueprint(), url_prefix="/v1")
    app.register_blueprint(stream.blueprint(), url_prefix="/v1")
    app.register_blueprint(ops.blueprint())
    app.register_blueprint(docs.blueprint())
    return app
