"""Money is exact, and rounds in one place and one direction."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.units import (
    LARGEST_PRICE_TERM,
    Pixels,
    Wei,
    fee,
    format_price,
    format_wei,
    parse_price,
    parse_wei,
    pixels_of,
)

terms = st.integers(min_value=0, max_value=LARGEST_PRICE_TERM)
prices = st.builds(Fraction, terms, terms.filter(bool))


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("4768371", Fraction(4768371)),
        ("0.5", Fraction(1, 2)),
        ("7/2", Fraction(7, 2)),
        ("1.5/3", Fraction(1, 2)),
        ("5 gwei", Fraction(5 * 10**9)),
        ("0.000000000000000001 eth", Fraction(1)),
        ("100wei", Fraction(100)),
        (" 0 ", Fraction(0)),
        ("2000/3", Fraction(2000, 3)),
    ],
)
def test_a_price_is_read_exactly(text: str, price: Fraction) -> None:
    assert parse_price(text) == price


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a price"),
        ("abcUSD", "not a price"),
        ("-100USD", "not a price"),
        ("-1", "not a price"),
        ("1e5", "not a price"),
        ("1_000", "not a price"),
        ("nan", "not a price"),
        ("\N{ARABIC-INDIC DIGIT FIVE}", "not a price"),
        ("1.", "not a price"),
        ("100USD", "unknown unit 'USD'"),
        ("1/0", "divides by zero"),
        ("1/99999999999999999999", "below 2^63"),
        ("100 eth", "below 2^63"),
        ("9" * 100, "not a price"),
    ],
)
def test_what_is_no_price_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_price(text)


@given(prices)
def test_a_printed_price_reads_back(price: Fraction) -> None:
    assert parse_price(format_price(price)) == price


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (Fraction(5), "5"),
        (Fraction(1, 2), "0.5"),
        (Fraction(7, 3), "7/3"),
        (Fraction(1, 2**40), "1/1099511627776"),
        (Fraction(4768371), "4768371"),
        (Fraction(10, 8), "1.25"),
        (Fraction(0), "0"),
    ],
)
def test_a_price_prints_as_a_decimal_where_one_is_exact(price: Fraction, text: str) -> None:
    assert format_price(price) == text


@given(st.integers(min_value=0, max_value=2**40), prices)
def test_a_fee_never_undercuts_the_price_and_exceeds_it_by_less_than_a_wei(
    pixels: int, price: Fraction
) -> None:
    exact = pixels * price
    charged = fee(Pixels(pixels), price)
    assert isinstance(charged, int)
    assert exact <= charged < exact + 1


def test_the_fee_of_the_reference_example_is_that_of_the_reference() -> None:
    # Livepeer wire, section 8.14: 4768371 wei per pixel with 1 % overhead.
    pixels = pixels_of(1024, 1024, 1)
    exact = Fraction(4768371) * Fraction(101, 100) * pixels
    assert exact == Fraction(126249984589824, 25)
    assert fee(pixels, Fraction(4768371) * Fraction(101, 100)) == 5049999383593


@pytest.mark.parametrize(
    ("wei", "text"),
    [
        (0, "0 wei"),
        (999_999, "999999 wei"),
        (1_500_000, "0.0015 gwei"),
        (5 * 10**9, "5 gwei"),
        (5_049_999_383_593, "5049.999383593 gwei"),
        (10**18, "1 ETH"),
        (1_234_567_890_123_456_789, "1.234567890123456789 ETH"),
        (-2 * 10**18, "-2 ETH"),
    ],
)
def test_an_amount_is_printed_exactly(wei: int, text: str) -> None:
    assert format_wei(Wei(wei)) == text


@pytest.mark.parametrize(
    ("text", "wei"),
    [
        ("0.05 eth", 5 * 10**16),
        ("1ETH", 10**18),
        ("5 gwei", 5 * 10**9),
        ("0.000000000000000001 eth", 1),
        ("1000", 1000),
        ("7 wei", 7),
        ("0", 0),
    ],
)
def test_an_amount_is_read_exactly(text: str, wei: int) -> None:
    assert parse_wei(text) == wei


@pytest.mark.parametrize("text", ["", "eth", "-1", "1e18", "1/2 eth", "5 usd", "0.5", "0.1 wei"])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"amount|whole number"):
        parse_wei(text)


@given(st.integers(min_value=0, max_value=10**30))
def test_an_amount_reads_back_as_it_is_shown(wei: int) -> None:
    assert parse_wei(format_wei(Wei(wei))) == wei
