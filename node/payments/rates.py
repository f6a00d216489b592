"""What a node asks for its models, and what an ETH costs where that is in a currency."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from network.chain.rates import currencies_of, feed_to_ask, open_feed
from network.chain.rpc import Rpc
from network.prices import USD, EthRates, Price, fixed_usd
from network.runtime.clock import Clock
from network.units import Address
from node.accounting.pricing import PriceList
from node.config.catalogue import Catalogue
from node.config.settings import NodeSettings

#: Seconds that terms hold: a session token's life, which is longer than that of a ticket's quote.
HOLD_SECONDS: Final = 30.0 * 60
#: In the data directory.
_MEMORY: Final = "rates.json"


def check_rates(settings: NodeSettings, models: Catalogue) -> Address | None:
    """Return the feed to ask, if any. Raises ConfigError for prices that nothing will ever tell in wei."""
    return feed_to_ask(
        currencies_of(_prices(settings, models)),
        settings.price_feed,
        settings.chain.network,
        is_fixed=settings.usd_per_eth is not None,
    )


def price_list(settings: NodeSettings, models: Catalogue, rates: EthRates) -> PriceList:
    """Return what each model costs, and for whom."""
    return PriceList(
        settings.price,
        {model.model_id: model.price for model in models.models},
        {
            (model.model_id, payer): price
            for model in models.models
            for payer, price in model.payer_prices
        },
        rates,
    )


@asynccontextmanager
async def open_rates(
    settings: NodeSettings, models: Catalogue, rpc: Rpc, clock: Clock
) -> AsyncIterator[EthRates]:
    """Keep the rate fresh for the length of the block, if a price depends on it. Raises ConfigError."""
    address = check_rates(settings, models)
    currencies = currencies_of(_prices(settings, models))
    if settings.runners.are_on:
        # Apps of others ask in dollars; without a feed they are not sold, which ends no start.
        currencies |= {USD}
    if address is None or not currencies:
        yield fixed_usd(settings.usd_per_eth)
        return
    async with open_feed(
        rpc,
        address,
        clock,
        settings.price_feed,
        currencies=currencies,
        hold_seconds=HOLD_SECONDS,
        memory=settings.data_dir / _MEMORY,
    ) as rates:
        yield rates


def _prices(settings: NodeSettings, models: Catalogue) -> Iterator[Price]:
    yield settings.price
    for model in models.models:
        yield model.price
        yield from (price for _, price in model.payer_prices)
