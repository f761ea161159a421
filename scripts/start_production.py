"""Set everything up and run the service in production: python3 scripts/start_production.py [options]

Options (each is also a setting, see config/recognizer.toml; all of them: recognizer serve --help):
  --host ADDRESS    where to listen (127.0.0.1: only this machine; anything else needs an API key first)
  --port NUMBER     8000
  --workers NUMBER  server processes (one per core)
  --threads NUMBER  requests at a time in each of them
  --data-dir DIR    where people and their faces are kept
  --config FILE     the settings file (config/recognizer.toml)

On Windows it does what start_windows_production.py does.
"""

from __future__ import annotations

import os
import sys

import start_windows_production
from _setup import run_service


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    elif os.name == "nt":
        start_windows_production.main()
    else:
        run_service(sys.argv[1:])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the next start goes on from here.")
