from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given
from yarl import URL

from network.units import Wei
from node.apps.heartbeat import Asked, Mode, Told
from node.apps.model import Price
from node.apps.selling import NotSold, Terms, steady, terms, wei_per_call

ETH = Fraction(3000)
FIXED = Asked(Fraction(3, 1000), "fixed")


def told(asked: Asked = FIXED, mode: Mode = "single-shot") -> Told:
    return Told(URL("http://127.0.0.1:9000"), "acme/upscaler", mode, 1, asked)


def anybody(_cost: Wei) -> str:
    """Everything can be paid."""
    return ""


def test_what_no_payer_could_pay_is_not_sold() -> None:
    found = terms(told(), ETH, unpayable=lambda cost: f"{cost} wei are too many")
    assert found == NotSold("1000000000000 wei are too many")


def test_dollars_become_whole_wei_rounded_down() -> None:
    assert wei_per_call(FIXED, ETH) == 10**12
    assert wei_per_call(FIXED, Fraction(7)) == 428571428571428
    assert terms(told(), ETH, unpayable=anybody) == Terms(Price(Wei(10**12)), Wei(10**12))


@pytest.mark.parametrize(
    ("asked", "rate", "why"),
    [
        (FIXED, None, "usd_per_eth"),
        (Asked(Fraction(0), "fixed"), ETH, "0 wei"),
        (Asked(Fraction(10**6), "fixed"), ETH, "no ticket"),
        (Asked(Fraction(1), "hour"), ETH, 'priced by "hour"'),
        (Asked(Fraction(1), "720p"), ETH, 'priced by "720p"'),
    ],
)
def test_what_cannot_be_paid_by_ticket_is_told(
    asked: Asked, rate: Fraction | None, why: str
) -> None:
    found = terms(told(asked), rate, unpayable=anybody)
    assert isinstance(found, NotSold)
    assert why in found.why
    # Off-chain nobody pays, and everybody may call it.
    assert isinstance(terms(told(asked), rate, unpayable=None), Terms)


def test_sessions_are_not_sold_either_way() -> None:
    for unpayable in (anybody, None):
        found = terms(told(mode="persistent"), ETH, unpayable=unpayable)
        assert isinstance(found, NotSold)
        assert "persistent" in found.why


@given(st.integers(1, 2**62), st.integers(1, 2**62))
def test_a_price_moves_only_by_more_than_a_hundredth(before: int, now: int) -> None:
    kept = steady(Wei(before), Wei(now))
    assert kept in {before, now}
    # Who found `kept` listed pays up to 1.2 % more: never too little for what it costs now.
    assert abs(kept - now) * 100 <= kept
    assert (kept == before) == (abs(now - before) * 100 <= before)
