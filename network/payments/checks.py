"""What either side looks at before it relies on the other: a refusal in a sentence, or None. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from network.payments.pricing import PAYERS_MAX_TICKET_VALUE, PAYERS_MAX_TOTAL_VALUE
from network.payments.tickets import CreationRound, TicketParams
from network.units import Address, Wei

#: L1 blocks: quotes that end sooner are refused, as a payment may take as long to arrive.
EXPIRY_MARGIN: Final = 1
#: L1 blocks: a quote that lasts longer would let its winners be redeemed long after anybody looks.
LONGEST_QUOTE: Final = 100
#: In go-livepeer's words, which gateways match.
PARAMS_EXPIRED: Final = "TicketParams expired"


@dataclass(frozen=True, slots=True)
class PayerLimits:
    """What a payer signs at most. Values in wei; they are go-livepeer's defaults."""

    max_ticket_value: Wei = PAYERS_MAX_TICKET_VALUE
    max_total_value: Wei = PAYERS_MAX_TOTAL_VALUE
    #: A face value may be this part of the deposit at most.
    deposit_multiplier: int = 1
    #: In one payment.
    max_tickets: int = 100


@dataclass(frozen=True, slots=True)
class Funds:
    """A sender's deposit and reserve in wei; `withdraw_round` 0 where it is not unlocking."""

    deposit: Wei
    reserve: Wei
    withdraw_round: int = 0


@dataclass(frozen=True, slots=True)
class Now:
    """The chain as the checking side knows it; `rounds` are those that new tickets may name."""

    l1_block: int
    last_initialized_round: int
    rounds: Collection[CreationRound]


def unlocks_soon(withdraw_round: int, last_initialized_round: int) -> bool:
    """Whether a sender may be gone with its funds before a ticket made now is redeemed."""
    return withdraw_round != 0 and withdraw_round <= last_initialized_round + 1


def payers_objection(
    params: TicketParams,
    count: int,
    *,
    orchestrator: Address,
    now: Now,
    funds: Funds,
    limits: PayerLimits,
) -> str | None:
    """Why a payer must not sign `count` tickets of `params`, or None.

    `orchestrator` is the account that was discovered: a quote for somebody else's account would have
    us pay a stranger, which go-livepeer does not notice.
    """
    return (
        _wrong_time(params, now)
        or _wrong_party(params, orchestrator, now)
        or _wrong_value(params, count, limits)
        or _not_funded(params, now, funds, limits)
    )


def _wrong_time(params: TicketParams, now: Now) -> str | None:
    left = params.expiration_block - now.l1_block
    if params.expiration_block <= 0:
        return "ticketParams expiration block is 0"
    if left <= EXPIRY_MARGIN:
        return PARAMS_EXPIRED
    if left > LONGEST_QUOTE:
        return f"the quote lasts {left} L1 blocks; more than {LONGEST_QUOTE} are not accepted"
    return None


def _wrong_party(params: TicketParams, orchestrator: Address, now: Now) -> str | None:
    if params.recipient != orchestrator:
        return f"tickets would pay 0x{params.recipient.hex()}, not the orchestrator"
    if params.creation not in now.rounds:
        return (
            f"creation round {params.creation.number} with block hash "
            f"0x{params.creation.block_hash.hex()} is not what our chain says"
        )
    return None


def _wrong_value(params: TicketParams, count: int, limits: PayerLimits) -> str | None:
    value = params.expected_value
    if value <= 0:
        return None
    if value >= params.face_value:
        return f"ticket faceValue too low faceValue={params.face_value}"
    if value > limits.max_ticket_value:
        return f"ticket EV {float(value):.5f} > max ticket EV {float(limits.max_ticket_value):.5f}"
    if count > limits.max_tickets:
        return f"{count} tickets would be needed; at most {limits.max_tickets} are sent"
    if count * value > limits.max_total_value:
        return f"total ticket EV {float(count * value):.5f} > {float(limits.max_total_value):.5f}"
    return None


def _not_funded(params: TicketParams, now: Now, funds: Funds, limits: PayerLimits) -> str | None:
    if params.expected_value <= 0:
        return None
    if unlocks_soon(funds.withdraw_round, now.last_initialized_round):
        return "our deposit and reserve are set to unlock soon"
    if funds.deposit <= 0:
        return "our deposit is 0"
    if funds.reserve <= 0:
        return "our reserve is 0"
    most = funds.deposit // limits.deposit_multiplier
    if params.face_value > most:
        return f"ticket faceValue {params.face_value} is above {most}, what our deposit covers"
    return None
