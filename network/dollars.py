"""Amounts of US dollars, and what wei come to in them. Exact, and pure.

They are counted in 10**-18 dollars, as wei are of an ETH: while an ETH costs a whole number of dollars,
nothing is rounded at all.
"""

import re
from fractions import Fraction
from typing import Final, NewType

from network.units import Wei

#: 10**-18 US dollars.
AttoUsd = NewType("AttoUsd", int)

NO_DOLLARS: Final = AttoUsd(0)
_DIGITS: Final = 18
_PER_DOLLAR: Final = 10**_DIGITS
_LONGEST_TEXT: Final = 80
_AMOUNT: Final = re.compile(
    r"(?P<sign>\$)?\s*(?P<number>[0-9]{1,40}(?:\.[0-9]{1,18})?)\s*(?P<unit>usd)?",
    re.ASCII | re.IGNORECASE,
)


def charged_usd(amount: Wei, usd_per_eth: Fraction) -> AttoUsd:
    """What spending `amount` counts for in dollars, rounded up to 10**-18 of one.

    The only rounding of what budgets in dollars are charged. Up, so that nobody gets more than the
    budget is worth; a smaller amount never counts for more than a larger one at the same rate.
    """
    return AttoUsd(-(-amount * usd_per_eth.numerator // usd_per_eth.denominator))


def names_dollars(text: str) -> bool:
    """Whether `parse_usd` is meant to read it."""
    return text.lstrip().startswith("$") or text.rstrip().lower().endswith("usd")


def parse_usd(text: str) -> AttoUsd:
    """An amount from "5 usd", "0.25USD" or "$5"; exact. Raises ValueError with a sentence for the operator."""
    found = _AMOUNT.fullmatch(text.strip()) if len(text) <= _LONGEST_TEXT else None
    if found is None or not (found["sign"] or found["unit"]):
        raise ValueError(
            f'{text[:_LONGEST_TEXT]!r} is no amount of dollars; write "5 usd" or "0.25 usd"'
        )
    whole, _, part = found["number"].partition(".")
    return AttoUsd(int(whole) * _PER_DOLLAR + int(part.ljust(_DIGITS, "0")))


def format_usd(amount: AttoUsd) -> str:
    """The shortest exact decimal, in dollars: "5", "0.25"."""
    whole, part = divmod(amount, _PER_DOLLAR)
    tail = f"{part:0{_DIGITS}d}".rstrip("0")
    return f"{whole}.{tail}" if tail else str(whole)
