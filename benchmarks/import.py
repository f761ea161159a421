"""Measures `recognizer import` of many encodings: minutes, rate, and the peak memory of the command and of PostgreSQL.

    python benchmarks/import.py
    python benchmarks/import.py --faces 100000 --faces-per-person 4

Synthetic encodings (_synthetic.py) are saved as .npz, and imported by the command itself into a bundled PostgreSQL of
its own in a temporary folder. Then they are exported and that file is imported into a second one. Memory is looked at
twice a second, each process with its proportional share; what files the temporary folder holds after each step is told
as well (a million faces: about 7 GB at the end).
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _synthetic import Population

WEIGHING_SECONDS = 0.5


@dataclass
class Run:
    """What one command took; the memory of a process is its proportional share, in MB."""

    seconds: float = 0.0
    command_mb: float = 0.0
    postgres_mb: float = 0.0

    def weigh(self, pid: int) -> None:
        """Note what the command and the processes below it hold now."""
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            command = psutil.Process(pid)
            self.command_mb = max(self.command_mb, megabytes(command))
            servers = [process for process in command.children(recursive=True) if process.name() == "postgres"]
            self.postgres_mb = max(self.postgres_mb, sum(map(megabytes, servers)))


def megabytes(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().pss / 2**20
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
        return 0.0


def run(*arguments: str) -> Run:
    """Run a command of the program."""
    done = Run()
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "recognizer", *arguments]) as process:
        while process.poll() is None:
            done.weigh(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WEIGHING_SECONDS)
    done.seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(process.returncode)
    return done


def size_mb(folder: Path) -> float:
    """What the files below a folder take."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 2**20


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
        print(f"{'':<24}{'minutes':>10}{'faces/s':>10}{'command, MB':>14}{'PostgreSQL, MB':>16}{'folder, MB':>12}")
        for step, arguments in steps.items():
            done = run(*arguments)
            line = f"{step:<24}{done.seconds / 60:>10.2f}{options.faces / done.seconds:>10.0f}"
            print(f"{line}{done.command_mb:>14.0f}{done.postgres_mb:>16.0f}{size_mb(folder):>12.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
