"""Flask's own server under the supervisor, wanted or because gunicorn cannot run; the app is that of `stub.py`."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from test_supervisor import Service, servers_of, wait_until

from recognizer import config
from recognizer.servers import choice, development

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def package(folder: Path) -> Path:
    """What the server watches in place of the package."""
    path = folder / "package"
    path.mkdir()
    (path / "module.py").touch()
    return path


def pid(folder: Path) -> int:
    (server,) = servers_of(folder)
    return server.pid


def test_a_changed_file_starts_the_server_again_and_each_closes_what_it_opened(folder: Path, package: Path) -> None:
    with Service(folder, server="development") as service:
        service.wait_until_ready()
        wait_until(lambda: "Ready:" in service.text())
        first = pid(folder)
        for change in ((package / "module.py").write_text, (package / "new.py").write_text):
            before = pid(folder)
            change("changed = True\n")
            wait_until(lambda before=before: [p.pid for p in servers_of(folder)] not in ([before], []))  # type: ignore[misc]
            service.wait_until_ready()
        last = pid(folder)
        assert "A file of the package has changed" in service.text()
        assert service.end() == 0
        assert not service.family()
    closed = (folder / "closed").read_text().split()
    assert (len(closed), closed[0], closed[-1]) == (3, str(first), str(last))


def test_other_files_do_not_matter(package: Path) -> None:
    before = development._state(package)
    (package / "notes.txt").touch()
    assert development._state(package) == before
    (package / "0001.sql").touch()
    assert development._state(package) != before


def test_requests_in_flight_are_finished(folder: Path, package: Path) -> None:
    with Service(folder, server="development") as service:
        service.wait_until_ready()
        answers: list[tuple[int, Any]] = []
        caller = threading.Thread(target=lambda: answers.append(service.call("GET", "/slow/1.5")))
        caller.start()
        time.sleep(0.5)
        assert service.end() == 0
        caller.join()
        assert answers[0][0] == 200


def test_it_does_not_tell_its_version(folder: Path, package: Path) -> None:
    with Service(folder, server="development") as service:
        service.wait_until_ready()
        with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/slow/0", timeout=5) as answer:
            assert "/" not in answer.headers["Server"]
            assert json.load(answer)


# -- instead of gunicorn --


def test_without_gunicorn_it_serves_with_a_warning_nobody_can_miss(
    folder: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WITHOUT_GUNICORN", "1")
    with Service(folder, server="gunicorn") as service:
        service.wait_until_ready()
        wait_until(lambda: "Stop:" in service.text())
        text = service.text()
        assert text.count("* WARNING: THIS IS FLASK'S DEVELOPMENT SERVER. IT IS NOT FOR PRODUCTION.") == 2
        assert "`gunicorn` is missing" in text
        assert text.rstrip().endswith("*" * 78)
        assert service.end() == 0


@pytest.mark.parametrize("missing", ["gunicorn", "fcntl", "pwd"])
def test_gunicorn_is_not_tried_without_what_it_needs(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    settings, warning = choice.choose(config.load({"server": "gunicorn"}))
    assert settings.server == "development"
    assert f"`{missing}` is missing" in warning
    assert len({len(line) for line in warning.splitlines()}) == 1


@pytest.mark.parametrize("server", ["gunicorn", "waitress", "development"])
def test_a_server_that_can_run_is_taken_without_a_warning(server: str) -> None:
    settings, warning = choice.choose(config.load({"server": server}))
    assert (settings.server, warning) == (server, "")
