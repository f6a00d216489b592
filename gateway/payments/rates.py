"""What an ETH costs, for a gateway that caps prices in a currency, and for budgets in dollars."""

import asyncio
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from gateway.config import GatewaySettings
from network.chain.model import ChainError
from network.chain.price_feed import PriceFeed
from network.chain.profiles import endpoints_of, profile_of
from network.chain.rates import currencies_of, feed_to_ask, open_feed
from network.chain.rpc import open_rpc
from network.errors import ConfigError
from network.prices import USD, EthRates, fixed_usd
from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)

#: Seconds that `check_dollars` waits for a price feed.
_LONGEST_LOOK: Final = 10.0


@asynccontextmanager
async def open_rates(
    settings: GatewaySettings,
    clock: Clock,
    *,
    memory: Path | None = None,
    is_needed: bool = False,
) -> AsyncIterator[EthRates]:
    """Keep the rate fresh for the length of the block. Raises ConfigError.

    On a chain with a price feed that is done whatever the settings say: keys may have caps in a currency,
    and budgets in dollars. `memory` is a file that keeps the rate over a restart. Where it `is_needed`,
    the feed is asked before this returns.
    """
    signer = settings.signer
    currencies = currencies_of(
        (
            settings.routing.max_price,
            signer.max_price,
            signer.max_price_per_second,
            signer.max_price_per_call,
        )
    )
    address = feed_to_ask(
        currencies,
        settings.price_feed,
        settings.chain.network,
        is_fixed=settings.usd_per_eth is not None,
    )
    profile = await to_thread(profile_of, settings.chain.network)
    if address is None or profile is None:
        if is_needed and settings.usd_per_eth is None:
            _log.warning(
                "no_rate_for_budgets",
                advice="keys with budgets in US dollars get 503: set usd_per_eth, or price_feed.address",
            )
        yield fixed_usd(settings.usd_per_eth)
        return
    chain = settings.chain
    urls = endpoints_of(chain, profile)
    async with (
        open_rpc(urls, profile.chain_id, clock, timeout_seconds=chain.timeout_seconds) as rpc,
        open_feed(
            rpc,
            address,
            clock,
            settings.price_feed,
            currencies=currencies,
            # What a start may go on from is what budgets may go by.
            hold_seconds=settings.budgets.max_rate_age_seconds,
            memory=memory,
            is_needed=is_needed,
        ) as rates,
    ):
        yield rates


async def check_dollars(settings: GatewaySettings, clock: Clock) -> None:
    """See that a budget in dollars could be gone by now. Raises ConfigError with the setting to make."""
    is_fixed = settings.usd_per_eth is not None
    chain = settings.chain
    address = feed_to_ask((), settings.price_feed, chain.network, is_fixed=is_fixed)
    if is_fixed:
        return
    profile = await to_thread(profile_of, chain.network)
    if address is None or profile is None:
        raise ConfigError(
            "usd_per_eth",
            "a budget is in US dollars, and nothing says what an ETH costs; set it, for example "
            "usd_per_eth = 3127.5, or on a chain price_feed.address, or write the budget in ETH",
        )
    urls = endpoints_of(chain, profile)
    async with open_rpc(
        urls, profile.chain_id, clock, timeout_seconds=chain.timeout_seconds
    ) as rpc:
        feed = PriceFeed(rpc, address, clock, settings.price_feed, hold_seconds=0.0)
        try:
            async with asyncio.timeout(_LONGEST_LOOK):
                await feed.refresh()
        except (TimeoutError, ChainError) as error:
            raise ConfigError(
                "price_feed",
                "a budget is in US dollars, and the price feed cannot tell what an ETH costs: "
                f"{str(error) or 'no answer in time'}; see chain.rpc and price_feed.address, or set "
                "usd_per_eth",
            ) from None
    if feed.current is not None and feed.current.currency != USD:
        raise ConfigError(
            "price_feed.address",
            f"the feed tells {feed.current.currency}, and a budget is in US dollars; name one of "
            "ETH / USD, or write the budget in ETH",
        )
