"""Settings: sources, ranges, and sentences for mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from recognizer import config, networks
from recognizer.config import Settings
from recognizer.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

NONE_BY_DEFAULT = {name for name, field in Settings.model_fields.items() if field.default in (None, "")}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith("RECOGNIZER_"):
            monkeypatch.delenv(name)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recognizer.toml"
    path.write_text(text)
    return path


def test_command_line_wins_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toml(tmp_path, "port = 1111\nthreads = 7\nworkers = 3")
    monkeypatch.setenv("RECOGNIZER_PORT", "2222")
    monkeypatch.setenv("RECOGNIZER_THREADS", "8")
    settings = config.load({"port": 3333, "workers": None}, path)
    assert (settings.port, settings.threads, settings.workers) == (3333, 8, 3)


def test_unknown_setting_in_file_is_named_with_the_likely_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`prot`.*did you mean `port`"):
        config.load(config_file=toml(tmp_path, "prot = 1"))


def test_unknown_setting_in_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOGNIZER_PROT", "1")
    with pytest.raises(ConfigError, match="`prot` in the environment"):
        config.load()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("port = 70000", "port"),
        ('port = "many"', "port"),
        ("workers = 0", "workers"),
        ("threshold = nan", "threshold"),
        ('engine = "magic"', "engine"),
        ("pool_min = 5\npool_max = 2", "pool_min"),
        ('database_url = "mysql://user:hunter2@db/x"', "database_url"),
        ("max_image_bytes = 1000000000", "max_image_bytes"),
        ("queue_timeout_seconds = inf", "queue_timeout_seconds"),
        ('tls_certificate = "/etc/cert.pem"', "tls_key"),
        ('tls_certificate = "/c"\ntls_key = "/k"\nserver = "waitress"', "waitress has no TLS"),
        ('cors_origins = "console.example"', "cors_origins"),
        ('cors_origins = "https://console.example/path"', "cors_origins"),
        ('rate_limit = "many"', "rate_limit"),
        ('rate_limit_storage = "nowhere://:hunter2@host"', "rate_limit_storage"),
        ("trusted_proxies = -1", "trusted_proxies"),
    ],
)
def test_impossible_setting_is_named_and_secrets_are_not(tmp_path: Path, text: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names) as caught:
        config.load(config_file=toml(tmp_path, text))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["port = ", "\xff", "[port]\nx = 1"])
def test_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recognizer.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError):
        config.load(config_file=path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        config.load(config_file=tmp_path / "nowhere.toml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_masked_settings_hold_no_secret() -> None:
    settings = config.load({"database_url": "postgresql://u:hunter2@db/x"})
    settings = settings.model_copy(update={"rate_limit_storage": SecretStr("redis://:hunter2@counts:6379")})
    assert "hunter2" not in str(settings.masked())
    assert "hunter2" not in repr(settings)


def test_a_child_process_sees_exactly_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load({"database_url": "postgresql://u:hunter2@db/x", "port": 81, "data_dir": "/tmp/a b"})
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert config.load() == settings


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example.com", False),
        ("192.168.1.2", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, loopback: bool) -> None:
    assert networks.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("settings", "needed"),
    [({}, False), ({"host": "::1"}, False), ({"host": "0.0.0.0"}, True), ({"trusted_proxies": 1}, True)],
)
def test_a_key_is_needed_where_others_can_reach_the_service(settings: dict[str, object], needed: bool) -> None:
    assert config.load(settings).needs_key is needed


def test_the_shipped_file_documents_every_setting_with_its_default() -> None:
    text = (ROOT / "config" / "recognizer.toml").read_text()
    lines = dict(re.findall(r"^# ([a-z_]+) = (.+)$", text, flags=re.M))
    assert set(lines) == set(Settings.model_fields)
    machine_dependent = {"workers", "server", "data_dir", "log_file"}.union(NONE_BY_DEFAULT)
    for name in set(lines) - machine_dependent:
        default = Settings.model_fields[name].default
        assert lines[name].strip('"') == str(default), name


def test_the_readme_lists_every_setting_with_its_default() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = [re.fullmatch(r"\| `(\w+)` \| (.+) \| (.+) \|", line) for line in text.splitlines()]
    listed = {row[1]: row[2] for row in rows if row}
    assert list(listed) == list(Settings.model_fields), "all of them, in the order of config/recognizer.toml"
    in_words = {"workers", "server", "data_dir", "log_file"}.union(NONE_BY_DEFAULT)
    for name in set(listed) - in_words:
        assert listed[name] == f"`{Settings.model_fields[name].default}`", name


def test_the_shipped_file_is_valid() -> None:
    config.load(config_file=ROOT / "config" / "recognizer.toml")
