"""Flask's own server, for developing: reloads when a file changes. `python -m recognizer.servers.development`."""

from __future__ import annotations

from recognizer import config, logs
from recognizer.app import create_app
from recognizer.servers.windows import for_one_process


def main() -> None:
    """Serve with Flask's development server; never meant for production."""
    settings = for_one_process(config.load())
    logs.configure(settings.log_level, settings.log_format)
    create_app(settings).run(settings.host.strip("[]"), settings.port, debug=False, use_reloader=True, threaded=True)


if __name__ == "__main__":
    main()
