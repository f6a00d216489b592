"""Maximum prices in a currency: what they allow follows the rate, and without one nothing is bought."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.accounting.journal import MIGRATIONS
from gateway.dispatch import Routing
from gateway.keys import KeyRing, create_key
from gateway.signer.charging import JobType
from gateway.signer.desk import PriceCaps
from gateway.signer.refusal import UNAVAILABLE, SigningRefusedError
from network.devnet.deployment import account_of
from network.errors import ConfigError, Problem, ProblemError
from network.identity import KeySigner
from network.prices import FixedRate, Price, Rate, fixed_usd, parse_price
from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.units import ModelId, Wei
from tests.devnet import Devnet
from tests.gateway.routing import Desk, Key, open_desk, request_for
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.stub_till import StubTill
from tests.gateway.test_app import serving, settings_for
from tests.gateway.test_paid_app import GATEWAY_KEY, head_of, network_file, seen_by
from tests.gateway.waiting import until_async
from tests.network.chain.feeds import deploy_feed

#: 5 wei where an ETH costs 3000 dollars.
CAP = parse_price("1.5e-14 USD")


@dataclass
class Market:
    """EthRates that a test sets."""

    current: Rate | None = None
    problem: str = ""

    def lately(self) -> tuple[Rate, ...]:
        return () if self.current is None else (self.current,)

    def costs(self, usd_per_eth: int) -> None:
        self.current = fixed_usd(Fraction(usd_per_eth)).current


async def bought(desk: Desk, key: Key) -> Problem | None:
    """Why nothing was bought; None if it was."""
    try:
        found = await desk.dispatcher.run("r", key, request_for())
    except ProblemError as error:
        return error.problem
    await found.settled
    return None


@pytest.mark.parametrize("whose", ["gateway", "key"])
async def test_a_cap_in_dollars_follows_the_rate(tmp_path: Path, whose: str) -> None:
    rates = Market()
    routing = Routing(max_price=CAP if whose == "gateway" else None, rates=rates)
    key = Key(max_price=CAP if whose == "key" else None)
    stub = StubOrchestrator({"m": StubModel(Fraction(5))})
    async with running(stub), open_desk(tmp_path, [stub], routing=routing) as desk:
        problem = await bought(desk, key)
        assert problem is not None
        assert (problem.status, problem.code) == (503, "payments_unavailable")
        assert not stub.seen
        rates.costs(4000)
        problem = await bought(desk, key)
        assert problem is not None
        assert problem.code == "price_above_cap"
        assert "3.75 wei per pixel" in problem.message
        assert not stub.seen
        rates.costs(3000)
        assert await bought(desk, key) is None
        assert len(stub.seen) == 1


def test_of_two_caps_the_lower_counts_whatever_they_are_written_in() -> None:
    rates = fixed_usd(Fraction(3000))
    cases: list[tuple[Price | None, Price | None, Fraction | None]] = [
        (CAP, Fraction(4), Fraction(4)),
        (CAP, Fraction(6), Fraction(5)),
        (None, CAP, Fraction(5)),
        (CAP, parse_price("9e-15USD"), Fraction(3)),
        (None, None, None),
    ]
    for own, keys, expected in cases:
        routing = Routing(max_price=own, rates=rates)
        assert routing.cap(Key(max_price=keys), ModelId("m")) == expected
    by_model = {"m": parse_price("9e-15USD"), None: Fraction(1, 2)}
    routing = Routing(max_price=Fraction(4), max_prices=by_model, rates=rates)
    assert routing.cap(Key(), ModelId("m")) == 3
    assert routing.cap(Key(), ModelId("n")) == Fraction(1, 2)


async def test_a_key_keeps_its_cap_in_dollars(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'keys.sqlite3'}", MIGRATIONS) as database:
        grant, bearer = await create_key(database, SystemClock(), name="me", max_price=CAP)
        found = await KeyRing(database, SystemClock()).check(bearer)
    assert grant.max_price == CAP
    assert found == grant


def test_a_signers_caps_follow_the_rate_by_the_type_of_the_job() -> None:
    rates = Market()
    caps = PriceCaps(per_pixel=CAP, per_second=Fraction(7), rates=rates)
    assert caps.of(JobType.LIVE) == 7
    assert caps.of(JobType.FIXED) is None
    with pytest.raises(SigningRefusedError) as caught:
        caps.of(JobType.PIXELS)
    assert caught.value.status == UNAVAILABLE
    rates.costs(3000)
    assert caps.of(JobType.PIXELS) == caps.of(JobType.VIDEO) == 5
    assert PriceCaps(per_call=Fraction(1), rates=FixedRate()).of(JobType.FIXED) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"routing": {"max_price": "1USD"}},
        {"signer": {"max_price_per_call": "1EUR"}, "usd_per_eth": 3000},
        {"usd_per_eth": 3000, "price_feed": {"address": "0x" + "12" * 20}},
    ],
)
async def test_a_cap_that_nothing_tells_in_wei_stops_the_start(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match="usd_per_eth"):
        async with serving(settings_for(tmp_path, **settings)):
            pass


async def test_a_gateway_buys_by_what_its_price_feed_tells(devnet: Devnet, tmp_path: Path) -> None:
    payer = account_of(GATEWAY_KEY)
    await devnet.rpc("anvil_setBalance", payer.address, hex(10**19))
    await devnet.contracts.fund_sender(payer, Wei(10**16), Wei(10**16))
    orchestrator = await devnet.orchestrator()
    await devnet.next_round()
    feed = await deploy_feed(devnet)
    await feed.set(4000 * 10**8, SystemClock().now())
    path = await network_file(devnet, tmp_path)
    till = StubTill(seen_by(await head_of(path)), key=KeySigner(bytes(orchestrator.key)))
    stub = StubOrchestrator({"m": StubModel(Fraction(5))}, till=till)
    async with running(stub):
        settings = settings_for(
            tmp_path,
            stub.uri,
            chain={"network": str(path), "poll_seconds": 0.1},
            routing={"refresh_seconds": 0.3, "max_wait_seconds": 1, "max_price": "1.5e-14USD"},
            price_feed={"address": feed.contract.address, "refresh_seconds": 0.1},
        )
        async with serving(settings) as stage:
            refused = await stage.post()
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "price_above_cap"
            await feed.set(2900 * 10**8, SystemClock().now())

            async def is_seen() -> bool:
                rate = (await stage.status())["rate"]
                return bool((rate["currency"], rate["per_eth"]) == ("USD", "2900"))

            await until_async(is_seen)
            bought = await stage.post()
            assert bought.status == 200, await bought.text()
