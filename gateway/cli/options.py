"""What several commands take: where the settings and the data are."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import uvloop
from pydantic import SecretStr

from gateway.config import GatewaySettings
from network.errors import ConfigError, LimnerError
from network.keystore_commands import ask_if_needed
from network.runtime.settings import load

ENV_PREFIX: Final = "LIMNER_GATEWAY__"

T = TypeVar("T")


def _status_for(error: LimnerError) -> int:
    return 2 if isinstance(error, ConfigError) else 1


def settings_options(function: Callable[..., T]) -> Callable[..., T]:
    """`--config` and `--data-dir`."""
    config = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="LIMNER_GATEWAY_CONFIG",
        help="Settings in TOML; configs/gateway.toml explains every one.",
    )
    data_dir = click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where keys, journal, images and identity are kept.  [default: ~/.limner/gateway]",
    )
    return config(data_dir(function))


def load_settings(
    config: Path | None, data_dir: Path | None, overrides: Mapping[str, object] | None = None
) -> GatewaySettings:
    """File, then environment, then flags. Ends the program with status 2 naming a wrong setting."""
    flags = {"data_dir": None if data_dir is None else str(data_dir), **(overrides or {})}
    try:
        return load(GatewaySettings, config, ENV_PREFIX, flags)
    except ConfigError as error:
        raise fail(str(error), 2) from error


def with_passphrase(settings: GatewaySettings) -> GatewaySettings:
    """The settings, with a passphrase from the terminal where nothing else opens the keystore."""
    if settings.payments.signer_url:
        return settings  # no keystore is opened
    asked = ask_if_needed(settings.passphrase_sources)
    if not asked:
        return settings
    keystore = settings.keystore.model_copy(update={"passphrase": SecretStr(asked)})
    return settings.model_copy(update={"keystore": keystore})


def fail(message: str, status: int = 1) -> SystemExit:
    """Say what went wrong on stderr; the caller raises the answer."""
    click.echo(f"Error: {message}", err=True)
    return SystemExit(status)


def in_loop(
    work: Coroutine[Any, Any, T], status_for: Callable[[LimnerError], int] = _status_for
) -> T:
    """Run a command's coroutine; our own errors become one line and a status, not a traceback."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except LimnerError as error:
        raise fail(str(error), status_for(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
