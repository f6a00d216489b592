"""Whether what stands behind the gateway's tickets is enough for orchestrators to take them. Pure."""

from dataclasses import dataclass
from typing import Final

from network.chain.model import Head, SenderInfo
from network.findings import Finding, fail, ok, warn
from network.payments.checks import unlocks_soon
from network.payments.pricing import face_value
from network.units import Wei, format_wei

#: Gas that Livepeer's orchestrators take a redemption to use on Arbitrum.
REDEEM_GAS: Final = 1_200_000
_FUND: Final = "limner-gateway fund"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings say of tickets and funds; amounts in wei."""

    max_ticket_value: Wei
    deposit_multiplier: int
    warn_deposit: Wei
    warn_reserve: Wei


def judge_funds(info: SenderInfo, head: Head, wishes: Wishes) -> tuple[Finding, ...]:
    """Say whether deposit and reserve carry tickets now."""
    return (
        _judge_unlocking(info, head),
        _judge_reserve(info, head, wishes),
        _judge_deposit(info, head, wishes),
    )


def share_of(info: SenderInfo, head: Head) -> Wei:
    """Return an orchestrator's share of the reserve: what its tickets may pay at most, in wei."""
    whole = info.reserve_remaining + info.reserve_claimed_in_round
    return Wei(whole // head.pool_size) if head.pool_size else Wei(0)


def face_value_of(info: SenderInfo, head: Head, wishes: Wishes) -> Wei | None:
    """Return what orchestrators would have our tickets pay; None where they would quote none."""
    return face_value(
        wishes.max_ticket_value,
        redeem_gas=REDEEM_GAS,
        gas_price=head.gas_price,
        max_float=share_of(info, head),
    )


def _judge_unlocking(info: SenderInfo, head: Head) -> Finding:
    what = "unlocking"
    if not info.withdraw_round:
        return ok(what, "deposit and reserve stay")
    detail = (
        f"deposit and reserve unlock in round {info.withdraw_round}; it is {head.current_round}"
    )
    advice = "to go on buying: limner-gateway unlock --cancel"
    if unlocks_soon(info.withdraw_round, head.last_initialized_round):
        return fail(what, f"{detail}; nobody takes our tickets any more", advice)
    return warn(what, detail, advice)


def _judge_reserve(info: SenderInfo, head: Head, wishes: Wishes) -> Finding:
    what = "reserve"
    reserve = info.reserve_remaining
    if not reserve:
        return fail(what, "empty: orchestrators quote nothing without one", f"{_FUND} --reserve")
    share = share_of(info, head)
    detail = (
        f"{format_wei(reserve)}, {format_wei(share)} for each of {head.pool_size} orchestrators"
    )
    if face_value_of(info, head, wishes) is None:
        return fail(
            what,
            f"{detail}: too little for one ticket, so they answer insufficient sender reserve",
            f"{_FUND} --reserve",
        )
    if reserve < wishes.warn_reserve:
        return warn(what, f"{detail}; warn_reserve is {format_wei(wishes.warn_reserve)}", _FUND)
    return ok(what, detail)


def _judge_deposit(info: SenderInfo, head: Head, wishes: Wishes) -> Finding:
    what = "deposit"
    deposit = info.deposit
    if not deposit:
        return fail(what, "empty: no ticket can be paid", f"{_FUND} --deposit")
    detail = format_wei(deposit)
    wanted = face_value_of(info, head, wishes)
    if wanted is not None and deposit // wishes.deposit_multiplier < wanted:
        return fail(
            what,
            f"{detail}; orchestrators ask for tickets that pay {format_wei(wanted)}, and "
            f"payments.deposit_multiplier is {wishes.deposit_multiplier}",
            f"{_FUND} --deposit",
        )
    if deposit < wishes.warn_deposit:
        return warn(what, f"{detail}; warn_deposit is {format_wei(wishes.warn_deposit)}", _FUND)
    return ok(what, detail)
