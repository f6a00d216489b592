"""Prices as they are written, and what they come to, exactly."""

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.prices import (
    CurrencyPrice,
    FixedRate,
    NoRateError,
    Price,
    Rate,
    asked_in_wei,
    auto_adjusted,
    feed_rate,
    fixed_usd,
    has_more_than_doubled,
    in_wei,
    listed_price,
    parse_amount,
    parse_capability_prices,
    parse_price,
    price_of,
    written,
)
from network.units import LARGEST_PRICE_TERM, Pixels, fee

T = TypeVar("T")

whole = st.integers(min_value=0, max_value=10**15)
amounts = st.builds(Fraction, whole, st.integers(min_value=1, max_value=10**15))
rates = st.builds(
    Fraction, st.integers(min_value=1, max_value=10**14), st.integers(min_value=1, max_value=10**9)
)


def outcome(read: Callable[..., T], *arguments: object) -> T | str:
    """What was read, or the words of the ValueError; nothing else may be raised."""
    try:
        return read(*arguments)
    except ValueError as error:
        return str(error)


def usd(amount: str) -> CurrencyPrice:
    return CurrencyPrice(Fraction(amount), "USD")


def dollars(per_eth: Fraction | int | str) -> Rate:
    return Rate("USD", Fraction(per_eth), "a test")


