"""The command line, and the way of one call."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from soak.console import print_criteria, print_table
from soak.files import show, write
from soak.photos import MAX_PEOPLE, MAX_PEOPLE_OF_SIEGE, Album, find_album, odd_photos, split_album, split_for_siege
from soak.places import DEFAULT_URL, HERE, SCRIPT, START_SCRIPT, VENV_PYTHON
from soak.problems import Misused, Wrong
from soak.run import Soak, answers
from soak.siege import Siege


def parse(description: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the script with exit code 2."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help=f"the service to load ({DEFAULT_URL}; one of its own when none runs there)")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long, for example 0.5 (5)")
    parser.add_argument("--hours", type=float, help="how long, in hours")
    parser.add_argument("--faults", action="store_true", help="break things meanwhile, in a service of its own")
    parser.add_argument("--seed", type=int, help="of what is random with --faults, to have it again (it is printed)")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at a time (4)")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="a folder per person, or photos of one face each")
    parser.add_argument("--key", default=os.environ.get("RECOGNIZER_API_KEY"), help="API key ($RECOGNIZER_API_KEY)")
    parser.add_argument("--report", type=Path, default=Path("soak-report.json"), metavar="FILE", help="%(default)s")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="only draw the picture and the page of this report")
    options = parser.parse_args(arguments)
    if options.hours is not None:
        options.minutes = options.hours * 60
    if options.seed is None:
        options.seed = secrets.randbelow(10**6)
    if not 0 < options.minutes <= 60 * 24 * 30:
        parser.error("--minutes (or --hours) must be more than 0 (fractions are fine) and at most a month.")
    if not 1 <= options.concurrency <= 256:
        parser.error("--concurrency must be 1 to 256.")
    if options.faults and options.url is not None:
        parser.error(
            "--faults and --url do not go together: faults kill processes and the database, so they are only done to a "
            "service that this script has started itself, on a data directory of its own. Leave --url out."
        )
    if options.url is not None:
        try:
            parts = urlsplit(options.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            parser.error(f"--url {options.url} is not an address like {DEFAULT_URL}.")
    if not options.report.absolute().parent.is_dir():
        parser.error(f"--report {options.report}: there is no such folder.")
    return options


def use_environment_of_checkout(wants_own_service: bool) -> None:
    """Go on with the Python of the checkout's `.venv` when this one lacks psutil, Pillow or matplotlib; it has them."""
    if wants_own_service and (HERE / "_setup.py").is_file():
        # the same set-up as the start script's, here so that it is seen and not taken for a slow start
        code = "from _setup import ensure_environment; ensure_environment('service')"
        if subprocess.run([sys.executable, "-c", code], cwd=HERE).returncode:
            raise Wrong("the service could not be set up; what is missing is said above.")
    wanted = {"psutil": "psutil", "Pillow": "PIL", "matplotlib": "matplotlib"}
    lacking = [name for name, module in wanted.items() if importlib.util.find_spec(module) is None]
    if not lacking or not VENV_PYTHON.exists() or "SOAK_IN_VENV" in os.environ:
        return
    print(f"This Python lacks {', '.join(lacking)}: going on with {VENV_PYTHON}.", flush=True)
    os.environ["SOAK_IN_VENV"] = "1"
    command = [str(VENV_PYTHON), str(SCRIPT), *sys.argv[1:]]
    if os.name == "nt":  # there execv would give the terminal back before the end
        sys.exit(subprocess.run(command).returncode)
    os.execv(VENV_PYTHON, command)


def redraw(path: Path) -> int:
    """Draw the picture and write the page of a report that is there already."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        problems = show(report, path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misused(f"--plot {path} cannot be drawn: {error or type(error).__name__}.") from error
    for problem in problems:
        print(f"FAILED: {problem}")
    return 1 if problems else 0


def call(description: str) -> int:
    """Do what the command line asks and return the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # started with nohup
        signal.signal(signal.SIGHUP, _ignore)  # as ignored as before, but a service of our own is started without
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name of a photo that the terminal cannot show ends nothing
    try:
        return main(parse(description))
    except Misused as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except Wrong as error:
        print(f"FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def main(options: argparse.Namespace) -> int:
    """Set up, run, report."""
    if options.plot:
        return redraw(options.plot)
    if options.url is None and not options.faults and answers(DEFAULT_URL):
        options.url = DEFAULT_URL
    if options.url is None and not START_SCRIPT.is_file():
        raise Wrong(f"no service runs at {DEFAULT_URL}, and there is no {START_SCRIPT.name} here: give --url.")
    album, where = find_album(options.photos, MAX_PEOPLE_OF_SIEGE if options.faults else MAX_PEOPLE)
    use_environment_of_checkout(wants_own_service=options.url is None)
    soak = _siege(options, album) if options.faults else Soak(options, *split_album(album))
    print(f"Photos: {soak.photos_in_words()}, of {len(album)} people in {where}.", flush=True)
    soak.run()
    report = soak.report()
    if soak.tally:
        (print_criteria if options.faults else print_table)(report)
    reasons = report["reasons"] + write(report, options.report)
    if reasons:
        print(f"FAILED: {reasons[0]}", *(f"  also: {reason}" for reason in reasons[1:]), sep="\n")
    elif soak.interrupted:
        print(f"INTERRUPTED after {soak.seconds:.0f} s; nothing was wrong until then.")
    else:
        unseen = "" if report["memory"] else " (memory was not judged)"
        print(f"PASSED{unseen}: {report['recognition']['right']:,} photos recognised rightly.")
    return 130 if soak.interrupted else 1 if reasons else 0


def _siege(options: argparse.Namespace, album: Album) -> Siege:
    residents, newcomers = split_for_siege(album)
    newcomers = newcomers if options.minutes >= 5 else newcomers[:20]
    return Siege(options, *split_album(residents), newcomers, odd_photos())


def _ignore(number: int, frame: object) -> None:
    pass


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
