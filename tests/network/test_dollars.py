"""Amounts of dollars are exact, and what wei come to in them is rounded up."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.dollars import AttoUsd, charged_usd, format_usd, names_dollars, parse_usd
from network.units import Wei

RATES = st.fractions(Fraction(1, 10**8), 10**6, max_denominator=10**8)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5usd", 5 * 10**18),
        ("0.25 USD", 25 * 10**16),
        ("$12.50", 125 * 10**17),
        ("$ 1 usd", 10**18),
        ("0.000000000000000001 usd", 1),
        ("0usd", 0),
    ],
)
def test_dollars_are_read_exactly(text: str, amount: int) -> None:
    assert names_dollars(text)
    assert parse_usd(text) == amount


@pytest.mark.parametrize(
    "text",
    ["5", "", "usd", "-1 usd", "1e3 usd", "1,000 usd", "0.0000000000000000001 usd", "5 eth"],
)
def test_what_is_no_amount_of_dollars_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='write "5 usd"'):
        parse_usd(text)


@given(st.integers(0, 10**40).map(AttoUsd))
def test_what_is_shown_is_read_back(amount: AttoUsd) -> None:
    assert parse_usd(f"{format_usd(amount)} usd") == amount


@given(st.integers(0, 10**24), st.integers(0, 10**24), RATES)
def test_spending_is_rounded_up_by_less_than_one_and_a_part_never_counts_for_more(
    one: int, other: int, rate: Fraction
) -> None:
    charged = charged_usd(Wei(one), rate)
    assert 0 <= charged - one * rate < 1
    # So what is settled never exceeds what was held, and nobody gains by asking in one piece or two.
    assert charged <= charged_usd(Wei(one + other), rate)
    assert charged_usd(Wei(one + other), rate) <= charged + charged_usd(Wei(other), rate)


def test_a_whole_number_of_dollars_for_an_eth_needs_no_rounding() -> None:
    assert charged_usd(Wei(4096), Fraction(3500)) == 4096 * 3500
    assert format_usd(charged_usd(Wei(10**18), Fraction(3500))) == "3500"
