"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

DATA_DIR = click.Path(path_type=Path, file_okay=False)
CONFIG_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def common_options(command: Command) -> Command:
    """The options that say which installation a command is about."""
    command = click.option("--data-dir", type=DATA_DIR, help="Where people and their faces are kept.")(command)
    return click.option("--config", "config_file", type=CONFIG_FILE, help="The settings file.")(command)
