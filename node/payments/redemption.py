"""What is to be done now with each winning ticket. Pure.

A ticket is redeemed, waits for a named reason, or is given up because it can never be redeemed. None
is skipped in silence, and none holds up another.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from network.chain.model import Head, SenderInfo
from network.payments.tickets import Ticket
from network.units import Address, Wei
from node.payments import reverts
from node.payments.gas_policy import GasPolicy
from node.payments.receiver import Winner

_FIRST_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 3600.0


class Reason(StrEnum):
    """Why a ticket waits; where a contract would refuse it, in the contract's words."""

    PARAMS_IN_USE = "its parameters may still be used by the sender"
    PAUSED = reverts.PAUSED
    ROUND_NOT_INITIALIZED = reverts.ROUND_NOT_INITIALIZED
    UNREAD = "the chain does not answer for its sender or recipient"
    UNLOCKED = reverts.UNLOCKED
    NOT_REGISTERED = reverts.NOT_REGISTERED
    NOT_ACTIVE = "the deposit does not cover it, and only active orchestrators draw on reserves"
    NO_FUNDS = "the sender has nothing left that it could pay with"
    SHORT = "the sender cannot pay it in full yet"
    PAUSE = "a redemption failed a moment ago"
    REFUSED = "the contract refuses it for now"
    GAS_ABOVE_TARGET = "gas costs more than redemption.max_gas_price"
    UNECONOMIC = "redeeming it costs more than it pays"
    NO_GAS_MONEY = "the account has too little ether for the gas"
    IN_LINE = "others go first"
    UNDER_WAY = "its transaction is not mined yet"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A winning ticket that nothing was sent for; left alone until `retry_at`, in unix seconds."""

    winner: Winner
    retry_at: float = 0.0

    @property
    def ticket(self) -> Ticket:
        """The ticket without its secret."""
        return self.winner.signed.ticket

    @property
    def ticket_hash(self) -> bytes:
        """What names it on chain and in the books."""
        return self.winner.ticket_hash


@dataclass(frozen=True, slots=True)
class Standing:
    """A recipient's place in the BondingManager: registered to be paid, active for reserves."""

    is_registered: bool
    is_active: bool


@dataclass(frozen=True, slots=True)
class View:
    """The chain as it is read for one decision; what could not be read is missing.

    `round_start` is the L1 block that the current round began at, `round_length` in L1 blocks,
    `claimed` what each recipient took of each sender's reserve in this round, `now` in unix
    seconds.
    """

    head: Head
    round_start: int
    round_length: int
    now: float
    senders: Mapping[Address, SenderInfo] = field(default_factory=dict)
    claimed: Mapping[tuple[Address, Address], Wei] = field(default_factory=dict)
    standings: Mapping[Address, Standing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until `check_at`, an L1 block. `is_late`: its deadline is near."""

    candidate: Candidate
    reason: Reason
    check_at: int
    is_late: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It can never be redeemed; `reason` is the contract's."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Due:
    """To be redeemed now for `payout` wei. `is_pressing`: gas above the target does not matter."""

    candidate: Candidate
    payout: Wei
    is_pressing: bool
    is_late: bool


Verdict = Wait | GiveUp | Due


@dataclass(frozen=True, slots=True)
class Sifted:
    """Every ticket in one of three; `due` in the order in which they are redeemed."""

    due: tuple[Due, ...]
    waiting: tuple[Wait, ...]
    given_up: tuple[GiveUp, ...]


class _Funds:
    """What senders can still pay, while tickets are looked at one after another."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._deposits: dict[Address, int] = {
            sender: info.deposit for sender, info in view.senders.items()
        }
        self._shares: dict[tuple[Address, Address], int] = {}

    def split(self, ticket: Ticket) -> tuple[int, int]:
        """What a redemption would take from deposit and reserve."""
        from_deposit = min(ticket.face_value, self._deposits[ticket.sender])
        return from_deposit, min(ticket.face_value - from_deposit, self._share(ticket))

    def take(self, ticket: Ticket) -> None:
        from_deposit, from_reserve = self.split(ticket)
        self._deposits[ticket.sender] -= from_deposit
        self._shares[ticket.sender, ticket.recipient] -= from_reserve

    def _share(self, ticket: Ticket) -> int:
        pair = ticket.sender, ticket.recipient
        if pair not in self._shares:
            standing = self._view.standings.get(ticket.recipient)
            self._shares[pair] = claimable_reserve(
                self._view.senders[ticket.sender],
                self._view.claimed.get(pair, Wei(0)),
                self._view.head.pool_size,
                is_active=standing is not None and standing.is_active,
            )
        return self._shares[pair]


