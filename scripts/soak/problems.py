"""How the soak ends early: something is wrong with the service, or with the command."""

from __future__ import annotations


class Wrong(Exception):
    """Ends the soak with exit code 1; the message is the sentence that says why."""


class Misused(Exception):
    """Ends the script with exit code 2."""