@pytest.mark.parametrize(
    ("text", "price"),
    [
        # go-livepeer's own examples
        ("100USD", usd("100")),
        ("0.13USD", usd("0.13")),
        ("99.99EUR", CurrencyPrice(Fraction(9999, 100), "EUR")),
        ("99.99eur", CurrencyPrice(Fraction(9999, 100), "EUR")),
        ("420DOG3", CurrencyPrice(Fraction(420), "DOG3")),
        ("100", Fraction(100)),
        ("100wei", Fraction(100)),
        # of its documentation
        ("0.5e-2USD", usd("0.005")),
        ("1.9073484e-08USD", usd("0.000000019073484")),
        # ours
        ("0.5e-2 USD", usd("0.005")),
        ("2400000", Fraction(2_400_000)),
        ("7/2", Fraction(7, 2)),
        ("1.5/3", Fraction(1, 2)),
        ("7 / 2 gwei", Fraction(7 * 10**9, 2)),
        ("0.02 USD/1048576", CurrencyPrice(Fraction(2, 100 * 1048576), "USD")),
        ("5 GWEI", Fraction(5 * 10**9)),
        ("2e-18ETH", Fraction(2)),
        ("1e5", Fraction(100_000)),
        (" 0 ", Fraction(0)),
    ],
)
def test_a_price_is_read_exactly(text: str, price: Price) -> None:
    assert parse_price(text) == price


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a price"),
        ("abcUSD", "not a price"),
        ("-100USD", "not a price"),
        ("1_000", "not a price"),
        ("nan", "not a price"),
        ("1.", "not a price"),
        ("1e999", "not a price"),
        ("\N{ARABIC-INDIC DIGIT FIVE}", "not a price"),
        ("7 US DOLLARS", "not a price"),
        ("7/0", "divides by zero"),
        ("7USD/0", "divides by zero"),
        ("100 eth", "64 bits"),
        ("1/99999999999999999999", "64 bits"),
        ("9e40USD", "too many digits"),
        ("9" * 200, "not a price"),
    ],
)
def test_what_is_no_price_says_why(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_price(text)


@given(st.text(max_size=120) | st.from_regex(r"[0-9./eE+\- A-z]{0,40}"))
def test_any_text_is_a_price_or_a_value_error(text: str) -> None:
    price = outcome(parse_price, text)
    if isinstance(price, str):
        assert price
    else:
        assert parse_price(written(price)) == price


@given(amounts, st.sampled_from(["USD", "EUR", "DOG3"]))
def test_what_is_written_is_read_back(amount: Fraction, currency: str) -> None:
    price = price_of(amount, currency)
    assert parse_price(written(price)) == price


@pytest.mark.parametrize(
    ("price", "description", "answer", "wei"),
    [
        ("2 eth", "ETH / USD", Fraction(100), Fraction(2 * 10**18)),
        ("2USD", "ETH / USD", Fraction(100), Fraction(2 * 10**16)),
        ("66USD", "USD / ETH", Fraction(1, 420), Fraction(11 * 10**17, 7)),
        ("50USD", "ETH / USD", Fraction(3000), Fraction(5 * 10**16, 3)),
        ("50USD", "ETH / USD", Fraction(6000), Fraction(5 * 10**16, 6)),
        ("1USD", "ETH / USD", Fraction(500), Fraction(10**18, 500)),
        ("1USD", "USD / ETH", Fraction(1, 2000), Fraction(2000 * 10**18, 2000 * 2000)),
        (
            "0.5e-2EUR",
            "eth/eur",
            Fraction(420_666_000, 10**6),
            Fraction(5 * 10**15 * 500, 210_333),
        ),
    ],
)
def test_a_currency_is_converted_as_go_livepeer_does(
    price: str, description: str, answer: Fraction, wei: Fraction
) -> None:
    written_price = parse_price(price) if price != "2 eth" else Fraction(2 * 10**18)
    assert in_wei(written_price, feed_rate(description, answer, "a feed", 1.0)) == wei


def test_a_price_in_a_currency_needs_its_rate() -> None:
    for rate in (None, Rate("EUR", Fraction(3000), "a feed in EUR")):
        with pytest.raises(NoRateError, match="USD"):
            in_wei(usd("1"), rate)
        with pytest.raises(NoRateError, match="USD"):
            asked_in_wei(usd("1"), rate)
    assert in_wei(Fraction(7, 2), None) == asked_in_wei(Fraction(7, 2), None) == Fraction(7, 2)
    with pytest.raises(NoRateError, match="too much for the wire"):
        asked_in_wei(usd("1000000"), dollars(1))


@given(amounts, rates)
def test_conversion_is_exact_both_ways(amount: Fraction, per_eth: Fraction) -> None:
    wei = in_wei(CurrencyPrice(amount, "USD"), dollars(per_eth))
    assert wei * per_eth == amount * 10**18


small = st.builds(Fraction, st.integers(min_value=0, max_value=10**9), st.just(10**12))
usual_rates = st.builds(Fraction, st.integers(min_value=10**10, max_value=10**13), st.just(10**8))


@given(small, small, usual_rates)
def test_what_is_asked_is_never_less_fits_the_wire_and_keeps_the_order(
    one: Fraction, other: Fraction, per_eth: Fraction
) -> None:
    rate = dollars(per_eth)
    exact = in_wei(CurrencyPrice(one, "USD"), rate)
    asked = asked_in_wei(CurrencyPrice(one, "USD"), rate)
    assert 0 <= asked - exact < Fraction(1, 1000)
    assert max(asked.numerator, asked.denominator) <= LARGEST_PRICE_TERM
    if one <= other:
        assert asked <= asked_in_wei(CurrencyPrice(other, "USD"), rate)


def test_an_image_of_livepeers_recommended_price_costs_two_cents() -> None:
    price = asked_in_wei(parse_price("1.9073484e-08USD"), dollars(4000))
    assert price == 4_768_371
    assert fee(Pixels(1024 * 1024), price) == 4_768_371 * 1024 * 1024


@pytest.mark.parametrize(
    ("description", "answer"),
    [
        ("ETH / USD", Fraction(0)),
        ("ETH / USD", Fraction(-1)),
        ("BTC / USD", Fraction(1)),
        ("ETH / ETH", Fraction(1)),
        ("ETH", Fraction(1)),
        ("", Fraction(1)),
        ("/ ETH", Fraction(1)),
    ],
)
def test_a_feed_of_something_else_or_of_nothing_is_refused(
    description: str, answer: Fraction
) -> None:
    with pytest.raises(ValueError, match="the feed"):
        feed_rate(description, answer, "a feed", 1.0)


@pytest.mark.parametrize(
    ("value", "amount"),
    [(3127.5, "3127.5"), (3000, "3000"), ("3127.50", "3127.5"), (0.1, "0.1"), (1e-7, "0.0000001")],
)
def test_an_amount_is_what_its_author_wrote(value: object, amount: str) -> None:
    assert parse_amount(value) == Fraction(amount)


@pytest.mark.parametrize(
    "value", ["", "-7", -1, True, "much", float("nan"), float("inf"), None, []]
)
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        parse_amount(value)


def test_a_fixed_rate_is_the_only_one() -> None:
    rate = fixed_usd(Fraction(3000)).current
    assert rate == Rate("USD", Fraction(3000), "usd_per_eth")
    assert fixed_usd(Fraction(3000)).lately() == (rate,)
    assert FixedRate().current is None
    assert fixed_usd(None).lately() == ()


@pytest.mark.parametrize(
    ("base", "multiplier", "price"),
    [
        ("1", "100", "101/100"),
        ("10", "100", "101/10"),
        ("1/10", "100", "101/1000"),
        ("25/10", "100", "2525/1000"),
        ("10", "10", "11"),
        ("10", "1/10", "110"),
        ("10", "1", "20"),
        ("0", "100", "0"),
        ("7", "0", "7"),
        ("1/5000", "0", "0"),
        ("125/100", "0", "1250/1000"),
        ("25000", "926899968213313/31250000000000", "25842863/1000"),
    ],
)
def test_what_go_livepeer_makes_of_a_price(base: str, multiplier: str, price: str) -> None:
    assert auto_adjusted(Fraction(base), Fraction(multiplier)) == Fraction(price)


def test_a_price_may_double_and_no_more() -> None:
    assert not has_more_than_doubled(Fraction(1, 3), Fraction(1, 6))
    assert has_more_than_doubled(Fraction(1, 3), Fraction(1000, 6001))
    assert not has_more_than_doubled(Fraction(10, 3), Fraction(10, 3))


def prices_of(*entries: object) -> str:
    return json.dumps({"capabilities_prices": entries})


def most(model: str | None, price: object, **other: object) -> dict[str, object]:
    return {"pipeline": "text-to-image", "model_id": model, "price_per_unit": price, **other}


def test_the_most_to_pay_is_read_by_model() -> None:
    found = parse_capability_prices(
        prices_of(
            most("stabilityai/sd-turbo", 1000, pixels_per_unit=1),
            most("default", 2000, pixels_per_unit=3),
            most("a/b", "0.5e-2USD", pixels_per_unit=2, currency="EUR"),
            most("c/d", 1.5e-8, currency="USD"),
            {"pipeline": "upscale", "model_id": "e/f", "price_per_unit": 1},
        )
    )
    assert found == {
        "stabilityai/sd-turbo": 1000,
        None: Fraction(2000, 3),
        "a/b": usd("0.0025"),
        "c/d": usd("0.000000015"),
    }
    for model in (None, "", "default"):
        assert parse_capability_prices(prices_of(most(model, "3000"))) == {None: 3000}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[]", "capabilities_prices"),
        ('{"capabilities_prices": 1}', "capabilities_prices"),
        ("[" * 100_000, "not JSON"),
        (prices_of(7), r"capabilities_prices\[0\] is no object"),
        (prices_of(most("a", None)), r"\[0\].price_per_unit"),
        (prices_of(most("a", -1)), r"\[0\].price_per_unit: .* not a price"),
        (prices_of(most("a", 1, pixels_per_unit=0)), r"\[0\].pixels_per_unit"),
        (prices_of(most("a", 1, currency="/7")), r"\[0\].currency"),
        (prices_of(most("a", 1, currency=[])), r"\[0\].currency"),
        (prices_of({**most("a", 1), "model_id": 7}), r"\[0\].model_id"),
    ],
)
def test_a_wrong_list_names_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_capability_prices(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
keys = st.sampled_from(
    ["pipeline", "model_id", "price_per_unit", "pixels_per_unit", "currency", "other"]
)


@given(st.dictionaries(keys, json_values | st.just("text-to-image") | st.just("1.5USD")))
def test_any_entry_is_a_price_or_a_value_error(entry: dict[str, Any]) -> None:
    price = outcome(listed_price, "here", entry)
    if isinstance(price, str):
        assert price.startswith("here.")
    else:
        assert (price if isinstance(price, Fraction) else price.amount) >= 0
    assert outcome(parse_capability_prices, prices_of(entry)) != ""
