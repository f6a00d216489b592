"""What a registered app costs here, or why it is not sold. Pure.

Runners ask in US dollars, payers pay in wei. What an ETH costs changes all the time, and a payer
pays what it was told a moment ago: so a price stays as it is until it is wrong by more than a hundredth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from network.units import LARGEST_PRICE_TERM, Wei
from node.apps.heartbeat import Asked, Told
from node.apps.model import Price

_WEI_PER_ETH: Final = 10**18
#: Official clients pay up to 1.2 % more than what they found listed.
_LARGEST_DRIFT: Final = Fraction(1, 100)


@dataclass(frozen=True, slots=True)
class NotSold:
    """Nobody can call the app here; `why` is for the operator."""

    why: str


@dataclass(frozen=True, slots=True)
class Terms:
    """How an app is sold. `price` is None where nobody pays by ticket; `fee` is booked for a call."""

    price: Price | None
    fee: Wei


def wei_per_call(asked: Asked, usd_per_eth: Fraction | None) -> Wei | NotSold:
    """Return a call's price, rounded down to a whole wei as Livepeer's orchestrators do."""
    if asked.unit != "fixed":
        return NotSold(
            f'it is priced by "{asked.unit}", and only calls at a fixed price are sold for tickets; '
            'register it with unit="fixed"'
        )
    if usd_per_eth is None:
        return NotSold(
            "its price is in USD, and nothing says what an ETH costs; set usd_per_eth or a price feed"
        )
    wei = asked.usd * _WEI_PER_ETH // usd_per_eth
    if not 1 <= wei <= LARGEST_PRICE_TERM:
        return NotSold(f"{float(asked.usd):g} USD are {wei} wei, which no ticket can be made for")
    return Wei(wei)


def steady(before: Wei, now: Wei) -> Wei:
    """Return `before` as long as it is near enough to `now`."""
    return before if abs(now - before) <= before * _LARGEST_DRIFT else now


def terms(
    told: Told,
    usd_per_eth: Fraction | None,
    *,
    unpayable: Callable[[Wei], str] | None,
    sessions: bool = False,
    before: Wei | None = None,
) -> Terms | NotSold:
    """Return how an app is sold; `before` is what a call cost last at the same asked price.

    `unpayable` tells why no payer could pay so much for a call, "" where one could; None where nobody
    pays by ticket. `sessions`: they can be had, by anybody and free.
    """
    if told.mode == "persistent" and not sessions:
        return NotSold(
            'its mode is "persistent", and sessions can be had only where nobody pays and anybody may '
            'call; register it with mode="single-shot"'
        )
    fee = wei_per_call(told.asked, usd_per_eth)
    if unpayable is None:
        # Off-chain fees are only written down, as far as they are known.
        return Terms(None, Wei(0) if isinstance(fee, NotSold) else fee)
    if isinstance(fee, NotSold):
        return fee
    fee = fee if before is None else steady(before, fee)
    why = unpayable(fee)
    return NotSold(why) if why else Terms(Price(fee), fee)
