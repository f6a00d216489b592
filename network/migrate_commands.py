"""`migrate`, the same in `limner-node` and `limner-gateway`: settings from go-livepeer's flags."""

import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click
from pydantic import BaseModel, ValidationError

from network.errors import LimnerError
from network.livepeer_flags import flags_of_command, flags_of_environment, flags_of_file
from network.migration import Migration

_MOST_BYTES: Final = 256 * 1024
_STDIN: Final = "-"


def migrate_command(
    title: str, settings: type[BaseModel], rules: Callable[[Mapping[str, str]], Migration]
) -> click.Command:
    """The command of one role. `title` are the first words of the file that it writes."""

    @click.command()
    @click.option(
        "--from-flags",
        help="go-livepeer's command line in quotes; - reads it from standard input, where no list of "
        "processes shows it.",
    )
    @click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The file that go-livepeer was started with as -config.",
    )
    @click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write the settings there, a new file.  [default: standard output]",
    )
    def migrate(from_flags: str | None, config: Path | None, out: Path | None) -> None:
        """Turn the flags of go-livepeer into a settings file.

        Flags are read from --from-flags, from LP_... in the environment and from --config, in that order.
        What has no counterpart stands in the file as a comment, and what is left to do as well. Passwords,
        secrets and URLs with keys in them are never copied.
        """
        try:
            flags = _flags(from_flags, config)
            if not flags:
                raise click.UsageError("no flags: give --from-flags or --config, or set LP_...")
            made = rules(flags)
        except LimnerError as error:
            raise click.ClickException(str(error)) from None
        text = made.toml(title)
        _check(text, settings)
        if out is None:
            click.echo(text, nl=False)
            return
        _write(out, text)
        for number, step in enumerate((f"Look through {out}.", *made.steps), 1):
            click.echo(f"{number}. {step}")

    return migrate


def _flags(line: str | None, config: Path | None) -> dict[str, str]:
    found = {} if config is None else flags_of_file(_read(config))
    found |= flags_of_environment(os.environ)
    if line == _STDIN:
        line = sys.stdin.read(_MOST_BYTES)
    return found if line is None else found | flags_of_command(line)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read {path}: {error}") from None


def _check(text: str, settings: type[BaseModel]) -> None:
    """Nothing is handed out that does not load."""
    try:
        settings.model_validate(tomllib.loads(text))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        what = fault["msg"].removeprefix("Value error, ")
        raise click.ClickException(f"the flags make no valid settings: {key}: {what}") from None


def _write(path: Path, text: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; name a new file") from None
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
