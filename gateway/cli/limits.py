"""Limits of keys and teams on the command line."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from typing_extensions import override

from gateway.cli.audit import audited
from gateway.cli.options import fail, in_loop, load_settings, settings_options
from gateway.config import GatewaySettings
from gateway.home import open_gateway_database
from gateway.keys import Team, UseLimits, limit_text, list_teams, set_team
from gateway.payments.rates import check_dollars
from network.dollars import AttoUsd, names_dollars, parse_usd
from network.runtime.clock import SystemClock
from network.units import Wei, parse_wei

F = TypeVar("F", bound=Callable[..., Any])

#: Not given: the limit stays as it is. None lifts it.
_AS_IT_IS: Final = -1
_LIFTED: Final = "none"
#: What is left of a limit is counted as a float, exact up to here.
_MOST: Final = 2**53


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


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no whole number") from None
    if number > _MOST:
        raise ValueError(f"at most {_MOST}; write none for no limit")
    return number


@dataclass(frozen=True, slots=True)
class _Amounts:
    """A budget, in one unit; None in both lifts it."""

    wei: Wei | None = None
    usd: AttoUsd | None = None


class _Budget(click.ParamType[_Amounts | int]):
    """An amount with its unit, dollars or ETH, or "none"."""

    name = "amount"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> _Amounts | int:
        if value == _AS_IT_IS:
            return _AS_IT_IS
        text = str(value).strip()
        if text == _LIFTED:
            return _Amounts()
        if text.isdecimal():
            self.fail(f'{text!r} has no unit; write "{text[:20]} usd" or "0.01 eth"', param, ctx)
        try:
            if names_dollars(text):
                return _Amounts(usd=parse_usd(text))
            return _Amounts(wei=parse_wei(text))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _wei(text: str) -> int:
    return _AS_IT_IS if text == str(_AS_IT_IS) else parse_wei(text)


_BUDGETS: Final = {"budget_day": "day", "budget_month": "month"}
_OPTIONS: Final = (
    (
        "--budget-day",
        _Budget(),
        'What it may spend in a day of UTC: "5 usd", "0.01 eth". Takes the place of another.',
    ),
    ("--budget-month", _Budget(), "What it may spend in a calendar month."),
    ("--wei-per-day", _Limit("wei", _wei), "As --budget-day in ETH, beside one in dollars."),
    ("--wei-per-month", _Limit("wei", _wei), "As --budget-month in ETH, beside one in dollars."),
    ("--requests-per-minute", _Limit("count", _count), "Requests a minute, at once or evenly."),
    ("--pixels-per-minute", _Limit("count", _count), "Pixels of all images a minute."),
)


def limit_options(command: F) -> F:
    """Options for every limit, handed on as keywords."""
    for name, kind, text in reversed(_OPTIONS):
        command = click.option(name, type=kind, default=_AS_IT_IS, help=text, show_default=False)(
            command
        )
    return command


def limits_of(options: Mapping[str, object]) -> dict[str, Any]:
    """Those that were given, named as in UseLimits."""
    found: dict[str, Any] = {}
    for name, period in _BUDGETS.items():
        budget = options[name]
        if not isinstance(budget, _Amounts):
            continue
        if budget.wei is not None and options[f"wei_per_{period}"] != _AS_IT_IS:
            raise fail(f"--budget-{period} and --wei-per-{period} both name ETH; give one", 2)
        found |= {f"wei_per_{period}": budget.wei, f"usd_per_{period}": budget.usd}
    return found | {
        name: value
        for name, value in options.items()
        if name not in _BUDGETS and value != _AS_IT_IS
    }


def check_limits(settings: GatewaySettings, options: Mapping[str, object]) -> None:
    """End the program, with what to set, for a limit in dollars that nothing could be held against."""
    given = UseLimits(**limits_of(options))
    if given.are_in_dollars:
        in_loop(check_dollars(settings, SystemClock()))


def in_words(limits: Mapping[str, int | None]) -> dict[str, str]:
    """As text, for wei outgrow JSON's numbers; dollars as decimals."""
    return {
        name: _LIFTED if value is None else limit_text(name, value)
        for name, value in limits.items()
    }


def shown_limits(limits: UseLimits) -> str:
    """For people: "5 usd per day, 60 requests per minute"."""
    given = {name: value for name, value in asdict(limits).items() if value is not None}
    words = (f"{limit_text(name, v)} {name.replace('_', ' ')}" for name, v in given.items())
    return ", ".join(words) or "no limits"


@click.command("team")
@click.argument("name", required=False)
@limit_options
@settings_options
def team_of(
    *, name: str | None, config: Path | None, data_dir: Path | None, **limits: int | None
) -> None:
    """Make the team NAME or change its limits; without a name, list the teams."""
    settings = load_settings(config, data_dir)
    check_limits(settings, limits)

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