def claimable_reserve(info: SenderInfo, claimed: Wei, pool_size: int, *, is_active: bool) -> Wei:
    """Return what a recipient may still draw from a sender's reserve in this round, in wei.

    TicketBroker.claimableReserve, but 0 where its subtraction would revert because the pool grew.
    """
    if not is_active or pool_size == 0:
        return Wei(0)
    share = (info.reserve_remaining + info.reserve_claimed_in_round) // pool_size
    return Wei(max(0, share - claimed))


def sift(candidates: Iterable[Candidate], view: View, policy: GasPolicy) -> Sifted:
    """Judge each ticket by itself, counting on no wei of a sender's funds twice.

    Tickets of unlocking senders come first, then the earliest deadline.
    """
    funds = _Funds(view)
    due: list[Due] = []
    waiting: list[Wait] = []
    given_up: list[GiveUp] = []
    for candidate in sorted(candidates, key=lambda candidate: _order(candidate, view)):
        match _judge(candidate, view, funds, policy):
            case Due() as verdict:
                funds.take(candidate.ticket)
                due.append(verdict)
            case Wait() as verdict:
                waiting.append(verdict)
            case GiveUp() as verdict:
                given_up.append(verdict)
    return Sifted(tuple(due), tuple(waiting), tuple(given_up))


def pause_after(tries: int) -> float:
    """Return how many seconds to leave a ticket alone after a redemption of it failed."""
    return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(tries - 1, 16)))


def deadline(ticket: Ticket, view: View) -> int:
    """Return the L1 block at which the ticket expires or its sender's funds come free."""
    last = _expiry_round(ticket, view)
    info = view.senders.get(ticket.sender)
    if info is not None and info.withdraw_round > view.head.current_round:
        last = min(last, info.withdraw_round)
    return view.round_start + (last - view.head.current_round) * view.round_length


def is_late(ticket: Ticket, view: View, policy: GasPolicy) -> bool:
    """Tell whether the deadline is so near that the operator should know."""
    window = min(policy.deadline_blocks, view.round_length // 2)
    return deadline(ticket, view) - view.head.l1_block <= window


def _judge(candidate: Candidate, view: View, funds: _Funds, policy: GasPolicy) -> Verdict:
    ticket, head = candidate.ticket, view.head
    if head.current_round >= _expiry_round(ticket, view):
        return GiveUp(candidate, reverts.EXPIRED)
    late = is_late(ticket, view, policy)
    reason = _obstacle(candidate, view)
    if reason is not None:
        after = (
            candidate.winner.params_expiration_block
            if reason is Reason.PARAMS_IN_USE
            else head.l1_block
        )
        return Wait(candidate, reason, max(after, head.l1_block) + 1, late)
    pressing = late or view.senders[ticket.sender].withdraw_round != 0
    payout = Wei(sum(funds.split(ticket)))
    reason = _shortage(ticket, view, payout, is_pressing=pressing)
    if reason is None and not pressing:
        if view.now < candidate.retry_at:
            reason = Reason.PAUSE
        elif head.gas_price > policy.max_gas_price:
            reason = Reason.GAS_ABOVE_TARGET
    if reason is not None:
        return Wait(candidate, reason, head.l1_block + 1, late)
    return Due(candidate, payout, pressing, late)


def _obstacle(candidate: Candidate, view: View) -> Reason | None:
    """Why no redemption can succeed, or none may be sent."""
    ticket, head = candidate.ticket, view.head
    # A redemption reveals recipientRand. While the parameters live, a sender that knows it signs
    # only tickets that lose.
    if candidate.winner.params_expiration_block >= head.l1_block:
        return Reason.PARAMS_IN_USE
    if head.is_paused:
        return Reason.PAUSED
    if not head.is_round_initialized:
        return Reason.ROUND_NOT_INITIALIZED
    info = view.senders.get(ticket.sender)
    standing = view.standings.get(ticket.recipient)
    if info is None or standing is None:
        return Reason.UNREAD
    if info.withdraw_round != 0 and head.current_round >= info.withdraw_round:
        return Reason.UNLOCKED
    return None if standing.is_registered else Reason.NOT_REGISTERED


def _shortage(ticket: Ticket, view: View, payout: Wei, *, is_pressing: bool) -> Reason | None:
    """Why it is better not to redeem yet: a ticket is used up by whatever it pays, even nothing."""
    if payout == ticket.face_value and payout > 0:
        return None
    if payout > 0 and is_pressing:
        return None
    if not view.standings[ticket.recipient].is_active:
        return Reason.NOT_ACTIVE
    return Reason.NO_FUNDS if payout == 0 else Reason.SHORT


def _expiry_round(ticket: Ticket, view: View) -> int:
    return ticket.creation.number + view.head.ticket_validity_period


def _order(candidate: Candidate, view: View) -> tuple[bool, int, int, bytes]:
    info = view.senders.get(candidate.ticket.sender)
    return (
        info is None or info.withdraw_round == 0,
        deadline(candidate.ticket, view),
        -candidate.ticket.face_value,
        candidate.ticket_hash,
    )
