"""What a ticket should be worth and say: the recipient's quote and the payer's count. Pure.

Formulas are those of go-livepeer (`pm/recipient.go`, `pm/sendermonitor.go`, `server/segment_rpc.go`).
A ticket's value is its expected value: what the payer is credited for it, win or lose.
"""

from fractions import Fraction
from typing import Final

from network.payments.tickets import CERTAIN
from network.units import Wei

#: A winning ticket pays at least this many times what redeeming it costs.
TX_COST_MULTIPLIER: Final = 100
#: What redemption is taken to cost in the long run, in wei per gas, whatever gas costs just now.
AVERAGE_GAS_PRICE: Final = Wei(3 * 10**9)
#: Payers refuse tickets that are worth more, in wei, each and all together.
PAYERS_MAX_TICKET_VALUE: Final = Wei(3 * 10**12)
PAYERS_MAX_TOTAL_VALUE: Final = Wei(2 * 10**13)
#: A deposit of so many times what is being redeemed covers it; the reserve is not needed then.
_SAFE_DEPOSIT: Final = 3
_LOW_WORD: Final = 2**64 - 1


def ticket_value(usual_fee: Wei, cap: Wei) -> Wei:
    """What a ticket should be worth so that about one pays for a usual job, in wei; 0 for free work.

    One wei is left below the cap, because rounding the win probability up may put a ticket above its
    value by a fraction.
    """
    if usual_fee <= 0:
        return Wei(0)
    return Wei(max(1, min(usual_fee, cap - 1)))


def max_float(
    *, reserve: Wei, claimed_by_recipient: Wei, pool_size: int, deposit: Wei, pending: Wei
) -> Wei:
    """The most a recipient may count on from a sender whose deposit is gone, in wei.

    `reserve` is what remains and what was claimed in this round together; every active orchestrator
    has an equal share. `pending` are face values that won and are not redeemed. Never below 0.
    """
    if pool_size <= 0:
        return Wei(0)
    share = reserve // pool_size - claimed_by_recipient
    if pending > 0 and deposit < _SAFE_DEPOSIT * pending:
        share -= pending
    return Wei(max(0, share))


def face_value(
    value: Wei,
    *,
    redeem_gas: int,
    gas_price: Wei,
    max_float: Wei,
    max_face_value: Wei | None = None,
) -> Wei | None:
    """What a winning ticket pays, in wei; None where the sender's reserve is too small for any.

    `value` is what a ticket has to be worth. Always above it, for payers refuse tickets that are
    sure to win.
    """
    if value <= 0:
        return Wei(0)
    tx_cost = redeem_gas * gas_price
    wanted = tx_cost * TX_COST_MULTIPLIER
    if wanted <= value:
        wanted = value * TX_COST_MULTIPLIER
    found = min(wanted, max_float)
    if max_face_value is not None and max_face_value > 0:
        found = min(found, max_face_value)
    if found <= value:
        return None
    if found < tx_cost and found < redeem_gas * AVERAGE_GAS_PRICE:
        return None
    return Wei(found)


def win_probability(face_value: Wei, value: Wei) -> int:
    """The probability, over `CERTAIN`, at which a ticket of `face_value` is worth `value`.

    Rounded up as go-livepeer rounds, by the low 64 bits of the remainder. A ticket of less than its
    face value is never made certain by that, whatever the amounts: payers would refuse it.
    """
    if face_value <= 0 or value <= 0:
        return 0
    if face_value <= value:
        return CERTAIN
    quotient, remainder = divmod(CERTAIN, face_value)
    return min(value * (quotient + 1 if remainder & _LOW_WORD else quotient), CERTAIN - 1)


def tickets_needed(balance: Fraction, fee: int | Fraction, value: Fraction) -> int:
    """How many tickets worth `value` a payer adds to its `balance` for a job; 0 where they are free.

    As Livepeer's gateways do, at least one ticket's value is kept as credit, because orchestrators of
    go-livepeer ask for that much whatever the job costs.
    """
    if value <= 0:
        return 0
    missing = max(Fraction(fee), value) - balance
    return 0 if missing <= 0 else -(-missing // value)
