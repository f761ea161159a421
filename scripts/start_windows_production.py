"""Set everything up and run the service with waitress: python scripts\\start_windows_production.py [options]

This is the start script for Windows, which start_recognizer_windows.bat calls; it works on other systems as well.
waitress is one process: it gets --workers times --threads threads.

Options (each is also a setting, see config\\recognizer.toml; all of them: recognizer serve --help):
  --host ADDRESS    where to listen (127.0.0.1: only this machine; anything else needs an API key first)
  --port NUMBER     8000
  --workers NUMBER  as many times --threads (one per core)
  --threads NUMBER  4
  --data-dir DIR    where people and their faces are kept
  --config FILE     the settings file (config\\recognizer.toml)
"""

from __future__ import annotations

import sys

from _setup import run_service


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        run_service(["--server", "waitress", *sys.argv[1:]])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the next start goes on from here.")
