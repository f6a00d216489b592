"""What an ETH costs, for a node with prices in a currency: as the operator set it, or from a price feed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from network.chain.model import ChainError
from network.chain.price_feed import PriceFeed, feed_address
from network.chain.rpc import Rpc
from network.errors import ConfigError
from network.prices import USD, CurrencyPrice, Price, Rates, fixed_usd
from network.runtime.clock import Clock
from network.runtime.supervisor import supervise
from node.config.catalogue import Catalogue
from node.config.settings import NodeSettings, is_onchain

#: Seconds that terms hold: a session token's life, which is longer than that of a ticket's quote.
HOLD_SECONDS: Final = 30.0 * 60
#: Seconds that a start waits for the feed; without it the node serves, and sells nothing priced by it.
_FIRST_LOOK: Final = 10.0

log = structlog.get_logger(__name__)


def check_rates(settings: NodeSettings, models: Catalogue) -> None:
    """Raise ConfigError for prices in a currency that nothing will ever tell in wei."""
    address = feed_address(settings.price_feed, settings.chain.network)
    if settings.usd_per_eth is not None and settings.price_feed.address:
        raise ConfigError(
            "usd_per_eth",
            "fixes what an ETH costs, and price_feed.address asks for it; remove one",
        )
    for currency in sorted(_currencies(settings, models)):
        if settings.usd_per_eth is not None:
            if currency != USD:
                raise ConfigError(
                    "price", f"a price is in {currency}, and usd_per_eth tells USD only"
                )
        elif address is None or not is_onchain(settings):
            raise ConfigError(
                "usd_per_eth",
                f"a price is in {currency}, and nothing says what an ETH costs; set it, for example "
                'usd_per_eth = "3127.5", or on a chain price_feed.address, or write the price in wei',
            )


@asynccontextmanager
async def open_rates(
    settings: NodeSettings, models: Catalogue, rpc: Rpc, clock: Clock
) -> AsyncIterator[Rates]:
    """Keep the rate fresh for the length of the block, if a price depends on it.

    Raises ConfigError where the feed is for another currency than a price.
    """
    address = feed_address(settings.price_feed, settings.chain.network)
    currencies = _currencies(settings, models)
    if settings.usd_per_eth is not None or address is None or not currencies:
        yield fixed_usd(settings.usd_per_eth)
        return
    feed = PriceFeed(rpc, address, clock, settings.price_feed, hold_seconds=HOLD_SECONDS)
    await _first_look(feed)
    rate = feed.current
    if rate is not None and (others := currencies - {rate.currency}):
        raise ConfigError(
            "price_feed.address",
            f"the feed tells {rate.currency}, and a price is in {min(others)}",
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
            "the price feed cannot be used; what is priced by it is not sold until it can",
            problem=str(error) or "no answer in time",
        )


def _currencies(settings: NodeSettings, models: Catalogue) -> frozenset[str]:
    return frozenset(
        price.currency for price in _prices(settings, models) if isinstance(price, CurrencyPrice)
    )


def _prices(settings: NodeSettings, models: Catalogue) -> Iterator[Price]:
    yield settings.price
    for model in models.models:
        yield model.price
        yield from (price for _, price in model.payer_prices)
