"""Words about networks that settings are written in: which addresses are this machine, origins, limits, storages.

What is not understood raises ValueError with the rest of a sentence that begins with the setting's name.
"""

from __future__ import annotations

import ipaddress
import re

ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, IPv6 with or without brackets) is this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def web_origins(text: str) -> str:
    """Origins of web pages with one space between them, or "*" for all."""
    origins = text.replace(",", " ").split()
    for origin in origins:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError("must be origins such as https://console.example, without a path, or *")
    return " ".join(origins)


def key_limit(text: str) -> str:
    """How often a key may be used, as Flask-Limiter writes it; "" for as often as one likes."""
    if text.strip():
        import limits  # only who sets a limit pays for the import

        try:
            limits.parse_many(text)
        except ValueError:
            raise ValueError("must be a limit such as 600/minute, or several with ; between them") from None
    return text.strip()


def limit_storage(url: str) -> str:
    """Where workers count together; "" for nowhere. It is not reached for here."""
    if url.strip() and not url.startswith("memory:"):
        from limits.storage import storage_from_string

        try:
            storage_from_string(url)
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and some quote the password
            raise ValueError(
                f"cannot be used ({type(error).__name__}); it is a URL such as redis://host:6379, "
                "which needs the package `redis` in .venv"
            ) from None
    return url.strip()
