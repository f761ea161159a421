"""Set everything up and run all checks: python3 scripts/run_tests.py [options for pytest]

Lint, types and tests, with the bundled PostgreSQL and real photos; nothing has to be installed first.
The photos come with the face_recognition source package; with ../shared beside the checkout more tests run.
"""

from __future__ import annotations

import subprocess
import sys
import time

from _setup import ROOT, ensure_environment

LIMIT_SECONDS = 30 * 60
PROCESSES = ("--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")


def main() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    python = str(ensure_environment("dev"))
    checks = {
        "lint": [python, "-m", "ruff", "check", "--quiet", "."],
        "format": [python, "-m", "ruff", "format", "--check", "--quiet", "."],
        "types": [python, "-m", "mypy"],
        # Most of the time is spent waiting, for servers to start and faults to take effect: two processes share it.
        # Files go to them in the order of tests/conftest.py, the long ones first.
        "tests": [python, "-m", "pytest", *PROCESSES, *sys.argv[1:]],
    }
    failed = []
    for name, command in checks.items():
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        try:
            code = subprocess.run(command, cwd=ROOT, timeout=LIMIT_SECONDS).returncode
        except subprocess.TimeoutExpired:
            print(f"stopped after {LIMIT_SECONDS // 60} minutes")
            code = 1
        print(
            f"== {name}: {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if code:
            failed.append(name)
    print("\nAll checks passed." if not failed else f"\nFailed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
