"""Quantities with names, and the one place where money is rounded."""

import re
from fractions import Fraction
from typing import Final, NewType

Wei = NewType("Wei", int)
Pixels = NewType("Pixels", int)
ModelId = NewType("ModelId", str)
JobId = NewType("JobId", str)
#: The 20 raw bytes of an Ethereum account; text forms live in `network.identity`.
Address = NewType("Address", bytes)

#: Both terms of a price travel as signed 64-bit integers (Livepeer wire, PriceInfo).
LARGEST_PRICE_TERM: Final = 2**63 - 1

_WEI_PER_UNIT: Final = {"": 1, "wei": 1, "gwei": 10**9, "eth": 10**18}
_LONGEST_PRICE_TEXT: Final = 80
_PRICE: Final = re.compile(
    r"(?P<whole>[0-9]+)(?P<part>\.[0-9]+)?(?:/(?P<below>[0-9]+))?\s*(?P<unit>[A-Za-z]*)",
    re.ASCII,
)
_AMOUNT: Final = re.compile(
    r"(?P<number>[0-9]{1,40}(?:\.[0-9]{1,18})?)\s*(?P<unit>[A-Za-z]*)", re.ASCII
)


def pixels_of(width: int, height: int, images: int) -> Pixels:
    """Work of a request as Livepeer counts it: steps and guidance do not matter."""
    return Pixels(width * height * images)


def fee(pixels: Pixels, price: Fraction) -> Wei:
    """What `pixels` cost at `price` wei each, rounded up to a whole wei.

    The only rounding of what is paid. Up, so that a seller never works for
    less than its price; buyer and seller call this same function and agree to the wei.
    """
    return Wei(-(-pixels * price.numerator // price.denominator))


def parse_price(text: str) -> Fraction:
    """Wei per pixel from "4768371", "0.5", "7/2" or "5 gwei"; exact.

    Raises ValueError with a sentence for the operator.
    """
    stripped = text.strip()
    found = _PRICE.fullmatch(stripped) if len(stripped) <= _LONGEST_PRICE_TEXT else None
    if found is None:
        raise ValueError(
            f"{text[:_LONGEST_PRICE_TEXT]!r} is not a price; "
            'write wei per pixel as "4768371", "0.5", "7/2" or "5 gwei"'
        )
    unit = found["unit"].lower()
    if unit not in _WEI_PER_UNIT:
        raise ValueError(f"unknown unit {found['unit']!r} in {text!r}; use wei, gwei or eth")
    below = int(found["below"] or 1)
    if below == 0:
        raise ValueError(f"{text!r} divides by zero")
    price = Fraction(found["whole"] + (found["part"] or "")) * _WEI_PER_UNIT[unit] / below
    if max(price.numerator, price.denominator) > LARGEST_PRICE_TERM:
        raise ValueError(
            f"{text!r} cannot be written on the wire: numerator and denominator of the "
            "reduced fraction must stay below 2^63"
        )
    return price


def parse_wei(text: str) -> Wei:
    """An amount from "0.05 eth", "5 gwei" or "1000", which is wei; exact.

    Raises ValueError with a sentence for the operator.
    """
    found = _AMOUNT.fullmatch(text.strip()) if len(text) <= _LONGEST_PRICE_TEXT else None
    unit = found["unit"].lower() if found is not None else ""
    if found is None or unit not in _WEI_PER_UNIT:
        raise ValueError(
            f'{text[:_LONGEST_PRICE_TEXT]!r} is no amount; write "0.05 eth", "5 gwei" or "1000 wei"'
        )
    wei = Fraction(found["number"]) * _WEI_PER_UNIT[unit]
    if wei.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of wei")
    return Wei(wei.numerator)


def format_price(price: Fraction) -> str:
    """The shortest exact text that `parse_price` reads back: "5", "0.5", "7/3"."""
    below = price.denominator
    twos = (below & -below).bit_length() - 1
    fives, rest = 0, below >> twos
    while rest % 5 == 0:
        rest //= 5
        fives += 1
    digits = max(twos, fives)
    if rest != 1 or digits > 18:  # noqa: PLR2004  more digits than a wei has in an ether
        return f"{price.numerator}/{below}"
    return _decimal(price.numerator * 10**digits // below, digits)


def format_wei(wei: Wei) -> str:
    """An amount for people, exact, in the largest unit that keeps it readable."""
    size = abs(wei)
    if size < 10**6:
        return f"{wei} wei"
    if size < 10**15:
        return f"{_decimal(wei, 9)} gwei"
    return f"{_decimal(wei, 18)} ETH"


def _decimal(scaled: int, digits: int) -> str:
    whole, part = divmod(abs(scaled), 10**digits)
    sign = "-" if scaled < 0 else ""
    tail = f"{part:0{digits}d}".rstrip("0") if digits and part else ""
    return f"{sign}{whole}.{tail}" if tail else f"{sign}{whole}"
