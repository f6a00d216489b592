"""The price at which a device pays for itself. Pure, and exact: no float touches money."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

_WEI_PER_ETH: Final = 10**18
_SECONDS_PER_HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class Costs:
    """What a device costs while it runs, and the share of the time in which it is paid for work.

    `per_hour` is in US dollars, electricity and rent included; `busy` is above 0 and at most 1.
    """

    per_hour: Fraction
    usd_per_eth: Fraction
    busy: Fraction = Fraction(1)

    @property
    def wei_per_busy_second(self) -> Fraction:
        """What has to come in for each second of work."""
        wei_per_hour = self.per_hour / self.usd_per_eth * _WEI_PER_ETH
        return wei_per_hour / _SECONDS_PER_HOUR / self.busy


def break_even_price(costs: Costs, pixels: int, seconds: Fraction) -> Fraction:
    """Return wei per pixel, for work of so many pixels in so many seconds."""
    return costs.wei_per_busy_second * seconds / pixels


def asking_price(price: Fraction) -> Fraction:
    """Round a price up to a whole wei, so that what is asked never falls short of the costs."""
    return Fraction(math.ceil(price))
