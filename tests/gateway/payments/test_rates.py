"""What an ETH costs in dollars: asked of a feed on a real chain, and remembered when that is gone."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gateway.config import GatewaySettings
from gateway.payments.rates import check_dollars, open_rates
from network.errors import ConfigError
from network.runtime.clock import SystemClock
from tests.devnet import Devnet
from tests.gateway.test_paid_app import network_file
from tests.network.chain.feeds import deploy_feed

NOBODY = "http://127.0.0.1:9"


def settings_with(**fields: Any) -> GatewaySettings:
    return GatewaySettings.model_validate(fields)


async def test_a_restart_without_the_chain_goes_on_from_the_last_rate(
    devnet: Devnet, tmp_path: Path
) -> None:
    clock, memory = SystemClock(), tmp_path / "rates.json"
    feed = await deploy_feed(devnet)
    written = int(clock.now()) - 3600
    await feed.set(3500 * 10**8, written)
    network = str(await network_file(devnet, tmp_path))
    price_feed = {"address": feed.contract.address}
    alive = settings_with(chain={"network": network}, price_feed=price_feed)
    gone = settings_with(chain={"network": network, "rpc": [NOBODY]}, price_feed=price_feed)
    await check_dollars(alive, clock)
    async with open_rates(gone, clock, memory=memory, is_needed=True) as rates:
        assert rates.current is None
    async with open_rates(alive, clock, memory=memory, is_needed=True) as rates:
        assert rates.current is not None
    async with open_rates(gone, clock, memory=memory, is_needed=True) as rates:
        rate = rates.current
        assert rate is not None
        assert (rate.per_eth, rate.as_of) == (Fraction(3500), float(written))
    with pytest.raises(
        ConfigError, match="the price feed cannot tell what an ETH costs"
    ) as caught:
        await check_dollars(gone, clock)
    assert caught.value.key == "price_feed"
    await feed.set(3500 * 10**8, clock.now() - 200_000)
    with pytest.raises(ConfigError, match="hours old"):
        await check_dollars(alive, clock)


async def test_dollars_want_a_rate_of_dollars(devnet: Devnet, tmp_path: Path) -> None:
    clock = SystemClock()
    await check_dollars(settings_with(usd_per_eth="3500"), clock)
    with pytest.raises(ConfigError, match="nothing says what an ETH costs"):
        await check_dollars(settings_with(), clock)
    feed = await deploy_feed(devnet, description="ETH / EUR")
    await feed.set(3000 * 10**8, clock.now())
    network = str(await network_file(devnet, tmp_path))
    euros = settings_with(
        chain={"network": network}, price_feed={"address": feed.contract.address}
    )
    with pytest.raises(ConfigError, match="the feed tells EUR, and a budget is in US dollars"):
        await check_dollars(euros, clock)
