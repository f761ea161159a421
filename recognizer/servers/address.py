"""Where the server is reached from this machine, and the certificate it shows there."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recognizer.config import Settings
from recognizer.errors import StartupError


def base_url(settings: Settings) -> str:
    """Where a client on this machine reaches the service."""
    scheme, host = "https" if settings.tls_certificate else "http", _reachable(settings.host)
    return f"{scheme}://[{host}]:{settings.port}" if ":" in host else f"{scheme}://{host}:{settings.port}"


def connection_to(settings: Settings, timeout_seconds: float) -> http.client.HTTPConnection:
    """To our own server, whose certificate is for another name than the address we call it by."""
    address = (_reachable(settings.host), settings.port)
    if settings.tls_certificate is None:
        return http.client.HTTPConnection(*address, timeout=timeout_seconds)
    unchecked = ssl._create_unverified_context()  # noqa: S323 - nothing secret is sent, and we know who listens there
    return http.client.HTTPSConnection(*address, timeout=timeout_seconds, context=unchecked)


def readiness(settings: Settings, address: str | None = None, timeout_seconds: float = 3.0) -> dict[str, Any] | None:
    """What GET /health/ready of our own server says, None while nobody answers.

    Args:
        address: where it listens, if not where the settings say, as `base_url` writes it.
    """
    if address is not None:
        url = urlsplit(address)
        settings = settings.model_copy(update={"host": url.hostname, "port": url.port})
    connection = connection_to(settings, timeout_seconds)
    try:
        connection.request("GET", "/health/ready")
        answer = json.loads(connection.getresponse().read(65536))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else None


def _reachable(host: str) -> str:
    """An address to call for the address that is listened on."""
    bare = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(bare, bare)  # noqa: S104 - a lookup


def check_certificate(settings: Settings) -> None:
    """Make sure that the certificate and its key can be used.

    Raises:
        StartupError: they cannot, or the server that runs here has no TLS.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return
    if settings.server != "gunicorn":
        raise StartupError("gunicorn cannot run here, and no other server has TLS; let a proxy do it, such as nginx.")
    for path in (certificate, key):
        _check_readable(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise StartupError(
            f"tls_certificate {certificate} and tls_key {key} cannot be used: they must be PEM files that belong "
            f"together, the key without a password ({getattr(error, 'reason', None) or error})."
        ) from error


def _check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}; mend tls_certificate and tls_key.") from error


def _no_password() -> str:
    raise ValueError("it has a password")
