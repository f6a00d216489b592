"""`limner-node activate`, `bond`, `unbond`, `service-uri` and `reward`: being an orchestrator."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
from typing_extensions import override

from network.chain.calls import WHOLE_SHARE
from network.units import Wei
from node.cli.onchain import Coins, walk, yes_option
from node.cli.options import load_settings, settings_options
from node.config.settings import NodeSettings
from node.payments.registration import (
    Registration,
    activation,
    announcing,
    bonding,
    rewarding,
    unbonding,
)

_LONGEST_URI: Final = 200


class _Percent(click.ParamType[int]):
    """A share, as the contracts have it: parts of a million."""

    name = "percent"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            share = Decimal(str(value)) * WHOLE_SHARE / 100
        except InvalidOperation:
            self.fail(f"{value!r} is no percentage", param, ctx)
        if share != int(share) or not 0 <= share <= WHOLE_SHARE:
            self.fail(f"{value!r} is not from 0 to 100, with at most four decimals", param, ctx)
        return int(share)


class _Uri(click.ParamType[str]):
    """Where gateways find a node."""

    name = "uri"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).rstrip("/")
        url = urlsplit(text)
        if url.scheme != "https" or not url.hostname or len(text) > _LONGEST_URI:
            self.fail(f"{text[:60]!r} is no https:// address", param, ctx)
        return text


@click.command()
@settings_options
@click.option("--stake", type=Coins("LPT"), help="LPT to have staked on yourself, in all.")
@click.option("--reward-cut", type=_Percent(), help="Of rewards, what you keep.")
@click.option("--fee-share", type=_Percent(), help="Of fees, what delegators get.")
@click.option("--service-uri", type=_Uri(), help="service_uri of the settings, unless given.")
@yes_option()
def activate(
    *,
    config: Path | None,
    data_dir: Path | None,
    stake: Wei | None,
    reward_cut: int | None,
    fee_share: int | None,
    service_uri: str | None,
    yes: bool,
) -> None:
    """Become an orchestrator: stake LPT, set shares, say where to be found.

    Takes the steps that are missing, one by one, and can be repeated after whatever stopped it. An
    orchestrator is active, and paid by ticket, from the next round on, if its stake is among the largest.
    """
    settings = load_settings(config, {"data_dir": data_dir})
    uri = service_uri or settings.service_uri
    wish = Registration(stake, reward_cut, fee_share, uri)
    walk(settings, lambda _account: activation(wish), is_agreed=yes)


@click.command()
@settings_options
@click.argument("amount", type=Coins("LPT"))
@yes_option()
def bond(*, config: Path | None, data_dir: Path | None, amount: Wei, yes: bool) -> None:
    """Stake AMOUNT more LPT on yourself."""
    settings = load_settings(config, {"data_dir": data_dir})
    walk(settings, lambda account: bonding(Wei(account.bonded + amount)), is_agreed=yes)


@click.command()
@settings_options
@click.argument("amount", type=Coins("LPT"))
@yes_option()
def unbond(*, config: Path | None, data_dir: Path | None, amount: Wei, yes: bool) -> None:
    """Take AMOUNT of LPT out of the stake; `wallet withdraw-stake` gets it some rounds later."""
    settings = load_settings(config, {"data_dir": data_dir})
    walk(settings, lambda account: unbonding(amount, account.bonded), is_agreed=yes)


@click.command("service-uri")
@settings_options
@click.argument("uri", type=_Uri(), required=False)
@yes_option()
def service_uri(*, config: Path | None, data_dir: Path | None, uri: str | None, yes: bool) -> None:
    """Register URI, or service_uri of the settings, where gateways look for images."""
    settings = load_settings(config, {"data_dir": data_dir})
    wanted = uri or _configured(settings)
    walk(settings, lambda _account: announcing(wanted), is_agreed=yes)


@click.command()
@settings_options
@yes_option()
def reward(*, config: Path | None, data_dir: Path | None, yes: bool) -> None:
    """Mint the LPT that this round brings; redemption.call_reward does so each round."""
    settings = load_settings(config, {"data_dir": data_dir})
    walk(settings, lambda _account: rewarding, is_agreed=yes)


def _configured(settings: NodeSettings) -> str:
    if settings.service_uri is None:
        raise click.UsageError("name a URI, or set service_uri")
    return settings.service_uri
