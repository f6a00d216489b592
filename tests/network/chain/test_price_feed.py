"""A price feed on the development chain: what it tells, and what of that is believed."""

import asyncio
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from network.chain.contracts import LivepeerChain
from network.chain.model import ChainError, ChainUnavailableError
from network.chain.price_feed import (
    ARBITRUM_ETH_USD,
    FeedAnswer,
    FeedError,
    PriceFeed,
    feed_address,
    judge,
)
from network.chain.rate_memory import load_rates
from network.chain.rpc import open_rpc
from network.chain.settings import PriceFeedSettings
from network.devnet.anvil import free_port
from network.errors import ConfigError
from network.identity import checksum, keccak
from network.prices import Rate
from network.runtime.clock import SystemClock
from network.units import Address
from tests.devnet import CHAIN_ID, Devnet
from tests.network.chain.feeds import DeployedFeed, deploy_feed

NOW = 1_800_000_000.0
HOLD = 1800.0
SETTINGS = PriceFeedSettings(max_age_seconds=3600)


@dataclass
class HandClock:
    """Goes when told to."""

    seconds: float = 0.0

    def now(self) -> float:
        return NOW + self.seconds

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Bench:
    """The contract, and our view of it."""

    contract: DeployedFeed
    feed: PriceFeed
    clock: HandClock

    async def look(self, answer: int, *, seconds_old: float = 0.0) -> Fraction:
        """The rate after a look at a feed that tells `answer` now."""
        await self.contract.set(answer, self.clock.now() - seconds_old)
        await self.feed.refresh()
        assert self.feed.current is not None
        return self.feed.current.per_eth

    async def refused(self, answer: int, *, seconds_old: float = 0.0) -> str:
        with pytest.raises(FeedError) as caught:
            await self.look(answer, seconds_old=seconds_old)
        assert self.feed.problem == str(caught.value)
        return self.feed.problem


@pytest.fixture
async def bench(devnet: Devnet, chain: LivepeerChain) -> Bench:
    contract, clock = await deploy_feed(devnet), HandClock()
    feed = PriceFeed(chain.rpc, contract.address, clock, SETTINGS, hold_seconds=HOLD)
    return Bench(contract, feed, clock)


async def test_the_feed_is_read_and_followed(bench: Bench) -> None:
    assert bench.feed.lately() == ()
    assert await bench.look(312_750_000_000, seconds_old=60) == Fraction(6255, 2)
    rate = bench.feed.current
    assert rate is not None
    assert (rate.currency, rate.as_of) == ("USD", NOW - 60)
    assert rate.source == f"price feed {checksum(bench.contract.address)}"
    bench.clock.seconds = 3600
    assert await bench.look(312_800_000_000) == 3128
    assert [one.per_eth for one in bench.feed.lately()] == [3128, Fraction(6255, 2)]
    bench.clock.seconds += HOLD + 1
    assert [one.per_eth for one in bench.feed.lately()] == [3128]


async def test_a_feed_that_is_broken_changes_nothing(bench: Bench) -> None:
    assert await bench.look(300_000_000_000) == 3000
    assert "no price" in await bench.refused(0)
    assert "no price" in await bench.refused(-300_000_000_000)
    assert "1.1 hours old" in await bench.refused(310_000_000_000, seconds_old=3960)
    assert "ahead of this machine" in await bench.refused(310_000_000_000, seconds_old=-1000)
    for jump in (600_000_000_001, 149_999_999_999, 1, 2**255 - 1):
        assert "jumped from 3000.00" in await bench.refused(jump)
    assert bench.feed.current is not None
    assert bench.feed.current.per_eth == 3000
    assert bench.feed.lately() == (bench.feed.current,)
    assert await bench.look(600_000_000_000) == 6000
    assert bench.feed.problem == ""


async def test_a_feed_that_never_worked_tells_no_rate(bench: Bench) -> None:
    assert "no price" in await bench.refused(0)
    assert bench.feed.current is None
    assert bench.feed.lately() == ()


