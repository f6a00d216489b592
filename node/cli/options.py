"""What every command takes: which node is meant."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from network.errors import LimnerError
from network.keystore_commands import ask_if_needed
from network.passphrase import PassphraseSources
from network.runtime.settings import load
from node.config.settings import ENVIRONMENT_PREFIX, NodeSettings
from node.discovery.identity import passphrase_sources

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


def passphrase_sources_of(settings: NodeSettings) -> PassphraseSources:
    """Where the passphrase of the node's account is looked for."""
    keystore = settings.keystore
    return passphrase_sources(settings.data_dir, keystore.passphrase, keystore.passphrase_file)


def with_passphrase(settings: NodeSettings) -> NodeSettings:
    """The settings, with a passphrase from the terminal where nothing else opens the keystore."""
    asked = ask_if_needed(passphrase_sources_of(settings))
    if not asked:
        return settings
    keystore = settings.keystore.model_copy(update={"passphrase": asked})
    return settings.model_copy(update={"keystore": keystore})
