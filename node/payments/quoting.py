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
        return NoQuote("the sender's deposit and reserve are set to unlock soon")
    face_value = pricing.face_value(
        value,
        redeem_gas=policy.redeem_gas,
        gas_price=head.gas_price,
        max_float=_max_float(payer, head),
        max_face_value=policy.max_face_value,
    )
    if face_value is None:
        return NoQuote(NO_RESERVE)
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
