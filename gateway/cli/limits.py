"""Limits of keys and teams on the command line."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from typing_extensions import override

from gateway.cli.audit import audited
from gateway.cli.options import fail, in_loop, load_settings, settings_options
from gateway.home import open_gateway_database
from gateway.keys import Team, UseLimits, list_teams, set_team
from network.runtime.clock import SystemClock
from network.units import parse_wei

F = TypeVar("F", bound=Callable[..., Any])

#: Not given: the limit stays as it is. None lifts it.
_AS_IT_IS: Final = -1
_LIFTED: Final = "none"


class _Limit(click.ParamType[int | None]):
    """A whole number, or "none"; an amount of wei may be written in ether."""

    def __init__(self, name: str, read: Callable[[str], int]) -> None:
        self.name = name
        self._read = read

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value == _LIFTED:
            return None
        try:
            number = self._read(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if number < 0 and value != _AS_IT_IS:
            self.fail("a limit is not negative", param, ctx)
        return number


def _wei(text: str) -> int:
    return _AS_IT_IS if text == str(_AS_IT_IS) else parse_wei(text)


_OPTIONS: Final = (
    ("--wei-per-day", _Limit("wei", _wei), "What it may spend in a day of UTC."),
    ("--wei-per-month", _Limit("wei", _wei), "What it may spend in a calendar month."),
    ("--requests-per-minute", _Limit("count", int), "Requests a minute, at once or evenly."),
    ("--pixels-per-minute", _Limit("count", int), "Pixels of all images a minute."),
)


def limit_options(command: F) -> F:
    """Options for every limit, handed on as keywords."""
    for name, kind, text in reversed(_OPTIONS):
        command = click.option(name, type=kind, default=_AS_IT_IS, help=text, show_default=False)(
            command
        )
    return command


def limits_of(options: Mapping[str, int | None]) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in options.items() if value != _AS_IT_IS}


def in_words(limits: Mapping[str, int | None]) -> dict[str, str]:
    """As text, for wei outgrow JSON's numbers."""
    return {name: _LIFTED if value is None else str(value) for name, value in limits.items()}


def shown_limits(limits: UseLimits) -> str:
    given = {name.replace("_", " "): v for name, v in asdict(limits).items() if v is not None}
    return ", ".join(f"{value} {name}" for name, value in given.items()) or "no limits"


@click.command("team")
@click.argument("name", required=False)
@limit_options
@settings_options
def team_of(
    *, name: str | None, config: Path | None, data_dir: Path | None, **limits: int | None
) -> None:
    """Make the team NAME or change its limits; without a name, list the teams."""
    settings = load_settings(config, data_dir)

    async def work() -> tuple[Team, ...]:
        async with open_gateway_database(settings) as database:
            if name is None:
                return await list_teams(database)
            return (await set_team(database, SystemClock(), name, limits_of(limits)),)

    try:
        if name is None:
            teams = in_loop(work())
        else:
            with audited(settings) as note:
                teams = in_loop(work())
                note("team set", team=name, **in_words(limits_of(limits)))
    except ValueError as error:
        raise fail(str(error), 2) from error
    for team in teams:
        click.echo(f"{team.name}: {shown_limits(team.limits)}")
