"""How much gas a redemption may cost, and which tickets go into it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from network.units import Wei

#: What a ticket takes in a batch of what it takes alone. Measured on the deployed contracts: 97,800 of
#: 204,462 gas.
BATCH_SHARE: Final = Fraction(1, 2)

#: Transactions offer twice the price of the moment, and are charged the price of their block.
_ROOM: Final = 2
#: In wei: go-livepeer's average.
_MAX_GAS_PRICE: Final = Wei(3 * 10**9)


@dataclass(frozen=True, slots=True)
class GasPolicy:
    """The operator's wishes.

    Above `max_gas_price`, in wei per gas, tickets wait; but from `deadline_blocks` L1 blocks before
    a ticket's deadline it is redeemed as long as it pays more than it costs.
    """

    max_gas_price: Wei = _MAX_GAS_PRICE
    deadline_blocks: int = 600
    largest_batch: int = 20


@dataclass(frozen=True, slots=True)
class Offer:
    """A ticket that is due: what it would pay, and the gas of redeeming it alone."""

    ticket_hash: bytes
    payout: Wei
    gas: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is redeemed by the next transaction, and who not, by ticket hash in the given order."""

    members: tuple[bytes, ...] = ()
    uneconomic: tuple[bytes, ...] = ()
    unaffordable: tuple[bytes, ...] = ()
    in_line: tuple[bytes, ...] = ()


def choose(offers: Sequence[Offer], gas_price: Wei, balance: Wei, policy: GasPolicy) -> Choice:
    """Choose the next transaction's tickets: several in a batch, where that is worth more.

    `balance` is the ether that pays for gas. Every ticket is in exactly one part of the choice.
    """
    in_company = [o for o in offers if o.payout > BATCH_SHARE * o.gas * gas_price]
    members: list[Offer] = []
    for offer in in_company[: policy.largest_batch]:
        if upfront([*members, offer], gas_price) <= balance:
            members.append(offer)
    if len(members) == 1 or not is_worth(members, gas_needed(members), gas_price):
        # Company does not pay for itself: the best one alone, or nobody.
        alone = [o for o in in_company if o.payout > o.gas * gas_price]
        members = [o for o in alone if upfront([o], gas_price) <= balance][:1]
    return _sorted_out(offers, members, gas_price, balance)


def gas_needed(members: Sequence[Offer]) -> Fraction:
    """Estimate the gas of one transaction for these tickets."""
    if len(members) == 1:
        return Fraction(members[0].gas)
    return BATCH_SHARE * sum(member.gas for member in members)


def gas_limit(members: Sequence[Offer]) -> int:
    """Return the gas to allow a transaction: what each takes alone.

    A batch skips in silence what it has too little gas for, so an estimate of it proves nothing.
    """
    return sum(member.gas for member in members)


def upfront(members: Sequence[Offer], gas_price: Wei) -> int:
    """Return the wei that an account needs to have for the transaction to be taken."""
    return gas_limit(members) * gas_price * _ROOM


def is_worth(members: Sequence[Offer], gas: Fraction | int, gas_price: Wei) -> bool:
    """Tell whether a transaction pays more than it costs."""
    return sum(member.payout for member in members) > gas * gas_price


def _sorted_out(
    offers: Sequence[Offer], members: Sequence[Offer], gas_price: Wei, balance: Wei
) -> Choice:
    chosen = {member.ticket_hash for member in members}
    parts: dict[str, list[bytes]] = {"uneconomic": [], "unaffordable": [], "in_line": []}
    for offer in offers:
        if offer.ticket_hash in chosen:
            continue
        cost = offer.gas * gas_price
        if not members and offer.payout > cost and upfront([offer], gas_price) > balance:
            parts["unaffordable"].append(offer.ticket_hash)
        elif offer.payout > (BATCH_SHARE if members else 1) * cost:
            parts["in_line"].append(offer.ticket_hash)
        else:
            parts["uneconomic"].append(offer.ticket_hash)
    return Choice(
        tuple(o.ticket_hash for o in offers if o.ticket_hash in chosen),
        *(tuple(part) for part in parts.values()),
    )
