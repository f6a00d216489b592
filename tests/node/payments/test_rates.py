"""A node whose prices are in dollars: quotes hold while the rate moves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from network.capabilities import job_capabilities
from network.devnet.deployment import ETHER, account_of
from network.errors import ConfigError
from network.prices import Rate, asked_in_wei, parse_price
from network.runtime.clock import SystemClock
from network.units import Pixels, Wei
from network.wire.codec import Payment
from network.wire.headers import FEE, PRICE
from node.accounting.model import NOBODY
from node.accounting.pricing import Declined, PriceList, Quote, judge_offer
from node.app import open_node
from node.config.catalogue import catalogue
from node.config.settings import NodeSettings
from node.discovery.sessions import LIFETIME_SECONDS
from node.payments.rates import HOLD_SECONDS, check_rates
from tests.devnet import CHAIN_ID, Devnet
from tests.network.chain.feeds import DeployedFeed, deploy_feed
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, Buyer, eventually, running_node
from tests.node.payments.paid_nodes import PayingBuyer, network_file, paid_settings
from tests.node.payments.paid_nodes import Quote as Terms

#: Of a pixel; 5/2 wei where an ETH costs 3000 dollars.
DOLLARS = "7.5e-15 USD"
PIXELS = Pixels(64 * 64)
ONE_DOLLAR = 10**8


@dataclass(frozen=True, slots=True)
class Market:
    """A node, its price feed and one that buys."""

    buyer: PayingBuyer
    feed: DeployedFeed

    async def price(self) -> Fraction:
        info = await self.buyer.terms(job_capabilities(MODEL, "0.1.0"))
        assert info.price is not None
        return info.price

    async def move(self, usd_per_eth: int, *, seconds_old: float = 0.0) -> None:
        await self.feed.set(usd_per_eth * ONE_DOLLAR, SystemClock().now() - seconds_old)

    async def settled_at(self, price: Fraction) -> None:
        async def is_asked() -> bool:
            return await self.price() == price

        await eventually(is_asked, 30)

    async def status(self) -> Any:
        return (await self.buyer.get("/status", admin=True)).json

    async def disbelieved(self, words: str) -> None:
        async def is_told() -> bool:
            return words in (await self.status())["rate"]["problem"]

        await eventually(is_told, 30)

    def payment(self, terms: Terms, price: Fraction, tickets: int = 2) -> Payment:
        return replace(self.buyer.payment(terms, tickets), expected_price=price)


@dataclass(frozen=True, slots=True)
class Place:
    """What a node is started with, and started again."""

    settings: NodeSettings
    feed: DeployedFeed

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Market]:
        async with (
            open_node(self.settings, engine_opener=FakeEngine().opener) as running,
            PayingBuyer(running) as buyer,
        ):
            yield Market(buyer, self.feed)


async def place_on(devnet: Devnet, folder: Path, usd_per_eth: int) -> Place:
    node, gateway = account_of(b"\x11" * 32), account_of(b"\x22" * 32)
    for account in (node, gateway):
        await devnet.rpc("anvil_setBalance", account.address, hex(100 * ETHER))
    await devnet.contracts.fund_sender(gateway, Wei(ETHER), Wei(ETHER))
    await devnet.contracts.register_orchestrator(node, Wei(100 * ETHER), "https://127.0.0.1:1")
    await devnet.next_round()
    # What a block costs here at most; a redemption is to be worth its gas.
    await devnet.rpc("anvil_setNextBlockBaseFeePerGas", hex(1))
    feed = await deploy_feed(devnet)
    await feed.set(usd_per_eth * ONE_DOLLAR, SystemClock().now())
    settings = await paid_settings(
        folder,
        models=[
            {"id": MODEL, "path": folder / "model", "price": DOLLARS, "profile": {"size": "64x64"}}
        ],
        price_feed={"address": feed.contract.address, "refresh_seconds": 0.1},
    )
    contracts = devnet.contracts
    network_file(
        folder,
        devnet.chain.url,
        chain_id=CHAIN_ID,
        controller=contracts.controller,
        ai_service_registry=contracts.addresses["AIServiceRegistry"],
    )
    return Place(settings, feed)


@asynccontextmanager
async def market_on(devnet: Devnet, folder: Path, usd_per_eth: int) -> AsyncIterator[Market]:
    place = await place_on(devnet, folder, usd_per_eth)
    async with place.open() as market:
        yield market


def charged(answer: Any) -> tuple[int, str, str]:
    assert answer.status == 200, answer.text
    return answer.status, answer.headers[PRICE], answer.headers[FEE]


async def test_a_job_costs_what_was_quoted_though_the_rate_moved_meanwhile(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with market_on(devnet, tmp_path, 3000) as market:
        buyer = market.buyer
        await market.settled_at(Fraction(5, 2))
        before = await buyer.quote()

        await market.move(2000)
        await market.settled_at(Fraction(15, 4))
        after = await buyer.quote()

        old = await buyer.pay(market.payment(before, Fraction(5, 2)))
        assert charged(old) == (200, "2.5", str(PIXELS * 5 // 2))
        new = await buyer.pay(market.payment(after, Fraction(15, 4)))
        assert charged(new) == (200, "3.75", str(PIXELS * 15 // 4))

        # A price between the two was never ours, and tickets are good only at the price of their quote.
        named = await buyer.pay(market.payment(after, Fraction(3)))
        assert (named.status, "is below the 15/4" in named.text) == (400, True)
        mixed = await buyer.pay(market.payment(after, Fraction(5, 2)))
        assert (mixed.status, "invalid recipientRand" in mixed.text) == (400, True)

        await market.move(2500)
        await market.settled_at(Fraction(3))
        fell = await buyer.pay(market.payment(after, Fraction(15, 4)))
        assert charged(fell) == (200, "3.75", str(PIXELS * 15 // 4))


async def test_a_quote_holds_over_a_restart(devnet: Devnet, tmp_path: Path) -> None:
    place = await place_on(devnet, tmp_path, 3000)
    async with place.open() as market:
        await market.settled_at(Fraction(5, 2))
        before = await market.buyer.quote()
        await market.move(2000)
        await market.settled_at(Fraction(15, 4))
    await market.move(2500)
    async with place.open() as again:
        await again.settled_at(Fraction(3))
        payment = again.payment(before, Fraction(5, 2))
        assert charged(await again.buyer.pay(payment)) == (200, "2.5", str(PIXELS * 5 // 2))


async def test_a_broken_feed_sells_nothing_for_less(devnet: Devnet, tmp_path: Path) -> None:
    async with market_on(devnet, tmp_path, 3000) as market:
        await market.settled_at(Fraction(5, 2))
        for broken, age, words in (
            (0, 0, "no price"),
            (1_000_000, 0, "jumped"),
            (2900, 10**6, "hours old"),
        ):
            await market.move(broken, seconds_old=age)
            await market.disbelieved(words)
            assert await market.price() == Fraction(5, 2)
            assert (await market.status())["rate"]["per_eth"] == "3000"
        await market.move(2400)
        await market.settled_at(Fraction(25, 8))


async def test_without_any_rate_nothing_is_sold_until_there_is_one(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with market_on(devnet, tmp_path, 0) as market:
        assert "what an ETH costs is not known" in await market.buyer.refusal()
        assert (await market.status())["rate"]["per_eth"] is None
        await market.move(3000)

        async def is_sold() -> bool:
            return await market.buyer.refusal() == ""

        await eventually(is_sold, 30)
        assert await market.price() == Fraction(5, 2)


async def test_off_chain_a_fixed_rate_prices_dollars(tmp_path: Path) -> None:
    models = [{"id": MODEL, "path": tmp_path / "model", "price": DOLLARS, "capacity": 2}]
    async with (
        running_node(tmp_path, models=models, usd_per_eth=3000.0) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
    ):
        answer = await buyer.ask(price=Fraction(5, 2))
        assert charged(answer) == (200, "2.5", str(PIXELS * 5 // 2))
        status = (await buyer.get("/status", admin=True)).json
        assert status["models"][0]["listed_price"] == "0.0000000000000075 USD"
        assert status["rate"] == {
            "currency": "USD",
            "per_eth": "3000",
            "source": "usd_per_eth",
            "age_seconds": 0,
            "problem": "",
        }


def test_quotes_hold_as_long_as_the_terms_they_stand_in() -> None:
    assert HOLD_SECONDS >= LIFETIME_SECONDS


class Moved:
    """A rate that was 3000, and is 2000 now."""

    current = Rate("USD", Fraction(2000), "a test")
    problem = ""

    def lately(self) -> tuple[Rate, ...]:
        return (self.current, Rate("USD", Fraction(3000), "a test"), Rate("EUR", Fraction(1), ""))


def test_prices_of_one_model_are_no_prices_of_another() -> None:
    cheap, dear = parse_price(DOLLARS), parse_price("1e-12 USD")
    other = type(MODEL)("other")
    prices = PriceList(Fraction(7), {MODEL: cheap, other: dear}, rates=Moved())
    assert prices.held(MODEL, NOBODY) == {Fraction(5, 2), Fraction(15, 4)}
    assert prices.held(type(MODEL)("in wei"), NOBODY) == {7}
    for model, expected in ((other, Fraction(5, 2)), (MODEL, Fraction(2))):
        verdict = judge_offer(
            prices.quote(model, NOBODY, PIXELS),
            expected,
            may_omit=False,
            model_id=model,
            held=prices.held(model, NOBODY),
        )
        assert isinstance(verdict, Declined)
    overpaid = judge_offer(
        prices.quote(MODEL, NOBODY, PIXELS),
        Fraction(4),
        may_omit=False,
        model_id=MODEL,
        held=prices.held(MODEL, NOBODY),
    )
    assert overpaid == Quote(Fraction(15, 4), PIXELS, Wei(PIXELS * 15 // 4))
    assert asked_in_wei(cheap, Moved.current) == Fraction(15, 4)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"price": "1e-9 USD"}, "usd_per_eth"),
        ({"price": "1e-9 EUR", "usd_per_eth": 3000}, "usd_per_eth"),
        ({"usd_per_eth": 3000, "price_feed": {"address": "0x" + "12" * 20}}, "usd_per_eth"),
        ({"price_feed": {"address": "0x12"}}, "price_feed.address"),
    ],
)
async def test_prices_that_nothing_tells_in_wei_stop_the_start(
    tmp_path: Path, settings: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with running_node(tmp_path, **settings):
            pass
    assert caught.value.key == key


def test_on_livepeers_chain_a_feed_is_there_already() -> None:
    settings = NodeSettings.model_validate(
        {"price": "1e-9 USD", "chain": {"network": "arbitrum-one"}}
    )
    check_rates(settings, catalogue(settings))
