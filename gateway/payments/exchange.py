"""What an ETH is worth in dollars, for budgets: the last rate known, for so long as it may be gone by. Pure."""

from fractions import Fraction

from network.prices import USD, EthRates


def usd_per_eth(rates: EthRates, max_age: float, now: float) -> Fraction | None:
    """Dollars for one ETH; None where that is not known, or was last told too long ago.

    A rate that a feed wrote down is good for `max_age` seconds, one that the operator fixed for ever;
    `now` is in unix seconds.
    """
    rate = rates.current
    if rate is None or rate.currency != USD:
        return None
    if rate.as_of is not None and now - rate.as_of > max_age:
        return None
    return rate.per_eth


def why_unknown(rates: EthRates, max_age: float, now: float) -> str:
    """Why `usd_per_eth` knows nothing; for the operator, in a part of a sentence."""
    rate = rates.current
    if rate is None:
        return rates.problem or "neither usd_per_eth nor a price feed told it yet"
    if rate.currency != USD:
        return f"{rate.source} tells what an ETH costs in {rate.currency}"
    age = 0.0 if rate.as_of is None else now - rate.as_of
    because = f": {rates.problem}" if rates.problem else ""
    return (
        f"what was last told is {age / 3600:.1f} hours old, and budgets.max_rate_age_seconds allows "
        f"{max_age / 3600:.1f}{because}"
    )
