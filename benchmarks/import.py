"""Measures `recognizer import` of many encodings: minutes, rate and the peak memory of the importing process.

    python benchmarks/import.py
    python benchmarks/import.py --faces 100000 --faces-per-person 4

Synthetic encodings (_synthetic.py) are saved as .npz, and imported by the command itself into a bundled PostgreSQL of
its own in a temporary folder (a million take about 4 GB). Then they are exported and that file is imported into a
second one. Peak memory is what the system counted of each process, without PostgreSQL.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _synthetic import Population


def run(*arguments: str) -> tuple[float, float]:
    """Run a command of the program; seconds, and MB of memory of the largest so far."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "recognizer", *arguments], check=True)
    seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--faces-per-person", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--only-encodings", action="store_true", help="leave out export and import of the export")
    options = parser.parse_args()
    population = Population()
    people = options.faces // options.faces_per_person
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another user
        who = np.repeat(population.people(people), options.faces_per_person, axis=0)
        names = np.repeat(np.array([f"person {n}" for n in range(people)]), options.faces_per_person)
        np.savez(folder / "encodings.npz", names=names, encodings=population.faces(who))
        del who, names
        steps = {"import of encodings": ("import", str(folder / "encodings.npz"), "--data-dir", str(folder / "one"))}
        if not options.only_encodings:
            export = str(folder / "people.zip")
            steps["export"] = ("export", export, "--data-dir", str(folder / "one"))
            steps["import of the export"] = ("import", export, "--data-dir", str(folder / "two"))
        print(f"{'':<24}{'minutes':>10}{'faces/s':>10}{'peak MB so far':>16}")
        for step, arguments in steps.items():
            seconds, peak = run(*arguments)
            print(f"{step:<24}{seconds / 60:>10.2f}{options.faces / seconds:>10.0f}{peak:>16.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
