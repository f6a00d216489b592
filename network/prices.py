"""Prices as operators and go-livepeer write them, and what they come to in wei. Pure.

A price is for one unit of work, most often a pixel. In wei, gwei or eth it is a `Fraction` of wei; in any
other currency a `CurrencyPrice`, which is worth wei only at a `Rate`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Protocol

from network.errors import LimnerError
from network.units import LARGEST_PRICE_TERM, Wei, format_price

WEI_PER_ETH: Final = 10**18
USD: Final = "USD"
#: Prices in a currency are asked for in steps of this many wei: what Livepeer's orchestrators keep as well,
#: and what a PriceInfo of two 64-bit integers holds whatever the rate is.
_STEPS_PER_WEI: Final = 1000

_WEI_PER_UNIT: Final = {"": 1, "wei": 1, "gwei": 10**9, "eth": WEI_PER_ETH}
_LONGEST_TEXT: Final = 100
_PRICE: Final = re.compile(
    r"(?P<number>[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?)"
    r"(?:\s*/\s*(?P<below>[0-9]{1,40}))?"
    # what looks like an exponent, and is too large for one, is no currency
    r"\s*(?P<unit>(?![eE][0-9])[A-Za-z][A-Za-z0-9]{0,11})?"
    r"(?:\s*/\s*(?P<pixels>[0-9]{1,40}))?",
    re.ASCII,
)
_NUMBER: Final = re.compile(r"[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
_MOST_JSON: Final = 1024 * 1024
_POSITIVE: Final = re.compile(r"[0-9]{0,17}[1-9][0-9]{0,17}", re.ASCII)
_LARGEST_TERM: Final = 10**40
_CURRENCY: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9]{0,11})?", re.ASCII)
_EVERY_MODEL: Final = frozenset({"", "default"})


class NoRateError(LimnerError):
    """A price in a currency cannot be told in wei now; the message says why."""


@dataclass(frozen=True, slots=True)
class CurrencyPrice:
    """`amount` of `currency`, which is written in capitals, for one unit of work."""

    amount: Fraction
    currency: str


Price = Fraction | CurrencyPrice


@dataclass(frozen=True, slots=True)
class Rate:
    """What one ETH costs: `per_eth` of `currency`; more than 0.

    `as_of` is the unix time at which whoever tells it wrote it down, None for a rate that is fixed.
    """

    currency: str
    per_eth: Fraction
    source: str
    as_of: float | None = None


class EthRates(Protocol):
    """Where rates come from; answers from memory."""

    @property
    def current(self) -> Rate | None:
        """The rate to quote by; None while none is known."""

    @property
    def problem(self) -> str:
        """Why the last look told nothing; "" if it did, or nobody looks."""

    def lately(self) -> tuple[Rate, ...]:
        """Every rate that quotes which still hold may have been made by, the newest first."""


@dataclass(frozen=True, slots=True)
class FixedRate:
    """A rate that an operator set; None is no rate at all."""

    current: Rate | None = None
    problem: str = ""

    def lately(self) -> tuple[Rate, ...]:
        return () if self.current is None else (self.current,)


def fixed_usd(usd_per_eth: Fraction | None) -> FixedRate:
    """The rate of the setting `usd_per_eth`; none where it is not set."""
    if usd_per_eth is None:
        return FixedRate()
    return FixedRate(Rate(USD, usd_per_eth, "usd_per_eth"))


def parse_price(text: str) -> Price:
    """A price for a pixel, exact, from the text of a setting.

    "4768371", "0.5", "7/2" and "1e5" are wei; a unit may follow: wei, gwei, eth, or a currency as in
    "0.5e-8 USD" or "1.9EUR"; and "/N" for the price of N pixels: "0.02 USD/1048576". This takes whatever
    go-livepeer's -pricePerUnit and -maxPricePerUnit do (a decimal and a currency), and more. Raises
    ValueError with a sentence for the operator.
    """
    stripped = text.strip()
    found = _PRICE.fullmatch(stripped) if len(stripped) <= _LONGEST_TEXT else None
    if found is None:
        raise ValueError(
            f"{text[:_LONGEST_TEXT]!r} is not a price; write wei per pixel as "
            '"4768371", "0.5", "7/2" or "5 gwei", or a currency as "0.5e-8 USD"'
        )
    below = int(found["below"] or 1) * int(found["pixels"] or 1)
    if below == 0:
        raise ValueError(f"{text!r} divides by zero")
    return price_of(Fraction(found["number"]) / below, found["unit"] or "")


def price_of(amount: Fraction, currency: str) -> Price:
    """`amount` in wei ("" or "wei"), "gwei", "eth" or a currency. Raises ValueError."""
    wei = _WEI_PER_UNIT.get(currency.lower())
    if wei is None:
        if max(amount.numerator, amount.denominator) >= _LARGEST_TERM:
            raise ValueError("the price has too many digits")
        return CurrencyPrice(amount, currency.upper())
    price = amount * wei
    if max(price.numerator, price.denominator) > LARGEST_PRICE_TERM:
        raise ValueError(
            "the price comes to a fraction of more than 64 bits, which the network cannot write; use fewer digits"
        )
    return price


def parse_amount(value: object) -> Fraction:
    """A number that is not negative, from JSON or TOML. Raises ValueError.

    Floats are taken for the shortest decimal that reads the same, which is what their author wrote.
    """
    text = str(value)
    if isinstance(value, bool) or not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:_LONGEST_TEXT]!r} is not a number from 0 on")
    return Fraction(text)


def in_wei(price: Price, rate: Rate | None) -> Fraction:
    """What `price` is in wei, exactly. Raises NoRateError."""
    if isinstance(price, Fraction):
        return price
    if rate is None:
        raise NoRateError(
            f"a price is in {price.currency}, and what an ETH costs is not known just now"
        )
    if rate.currency != price.currency:
        raise NoRateError(
            f"a price is in {price.currency}, and {rate.source} tells what an ETH costs in {rate.currency}"
        )
    return price.amount * WEI_PER_ETH / rate.per_eth


def asked_in_wei(price: Price, rate: Rate | None) -> Fraction:
    """What to ask for: `price` itself in wei, else converted and rounded up to a thousandth of a wei.

    Up, so that nothing is sold for less; the order of prices stays as it is. Raises NoRateError.
    """
    exact = in_wei(price, rate)
    if isinstance(price, Fraction):
        return price
    steps = -(-exact.numerator * _STEPS_PER_WEI // exact.denominator)
    if steps > LARGEST_PRICE_TERM:
        raise NoRateError(f"a price comes to {steps // _STEPS_PER_WEI} wei, too much for the wire")
    return Fraction(steps, _STEPS_PER_WEI)


def rate_facts(rates: EthRates, now: float) -> dict[str, str | float | None]:
    """The rate for a status page; None for what is not known. `age_seconds` is 0 where it is fixed."""
    rate = rates.current
    return {
        "currency": None if rate is None else rate.currency,
        "per_eth": None if rate is None else format_price(rate.per_eth),
        "source": None if rate is None else rate.source,
        "age_seconds": None
        if rate is None
        else max(0.0, round(now - rate.as_of))
        if rate.as_of is not None
        else 0.0,
        "problem": rates.problem,
    }


def rate_line(facts: Mapping[str, str | float | None]) -> str:
    """One line for people of what `rate_facts` tells."""
    problem = f"; {facts['problem']}" if facts["problem"] else ""
    if facts["per_eth"] is None:
        return f"What an ETH costs is not known: set usd_per_eth or a price feed{problem}"
    age = f", written {facts['age_seconds']} s ago" if facts["age_seconds"] else ""
    return f"1 ETH = {facts['per_eth']} {facts['currency']} ({facts['source']}{age}){problem}"


def dollars_of(amount: Wei, usd_per_eth: Fraction) -> str:
    """An amount for people, to the nearest millionth of a dollar."""
    millionths = round(amount * usd_per_eth * 10**6 / WEI_PER_ETH)
    return f"{millionths // 10**6}.{millionths % 10**6:06d}"


def feed_rate(description: str, answer: Fraction, source: str, as_of: float | None) -> Rate:
    """The rate that a price feed tells, which is either way round: "ETH / USD" or "USD / ETH".

    Raises ValueError for a feed of anything else, or an answer that is not more than 0.
    """
    base, slash, quote = (part.strip().upper() for part in description.partition("/"))
    if not slash or "ETH" not in (base, quote) or base == quote or not base or not quote:
        raise ValueError(f"the feed is for {description[:40]!r}; it must be one of ETH")
    if answer <= 0:
        raise ValueError(f"the feed tells {answer}, which is no price")
    if base == "ETH":
        return Rate(quote, answer, source, as_of)
    return Rate(base, 1 / answer, source, as_of)


def written(price: Price) -> str:
    """The shortest exact text that `parse_price` reads back."""
    if isinstance(price, Fraction):
        return format_price(price)
    return f"{format_price(price.amount)} {price.currency}"


def auto_adjusted(price: Fraction, multiplier: Fraction) -> Fraction:
    """What go-livepeer quotes for a price of `price`, unless started with -autoAdjustPrice=false.

    It adds the part of a ticket's face value that redeeming it costs, 1/`multiplier` (0: nothing), and
    cuts what is below a thousandth of a wei, so that prices under it are 0 (wire, 4.5). Our own quotes are
    exact; this tells what to expect of others.
    """
    raised = price * (1 + 1 / multiplier) if multiplier else price
    return Fraction(raised.numerator * _STEPS_PER_WEI // raised.denominator, _STEPS_PER_WEI)


def has_more_than_doubled(price: Fraction, initial: Fraction) -> bool:
    """Whether a go-livepeer gateway refuses `price` in a session that began at `initial`."""
    return price > 2 * initial


def parse_capability_prices(
    text: str, pipeline: str = "text-to-image"
) -> Mapping[str | None, Price]:
    """The most to pay by model of `pipeline`, from Livepeer's -maxPricePerCapability; None is any other model.

    Raises ValueError that names the entry.
    """
    if len(text) > _MOST_JSON:
        raise ValueError(f"the list is longer than {_MOST_JSON} characters")
    try:
        content = json.loads(text, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    entries = content.get("capabilities_prices") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError('it must be {"capabilities_prices": [...]}')  # noqa: TRY004
    found: dict[str | None, Price] = {}
    for number, entry in enumerate(entries):
        place = f"capabilities_prices[{number}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{place} is no object")  # noqa: TRY004
        if entry.get("pipeline") != pipeline:
            continue
        model = entry.get("model_id") or ""
        if not isinstance(model, str):
            raise ValueError(f"{place}.model_id is no text")  # noqa: TRY004
        found[None if model in _EVERY_MODEL else model] = listed_price(place, entry)
    return found


def listed_price(place: str, entry: Mapping[str, Any]) -> Price:
    """The price of one entry of Livepeer's JSON: price_per_unit, pixels_per_unit, currency.

    `price_per_unit` is a number, or text with a currency of its own, as in "0.5e-2USD". Raises ValueError
    that names the key, in `place`.
    """
    value, currency = entry.get("price_per_unit"), entry.get("currency", "")
    currency = "" if currency is None else currency
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{place}.price_per_unit is missing, or neither a number nor text")  # noqa: TRY004
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise ValueError(f"{place}.currency: {str(currency)[:40]!r} is no currency")
    try:
        pixels = pixels_per_unit(entry.get("pixels_per_unit"))
    except ValueError as error:
        raise ValueError(f"{place}.pixels_per_unit: {error}") from None
    try:
        text = str(value).strip()
        # One that has a currency of its own keeps it.
        has_unit = _NUMBER.fullmatch(text) is None
        return parse_price(f"{text}/{pixels}" if has_unit else f"{text} {currency}/{pixels}")
    except ValueError as error:
        raise ValueError(f"{place}.price_per_unit: {error}") from None


def pixels_per_unit(value: object) -> int:
    """How many pixels a price is for; None is 1. Raises ValueError."""
    if value is None:
        return 1
    text = str(value)
    if isinstance(value, bool) or not _POSITIVE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a positive whole number")
    return int(text)
