"""Make `.venv` beside this folder and install the locked packages into it; needs nothing but Python and pip.

Every package comes from `requirements/*.lock`, checked by hash. A stamp is written last, so an
interrupted installation is simply continued by the next start, and a finished one costs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOCKS = ROOT / "requirements"
OLDEST_PYTHON = (3, 11)
STEP_LIMIT_SECONDS = 45 * 60
OTHER_SETUP_LIMIT_SECONDS = 60 * 60


class SetupFailed(SystemExit):
    """Ends the script with exit code 1 and a sentence that says what to do."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"\nSet-up stopped: {sentence}")


def ensure_environment(lock: str) -> Path:
    """Return the Python of `.venv` with all of `requirements/<lock>.lock` in it, installing if need be.

    Raises:
        SetupFailed: with a sentence that says what is missing.
    """
    _check_python()
    if _is_installed(lock):
        return PYTHON
    with _one_at_a_time():
        if not _is_installed(lock):  # another start may have finished it meanwhile
            _install(lock)
    return PYTHON


def run_service(arguments: list[str]) -> NoReturn:
    """Make the environment and become `recognizer serve`; on Windows wait for it and end with its exit code.

    Raises:
        SetupFailed: with a sentence that says what is missing.
    """
    python = ensure_environment("service")
    command = [str(python), "-m", "recognizer", "serve", *arguments]
    if os.name != "nt":
        os.execv(python, command)
    service = subprocess.Popen(command)  # execv would give the terminal back before the end
    for name in ("SIGINT", "SIGBREAK"):  # the console tells the service as well, which then stops in good order
        signal.signal(getattr(signal, name), lambda *_: None)
    while service.poll() is None:
        time.sleep(0.2)  # unlike wait(), it lets the signals through
    sys.exit(service.returncode)


def _check_python() -> None:
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info < OLDEST_PYTHON:
        raise SetupFailed(
            f"Python {oldest} or newer is needed, not {platform.python_version()}. "
            "Install a newer one and call this script with it, for example: python3.12 scripts/..."
        )


def _install(lock: str) -> None:
    began = time.monotonic()
    print(f"Setting up {VENV} (once; about 300 MB are fetched, some minutes on a slow line)", flush=True)
    if not _venv_works():
        _make_venv()
    # face_recognition_models is a source package: its build tool comes first, pinned like everything else
    _pip("install", "--require-hashes", "--no-deps", "-r", str(LOCKS / "build.lock"))
    _pip("install", "--require-hashes", "--no-deps", "--no-build-isolation", "-r", str(LOCKS / f"{lock}.lock"))
    _pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    _stamp(lock).write_text("installed\n")
    print(f"Set up in {time.monotonic() - began:.0f} s.", flush=True)


def _make_venv() -> None:
    import importlib.util

    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupFailed(f"this Python comes without venv. On Debian and Ubuntu: apt-get install python{version}-venv")
    if VENV.exists():
        print("The environment there is unusable and is made anew.", flush=True)
        shutil.rmtree(VENV)
    _call([sys.executable, "-m", "venv", str(VENV)], "creating the virtual environment")


def _venv_works() -> bool:
    if not PYTHON.exists():
        return False
    check = "import pip, sys; sys.exit(sys.version_info[:2] != " + repr(tuple(sys.version_info[:2])) + ")"
    return subprocess.run([str(PYTHON), "-c", check], capture_output=True, timeout=120).returncode == 0


def _pip(*arguments: str) -> None:
    options = ["--disable-pip-version-check", "--no-input"]
    _call([str(PYTHON), "-m", "pip", *arguments, *options], "installing packages")


def _call(command: list[str], what: str) -> None:
    try:
        code = subprocess.run(command, cwd=ROOT, timeout=STEP_LIMIT_SECONDS).returncode
    except subprocess.TimeoutExpired:
        raise SetupFailed(f"{what} took longer than {STEP_LIMIT_SECONDS // 60} minutes.") from None
    if code:
        raise SetupFailed(
            f"{what} failed (see above). Check the connection to the package index and the free disk space "
            "and run the same command again; what is already there is kept."
        )


def _stamp(lock: str) -> Path:
    """The file whose existence says: all of this lock, for this Python, at this place, is installed."""
    content = (LOCKS / f"{lock}.lock").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    identity = f"{platform.python_version()} {platform.machine()} {VENV}".encode()
    return VENV / f"installed-{lock}-{hashlib.sha256(content + identity).hexdigest()[:16]}"


def _is_installed(lock: str) -> bool:
    # the development lock holds everything that the service's does
    return PYTHON.exists() and any(_stamp(name).exists() for name in {lock, "dev"})


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold `.setup.lock`; the system frees it when the process dies, however it dies."""
    with open(ROOT / ".setup.lock", "w") as handle:
        deadline = time.monotonic() + OTHER_SETUP_LIMIT_SECONDS
        said = False
        while not _try_lock(handle.fileno()):
            if time.monotonic() > deadline:
                raise SetupFailed("another set-up of this folder has not finished; stop it first.")
            if not said:
                print("Waiting for another set-up of this folder to finish ...", flush=True)
                said = True
            time.sleep(0.5)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
