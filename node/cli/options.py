"""What every command takes: which node is meant."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from network.errors import LimnerError
from network.runtime.settings import load
from node.config.settings import ENVIRONMENT_PREFIX, NodeSettings

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(command: F) -> F:
    """Add the two options that tell which node is meant."""
    options = (
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Keystore, journal and certificate.  [default: ~/.limner/node]",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            help="A TOML file; configs/node.toml explains every setting.",
        ),
    )
    for option in options:
        command = option(command)
    return command


def load_settings(config: Path | None, overrides: Mapping[str, object]) -> NodeSettings:
    """Read file, environment and flags; ends the command with the name of a wrong setting."""
    try:
        return load(NodeSettings, config, ENVIRONMENT_PREFIX, overrides)
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
