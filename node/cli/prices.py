"""`limner-node prices`: what each model costs, in wei and dollars, and at which rate."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import click
import orjson

from network.chain.model import ChainError
from network.chain.price_feed import PriceFeed
from network.chain.profiles import endpoints_of, profile_of
from network.chain.rpc import open_rpc
from network.errors import LimnerError
from network.prices import (
    USD,
    EthRates,
    NoRateError,
    Rate,
    dollars_of,
    fixed_usd,
    rate_facts,
    rate_line,
    written,
)
from network.runtime.clock import SystemClock
from network.units import fee, format_price, pixels_of
from node.accounting.model import NOBODY
from node.accounting.pricing import PriceList
from node.cli.options import load_settings, settings_options
from node.cli.tables import add_columns, plain_table, show
from node.config.catalogue import Catalogue, ServedModel, catalogue
from node.config.settings import NodeSettings
from node.payments.rates import HOLD_SECONDS, check_rates, price_list

_IMAGE: Final = pixels_of(1024, 1024, 1)


@click.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="JSON; prices as text.")
def prices(*, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """What a pixel of each model costs, and an image of 1024 x 1024 in dollars.

    Dollars are told where `usd_per_eth` or a price feed says what an ETH costs; a feed is asked now. The
    running node tells its own rate in /status, on the admin port.
    """
    settings = load_settings(config, {"data_dir": data_dir})
    try:
        models = catalogue(settings)
        rates = asyncio.run(_rates(settings, models))
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
    listed = price_list(settings, models, rates)
    facts = rate_facts(rates, SystemClock().now())
    lines = [_line(listed, model, rates.current) for model in models.models]
    if as_json:
        click.echo(orjson.dumps({"models": lines, "rate": facts}))
    else:
        _show(lines, facts)


async def _rates(settings: NodeSettings, models: Catalogue) -> EthRates:
    """The rate, asked for once. A feed that does not answer is no error: its `problem` says so."""
    address = check_rates(settings, models)
    profile = await asyncio.to_thread(profile_of, settings.chain.network)
    if address is None or profile is None:
        return fixed_usd(settings.usd_per_eth)
    clock, chain = SystemClock(), settings.chain
    urls = endpoints_of(chain, profile)
    async with open_rpc(
        urls, profile.chain_id, clock, timeout_seconds=chain.timeout_seconds
    ) as rpc:
        feed = PriceFeed(rpc, address, clock, settings.price_feed, hold_seconds=HOLD_SECONDS)
        with suppress(ChainError):
            await feed.refresh()
        return feed


def _line(prices: PriceList, model: ServedModel, rate: Rate | None) -> dict[str, str | None]:
    line = {"model": model.model_id, "listed": written(prices.listed(model.model_id, NOBODY))}
    try:
        wei = prices.price(model.model_id, NOBODY)
    except NoRateError as error:
        return {**line, "wei_per_pixel": None, "usd_per_image": None, "problem": str(error)}
    dollars = None
    if rate is not None and rate.currency == USD:
        dollars = dollars_of(fee(_IMAGE, wei), rate.per_eth)
    return {**line, "wei_per_pixel": format_price(wei), "usd_per_image": dollars, "problem": ""}


def _show(lines: list[dict[str, str | None]], facts: Mapping[str, str | float | None]) -> None:
    table = plain_table("prices")
    add_columns(table, ("model", "listed"))
    add_columns(table, ("wei/pixel", "USD for 1024 x 1024"), right=True)
    for line in lines:
        cells = (line["model"], line["listed"], line["wei_per_pixel"], line["usd_per_image"])
        table.add_row(*(cell or "-" for cell in cells))
    show(table)
    click.echo(rate_line(facts))
