"""Ticket parameters for those who ask: what a ticket is worth, what it pays, and until when. Pure."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from network.chain.model import Head, SenderInfo
from network.payments import pricing
from network.payments.checks import unlocks_soon
from network.payments.rand import recipient_rand
from network.payments.tickets import TicketParams, rand_hash
from network.units import Address, Pixels, Wei, fee

#: L1 blocks that a quote holds, as go-livepeer's; about eight minutes.
LIFETIME_BLOCKS: Final = 40
#: In go-livepeer's words.
NO_RESERVE: Final = "insufficient sender reserve"
_MEGAPIXEL: Final = Pixels(1024 * 1024)
_LEAVES_SOON: Final = "the sender's deposit and reserve are set to unlock soon"
#: Payers refuse tickets that are sure to win, or nearly so: a winner pays this many times its value.
_LEAST_ODDS: Final = 2


@dataclass(frozen=True, slots=True)
class QuotePolicy:
    """How tickets are made out. Amounts in wei."""

    #: What one redemption is taken to use, in gas.
    redeem_gas: int = 1_200_000
    #: The most that one ticket is worth: payers refuse more.
    max_ticket_value: Wei = pricing.PAYERS_MAX_TICKET_VALUE
    #: The most that a winning ticket pays; None leaves it to gas and the sender's reserve.
    max_face_value: Wei | None = None
    #: A usual job, in pixels: about one ticket pays for it.
    usual_pixels: Pixels = _MEGAPIXEL
    #: The most tickets that are looked at in one payment; payers sign no more than 100.
    max_tickets: int = 100


@dataclass(frozen=True, slots=True)
class Payer:
    """A sender as the chain and our books know it. Amounts in wei."""

    address: Address
    info: SenderInfo
    #: What we took of its reserve in this round.
    claimed: Wei
    #: Face values of its tickets that won here and are not redeemed.
    pending: Wei


@dataclass(frozen=True, slots=True)
class NoQuote:
    """Why nothing is quoted; the reason may be sent to the one who asked."""

    reason: str


def quote(
    payer: Payer,
    price: Fraction,
    head: Head,
    policy: QuotePolicy,
    *,
    recipient: Address,
    secret: bytes,
    seed: bytes,
) -> TicketParams | NoQuote:
    """Parameters for work at `price` wei per pixel. `seed` is random, 32 bytes, and used once."""
    value = pricing.ticket_value(fee(policy.usual_pixels, price), _most_worth(policy))
    if value and unlocks_soon(payer.info.withdraw_round, head.last_initialized_round):
        return NoQuote(_LEAVES_SOON)
    face_value = _face_value(payer, value, head, policy)
    if face_value is None:
        return NoQuote(NO_RESERVE)
    return _made_out(
        payer, price, head, value, face_value, recipient=recipient, secret=secret, seed=seed
    )


def quote_call(
    payer: Payer,
    cost: Wei,
    head: Head,
    policy: QuotePolicy,
    *,
    recipient: Address,
    secret: bytes,
    seed: bytes,
) -> TicketParams | NoQuote:
    """Parameters for one call of `cost` wei, which the fewest tickets that payers sign come to.

    The price that they are bound to is `cost` for a single unit. `seed` is as in `quote`.
    """
    reason = unpayable(cost, policy)
    if reason:
        return NoQuote(reason)
    if cost and unlocks_soon(payer.info.withdraw_round, head.last_initialized_round):
        return NoQuote(_LEAVES_SOON)
    for count in range(_fewest(cost, policy), policy.max_tickets + 1):
        # Equal parts, so that next to nothing is paid beyond the cost.
        value = Wei(-(-cost // count))
        face_value = _face_value(payer, value, head, policy)
        if face_value is not None and face_value >= value * _LEAST_ODDS:
            return _made_out(
                payer,
                Fraction(cost),
                head,
                value,
                face_value,
                recipient=recipient,
                secret=secret,
                seed=seed,
            )
    return NoQuote(NO_RESERVE)


def unpayable(cost: Wei, policy: QuotePolicy) -> str:
    """Why no payer can pay `cost` wei for one call, whoever it is; "" where it could."""
    # Each part of the cost is rounded up, and the win probability of its ticket once more.
    most = Wei(pricing.PAYERS_MAX_TOTAL_VALUE - 2 * policy.max_tickets)
    if cost > most:
        return f"a call of {cost} wei cannot be paid: payers sign tickets worth {most} wei at most"
    count = _fewest(cost, policy)
    if count > policy.max_tickets:
        return (
            f"a call of {cost} wei cannot be paid: it takes {count} tickets of what one may be worth "
            f"here, and {policy.max_tickets} are taken in a payment"
        )
    return ""


def _fewest(cost: Wei, policy: QuotePolicy) -> int:
    # The wei below the bound: as in `pricing.ticket_value`.
    return max(1, -(-cost // max(1, _most_worth(policy) - 1)))


def _face_value(payer: Payer, value: Wei, head: Head, policy: QuotePolicy) -> Wei | None:
    return pricing.face_value(
        value,
        redeem_gas=policy.redeem_gas,
        gas_price=head.gas_price,
        max_float=_max_float(payer, head),
        max_face_value=policy.max_face_value,
    )


def _made_out(
    payer: Payer,
    price: Fraction,
    head: Head,
    value: Wei,
    face_value: Wei,
    *,
    recipient: Address,
    secret: bytes,
    seed: bytes,
) -> TicketParams:
    win_prob = pricing.win_probability(face_value, value)
    expiration_block = head.l1_block + LIFETIME_BLOCKS
    rand = recipient_rand(
        secret,
        seed=seed,
        sender=payer.address,
        face_value=face_value,
        win_prob=win_prob,
        expiration_block=expiration_block,
        price=price,
        creation=head.creation,
    )
    return TicketParams(
        recipient=recipient,
        face_value=face_value,
        win_prob=win_prob,
        recipient_rand_hash=rand_hash(rand),
        seed=seed,
        expiration_block=expiration_block,
        creation=head.creation,
    )


def _most_worth(policy: QuotePolicy) -> Wei:
    """The operator's bound, and half of what a ticket may pay: one that is sure to win is refused."""
    if policy.max_face_value is None:
        return policy.max_ticket_value
    return Wei(min(policy.max_ticket_value, policy.max_face_value // 2))


def _max_float(payer: Payer, head: Head) -> Wei:
    info = payer.info
    return pricing.max_float(
        reserve=Wei(info.reserve_remaining + info.reserve_claimed_in_round),
        claimed_by_recipient=payer.claimed,
        pool_size=head.pool_size,
        deposit=info.deposit,
        pending=payer.pending,
    )
