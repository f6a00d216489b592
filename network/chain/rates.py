"""Which rate prices in a currency are converted by: one that the operator fixed, or a price feed's."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from network.chain.model import ChainError
from network.chain.price_feed import PriceFeed, feed_address
from network.chain.rpc import Rpc
from network.chain.settings import OFFCHAIN, PriceFeedSettings
from network.errors import ConfigError
from network.prices import USD, CurrencyPrice, EthRates, Price
from network.runtime.clock import Clock
from network.runtime.supervisor import supervise
from network.units import Address

#: Seconds that a start waits for the feed; what is priced by it is not traded until it answers.
_FIRST_LOOK: Final = 10.0

log = structlog.get_logger(__name__)


def currencies_of(prices: Iterable[Price | None]) -> frozenset[str]:
    """The currencies that need a rate."""
    return frozenset(price.currency for price in prices if isinstance(price, CurrencyPrice))


def feed_to_ask(
    currencies: Collection[str], feed: PriceFeedSettings, network: str, *, is_fixed: bool
) -> Address | None:
    """The price feed that tells rates; None where `usd_per_eth` is set, or there is none to ask.

    `network` is the `chain.network` of the settings. Raises ConfigError where nothing will ever tell one
    of `currencies` in wei.
    """
    address = feed_address(feed, network)
    if is_fixed:
        if feed.address:
            raise ConfigError(
                "usd_per_eth",
                "fixes what an ETH costs, and price_feed.address asks for it; remove one",
            )
        if others := sorted(set(currencies) - {USD}):
            raise ConfigError(
                "usd_per_eth", f"tells what an ETH costs in USD, and a price is in {others[0]}"
            )
        return None
    if network == OFFCHAIN:
        address = None
    if currencies and address is None:
        raise ConfigError(
            "usd_per_eth",
            f"a price is in {min(currencies)}, and nothing says what an ETH costs; set it, for example "
            "usd_per_eth = 3127.5, or on a chain price_feed.address, or write the price in wei",
        )
    return address


@asynccontextmanager
async def open_feed(
    rpc: Rpc,
    address: Address,
    clock: Clock,
    settings: PriceFeedSettings,
    *,
    currencies: Collection[str],
    hold_seconds: float,
    memory: Path | None = None,
    is_needed: bool = False,
) -> AsyncIterator[EthRates]:
    """A price feed that is kept fresh for the length of the block, and was asked once if it is needed.

    It is needed for `currencies`, or where `is_needed` says so. `memory` is a file that keeps rates over a restart. Raises ConfigError where the feed is for another
    currency than one of `currencies`.
    """
    feed = PriceFeed(rpc, address, clock, settings, hold_seconds=hold_seconds, memory=memory)
    await feed.recall()
    if currencies or is_needed:
        await _first_look(feed)
    rate = feed.current
    if rate is not None and (others := sorted(set(currencies) - {rate.currency})):
        raise ConfigError(
            "price_feed.address", f"the feed tells {rate.currency}, and a price is in {others[0]}"
        )
    async with supervise(clock) as supervisor:
        supervisor.start("price feed", feed.run)
        yield feed


async def _first_look(feed: PriceFeed) -> None:
    try:
        async with asyncio.timeout(_FIRST_LOOK):
            await feed.refresh()
    except (TimeoutError, ChainError) as error:
        log.warning(
            "the price feed cannot be used; what is priced by it is not traded until it can",
            problem=str(error) or "no answer in time",
        )