async def test_a_feed_may_be_the_other_way_round(devnet: Devnet, chain: LivepeerChain) -> None:
    contract = await deploy_feed(devnet, 18, "EUR / ETH")
    await contract.set(10**18 // 2500, NOW)
    feed = PriceFeed(chain.rpc, contract.address, HandClock(), SETTINGS, hold_seconds=HOLD)
    await feed.refresh()
    assert feed.current is not None
    assert (feed.current.currency, feed.current.per_eth) == ("EUR", Fraction(2500))


async def test_what_is_no_feed_is_told(devnet: Devnet, chain: LivepeerChain) -> None:
    nobody = Address(keccak(b"nobody")[-20:])
    for address in (nobody, chain.profile.controller):
        feed = PriceFeed(chain.rpc, address, HandClock(), SETTINGS, hold_seconds=HOLD)
        with pytest.raises(ChainError):
            await feed.refresh()
        assert feed.problem
    wrong = await deploy_feed(devnet, 8, "BTC / USD")
    await wrong.set(1, NOW)
    feed = PriceFeed(chain.rpc, wrong.address, HandClock(), SETTINGS, hold_seconds=HOLD)
    with pytest.raises(FeedError, match="BTC / USD"):
        await feed.refresh()


async def test_a_chain_out_of_reach_leaves_the_last_rate(bench: Bench) -> None:
    await bench.look(300_000_000_000)
    rate = bench.feed.current
    clock = SystemClock()
    async with open_rpc([f"http://127.0.0.1:{free_port()}"], CHAIN_ID, clock) as nowhere:
        lost = PriceFeed(nowhere, bench.contract.address, bench.clock, SETTINGS, hold_seconds=HOLD)
        with pytest.raises(ChainUnavailableError):
            await lost.refresh()
        assert "no RPC endpoint helps" in lost.problem
    assert bench.feed.current is rate


def answer(per_eth: int) -> FeedAnswer:
    return FeedAnswer("ETH / USD", 0, per_eth, int(NOW))


def test_an_operators_own_bounds_hold_from_the_first_answer_on() -> None:
    bounded = PriceFeedSettings(lowest=Fraction(500), highest=Fraction(50_000))
    assert judge(answer(500), None, bounded, "it", NOW).per_eth == 500
    assert judge(answer(50_000), None, bounded, "it", NOW).per_eth == 50_000
    with pytest.raises(FeedError, match=r"below price_feed\.lowest"):
        judge(answer(499), None, bounded, "it", NOW)
    with pytest.raises(FeedError, match=r"above price_feed\.highest"):
        judge(answer(50_001), None, bounded, "it", NOW)
    # as far as half and twice, whatever it was before
    last = Rate("USD", Fraction(1000), "it", NOW)
    for per_eth in (500, 2000):
        assert judge(answer(per_eth), last, SETTINGS, "it", NOW).per_eth == per_eth


def test_the_feed_is_livepeers_on_livepeers_chain_only() -> None:
    own = PriceFeedSettings(address="0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")
    assert feed_address(PriceFeedSettings(), "arbitrum-one") == ARBITRUM_ETH_USD
    assert feed_address(PriceFeedSettings(), "network.json") is None
    assert feed_address(own, "network.json") != ARBITRUM_ETH_USD
    with pytest.raises(ConfigError, match=r"price_feed\.address"):
        feed_address(PriceFeedSettings(address="0x12"), "arbitrum-one")


def remembering(bench: Bench, path: Path) -> PriceFeed:
    """What the next process has of the same feed."""
    rpc, address = bench.feed._rpc, bench.contract.address
    return PriceFeed(rpc, address, bench.clock, SETTINGS, hold_seconds=HOLD, memory=path)


async def test_rates_are_held_over_a_restart(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    bench.feed = remembering(bench, path)
    await bench.feed.recall()
    await bench.look(300_000_000_000)
    bench.clock.seconds = 100
    await bench.look(310_000_000_000)

    # Known before anybody is asked, and held as long as it would have been.
    bench.feed = remembering(bench, path)
    await bench.feed.recall()
    assert [one.per_eth for one in bench.feed.lately()] == [3100, 3000]
    bench.clock.seconds = HOLD + 50
    assert [one.per_eth for one in bench.feed.lately()] == [3100, 3000]
    # A rate that jumped meanwhile is believed: starting again is how an operator says so.
    assert await bench.look(700_000_000_000) == 7000
    assert [one.per_eth for one in bench.feed.lately()] == [7000, 3100, 3000]
    bench.clock.seconds = HOLD + 101
    assert [one.per_eth for one in bench.feed.lately()] == [7000, 3100]
    assert "jumped" in await bench.refused(300_000_000_000)

    bench.clock.seconds += SETTINGS.refresh_seconds + 2 * HOLD
    late = remembering(bench, path)
    await late.recall()
    assert late.lately() == ()


async def test_a_memory_that_is_broken_or_of_another_feed_is_passed_over(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "rates.json"
    bench.feed = remembering(bench, path)
    await bench.look(300_000_000_000)
    good = await asyncio.to_thread(path.read_text)
    source = f"price feed {checksum(bench.contract.address)}"
    assert len(await asyncio.to_thread(load_rates, path, source)) == 1
    for broken in (
        "",
        "[]",
        good[:-1],
        good.replace("3000/1", "3000/0"),
        good.replace("3000/1", "0/1"),
        good.replace("3000/1", "x"),
        good.replace("price feed", "another feed"),
    ):
        await asyncio.to_thread(path.write_text, broken)
        assert await asyncio.to_thread(load_rates, path, source) == ()
    await asyncio.to_thread(path.unlink)
    assert await asyncio.to_thread(load_rates, path, source) == ()
    # What cannot be written down is not what work depends on.
    bench.feed = remembering(bench, tmp_path / "nowhere" / "rates.json")
    assert await bench.look(310_000_000_000) == 3100
