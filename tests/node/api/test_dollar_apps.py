"""Calls that are priced in dollars: what was quoted for a request holds while the rate moves."""

from fractions import Fraction
from pathlib import Path

import pytest

from network.units import Pixels
from network.wire.headers import FEE
from tests.devnet import Devnet
from tests.node.apps.callers import Terms, call, headers_for, listed, problem
from tests.node.nodes import eventually
from tests.node.payments.test_rates import market_on

PIXELS = Pixels(64 * 64)


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node holds its account for the whole machine; other runs of these tests have the same account."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


async def test_a_call_costs_what_was_quoted_for_it_though_the_rate_moved_meanwhile(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with market_on(devnet, tmp_path, 3000) as market:
        buyer = market.buyer
        await market.settled_at(Fraction(5, 2))
        before, spare = Terms.of(await call(buyer)), Terms.of(await call(buyer))
        await market.move(2000)
        await market.settled_at(Fraction(15, 4))
        after = Terms.of(await call(buyer))
        assert before.fee == PIXELS * 5 // 2
        assert after.fee == PIXELS * 15 // 4
        (runner,) = await listed(buyer)
        assert runner["price_info"]["price"] == 1024 * 1024 * 4 * 15 // 4

        other = await call(buyer, headers_for(buyer, spare), seed=8)
        assert problem(other) == (400, "payment price does not match live runner price")
        for terms in (before, after):
            answer = await call(buyer, headers_for(buyer, terms))
            assert answer.status == 200, answer.text
            assert answer.headers[FEE] == str(terms.fee)
            receipt = (await buyer.receipt(terms.session_id)).json
            assert receipt["charged"] == str(terms.fee)


async def test_without_a_rate_nothing_is_listed_and_no_call_is_quoted(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with market_on(devnet, tmp_path, 0) as market:
        assert await listed(market.buyer) == []
        assert problem(await call(market.buyer)) == (
            503,
            "no capacity available for runner: no_rate",
        )
        await market.move(3000)

        async def is_listed() -> bool:
            return len(await listed(market.buyer)) == 1

        await eventually(is_listed, 30)
        await market.settled_at(Fraction(5, 2))
        assert Terms.of(await call(market.buyer)).fee == PIXELS * 5 // 2
