"""What an ETH costs, for a gateway that caps prices in a currency."""

from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config import GatewaySettings
from network.chain.profiles import endpoints_of, profile_of
from network.chain.rates import currencies_of, feed_to_ask, open_feed
from network.chain.rpc import open_rpc
from network.prices import EthRates, fixed_usd
from network.runtime.clock import Clock


@asynccontextmanager
async def open_rates(settings: GatewaySettings, clock: Clock) -> AsyncIterator[EthRates]:
    """Keep the rate fresh for the length of the block. Raises ConfigError.

    On a chain with a price feed that is done whatever the settings say: keys may have caps in a currency.
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
        yield fixed_usd(settings.usd_per_eth)
        return
    chain = settings.chain
    urls = endpoints_of(chain, profile)
    async with (
        open_rpc(urls, profile.chain_id, clock, timeout_seconds=chain.timeout_seconds) as rpc,
        open_feed(
            rpc, address, clock, settings.price_feed, currencies=currencies, hold_seconds=0.0
        ) as rates,
    ):
        yield rates
