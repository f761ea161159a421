"""The settings: defaults here, then `recognizer.toml`, `RECOGNIZER_*` and the command line over them.

Frozen and range-checked; a setting that is unknown or impossible raises `ConfigError` with a sentence
that names it. Units stand in the names. `config/recognizer.toml` documents every one of them.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from recognizer.errors import ConfigError
from recognizer.keyring import Keyring, read_keys
from recognizer.logs import LogFormat
from recognizer.networks import is_loopback, key_limit, limit_storage, web_origins

SECRETS = ("database_url", "rate_limit_storage", "encryption_keys")
"""Settings that are or may hold a secret."""

ENV_PREFIX = "RECOGNIZER_"
CONFIG_ENV = "RECOGNIZER_CONFIG"
"""Names the TOML file; not itself a setting."""
API_KEY_ENV = "RECOGNIZER_API_KEY"
"""The key with which commands call a service; not a setting either."""


def available_cores() -> int:
    """The cores this process may use (its CPU affinity), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def default_data_dir() -> Path:
    """Where people and their faces are kept: /var/lib for root, the user's own data folder otherwise."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/recognizer")
    return Path(platformdirs.user_data_path("recognizer", appauthor=False))


class Settings(BaseSettings):
    """All settings of the service; `load()` builds it and turns mistakes into `ConfigError`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    # where it listens
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(default_factory=lambda: min(8, available_cores()), ge=1, le=64)
    threads: int = Field(4, ge=1, le=64)
    worker_memory_bytes: int = Field(2**30, ge=128 * 2**20, le=2**40)
    server: Literal["gunicorn", "waitress", "development"] = "waitress" if os.name == "nt" else "gunicorn"

    # who may reach it
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: int = Field(0, ge=0, le=10)
    cors_origins: str = ""
    rate_limit: str = ""
    rate_limit_storage: SecretStr | None = None

    # where it keeps things
    data_dir: Path = Field(default_factory=default_data_dir)
    database_url: SecretStr | None = None
    pool_min: int = Field(4, ge=0, le=100)
    pool_max: int = Field(4, ge=1, le=100)
    pool_timeout_seconds: float = Field(5.0, gt=0, le=60)
    connect_timeout_seconds: float = Field(3.0, ge=1, le=60)
    statement_timeout_seconds: float = Field(10.0, gt=0, le=600)
    encryption_keys: SecretStr | None = None
    encryption_key_file: Path | None = None

    # how faces are found and compared
    engine: Literal["onnx", "face_recognition"] = "onnx"
    detector: Literal["cnn", "cnn_exact", "hog"] = "cnn"
    upsample: int = Field(1, ge=0, le=2)
    embedding_crops: int = 1
    providers: Literal["auto", "cuda", "openvino", "coreml", "directml", "cpu"] = "auto"
    min_face_pixels: int = Field(36, ge=20, le=1000)
    enrol_min_face_pixels: int = Field(50, ge=20, le=1000)
    working_pixels: int = Field(3_000_000, ge=250_000, le=64_000_000)
    target_fpir: float = Field(0.01, gt=0, lt=1)
    threshold: float | None = Field(None, gt=0, lt=2)
    enrol_min_quality: float = Field(0.1, ge=0, lt=1)

    # what a request may ask for
    max_image_bytes: int = Field(20 * 2**20, ge=2**10, le=2**30)
    max_image_pixels: int = Field(64_000_000, ge=10_000, le=500_000_000)
    max_request_bytes: int = Field(64 * 2**20, ge=2**10, le=2**31)
    max_images_per_enrolment: int = Field(20, ge=1, le=1000)
    queue_length: int = Field(4, ge=0, le=1000)
    event_streams: int = Field(8, ge=0, le=1000)
    queue_timeout_seconds: float = Field(5.0, gt=0, le=300)
    request_timeout_seconds: float = Field(30.0, gt=0, le=600)

    # how it starts, stops and speaks
    start_timeout_seconds: float = Field(60.0, ge=1, le=3600)
    stop_timeout_seconds: float = Field(30.0, ge=1, le=600)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: LogFormat = "auto"
    log_file: Path | None = None
    log_file_bytes: int = Field(10 * 2**20, ge=2**16, le=2**34)
    log_files_kept: int = Field(5, ge=1, le=100)
    vitals_seconds: float = Field(60.0, ge=1, le=3600)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # load() merges the sources, so that the command line can win over the rest

    @field_validator("data_dir", "log_file", "tls_certificate", "tls_key", "encryption_key_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value == Path():
            raise ValueError("must not be empty")
        return value and value.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _postgresql_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("encryption_keys")
    @classmethod
    def _usable_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        Keyring.of_text(value.get_secret_value())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _web_origins(cls, value: str) -> str:
        return web_origins(value)

    @field_validator("rate_limit")
    @classmethod
    def _key_limit(cls, value: str) -> str:
        return key_limit(value)

    @field_validator("rate_limit_storage")
    @classmethod
    def _limit_storage(cls, value: SecretStr | None) -> SecretStr | None:
        return SecretStr(limit_storage(value.get_secret_value())) if value and value.get_secret_value() else None

    @field_validator("embedding_crops")
    @classmethod
    def _known_crops(cls, value: int) -> int:
        if value not in (1, 2, 6):
            raise ValueError("must be 1, 2 or 6")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.pool_min > self.pool_max:
            raise ValueError(f"pool_min ({self.pool_min}) is larger than pool_max ({self.pool_max})")
        if self.max_image_bytes > self.max_request_bytes:
            raise ValueError("max_image_bytes is larger than max_request_bytes")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together; one of them is missing")
        if self.tls_certificate and self.server != "gunicorn":
            raise ValueError(f"the server {self.server} has no TLS; use gunicorn, or a proxy such as nginx before it")
        return self

    @property
    def models_dir(self) -> Path:
        """Where the converted models are cached; the supervisor fills it before the workers read it."""
        return self.data_dir / "models"

    @property
    def key_file(self) -> Path:
        """Where the encryption keys stand, unless the environment gives them."""
        return self.encryption_key_file or self.data_dir / "encryption-keys"

    @property
    def keyring(self) -> Keyring:
        """What photos and embeddings are encrypted with; without keys it is empty."""
        return Keyring.of_text(self.encryption_keys.get_secret_value() if self.encryption_keys else "")

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def needs_key(self) -> bool:
        """Whether somebody on another machine may send a request: then each one needs a key."""
        return not self.loopback or self.trusted_proxies > 0

    def masked(self) -> dict[str, Any]:
        """All settings in JSON types, secrets as asterisks; fit for a log."""
        return self.model_dump(mode="json")

    def as_environment(self) -> dict[str, str]:
        """The settings as `RECOGNIZER_*` variables, so that a child process sees exactly the same ones."""
        environment = {f"{ENV_PREFIX}ENCRYPTION_KEYS": ""}  # where there are none, it shall not look for a file
        for name, value in self:
            if value is None:
                continue
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            environment[ENV_PREFIX + name.upper()] = str(plain)
        return environment


def checkout_config() -> Path | None:
    """`config/recognizer.toml` of the checkout this package is run from, if it is run from one."""
    path = Path(__file__).resolve().parent.parent / "config" / "recognizer.toml"
    return path if path.is_file() else None


def load(
    overrides: Mapping[str, Any] | None = None, config_file: Path | None = None, *, read_key_file: bool = True
) -> Settings:
    """Read the settings.

    Args:
        overrides: settings from the command line; None values are left out.
        config_file: the TOML file; default: `$RECOGNIZER_CONFIG`, else the checkout's own.
        read_key_file: whether the encryption keys are read, if they stand in a file.

    Raises:
        ConfigError: a setting is unknown or impossible, or the file cannot be read.
    """
    values: dict[str, Any] = {}
    for source in _sources(overrides or {}, config_file).values():
        values.update(source)
    try:
        settings = Settings(**values)
        if read_key_file and "encryption_keys" not in values:
            keys = read_keys(settings.key_file, settings.encryption_key_file)
            settings = Settings(**values, encryption_keys=SecretStr(keys))
        return settings
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def origins(overrides: Mapping[str, Any] | None = None, config_file: Path | None = None) -> dict[str, str]:
    """Where each setting comes from: "default", the file's path, "environment" or "command line"; raises as `load`."""
    found = dict.fromkeys(Settings.model_fields, "default")
    for origin, source in _sources(overrides or {}, config_file).items():
        found.update(dict.fromkeys(source, origin))
    return found


def _sources(overrides: Mapping[str, Any], config_file: Path | None) -> dict[str, dict[str, Any]]:
    """What each source says, the weakest first."""
    path = config_file or (Path(os.environ[CONFIG_ENV]) if os.environ.get(CONFIG_ENV) else checkout_config())
    from_file = _read_toml(path) if path else {}
    _refuse_unknown(from_file, f"in {path}")
    _refuse_unknown(_environment_names(), "in the environment, with the prefix RECOGNIZER_")
    return {
        str(path): from_file,
        "environment": EnvSettingsSource(Settings)(),
        "command line": {name: value for name, value in overrides.items() if value is not None},
    }


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} is not valid TOML: {error}.") from error


def _environment_names() -> list[str]:
    names = [name.upper() for name in os.environ if name.upper() not in (CONFIG_ENV, API_KEY_ENV)]
    return [name.removeprefix(ENV_PREFIX).lower() for name in names if name.startswith(ENV_PREFIX)]


def _refuse_unknown(names: Mapping[str, Any] | list[str], where: str) -> None:
    for name in names:
        if name not in Settings.model_fields:
            close = difflib.get_close_matches(name, Settings.model_fields, n=1)
            hint = f"did you mean `{close[0]}`?" if close else "config/recognizer.toml lists all settings."
            raise ConfigError(f"Unknown setting `{name}` {where}; {hint}")


def _sentence(error: ValidationError) -> str:
    """The first mistake as a sentence, without the rejected value of a secret."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if not name:
        return f"Impossible settings: {reason}."
    shown = "" if name in SECRETS else f" (it is {first['input']!r})"
    return f"Impossible setting `{name}`: {reason}{shown}."
