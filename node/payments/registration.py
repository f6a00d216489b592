"""What an orchestrator's account has to do to be one, step by step; and why it cannot. Pure.

An account is read, a goal names the next step towards it, the step is sent, and the account is read
again, until the goal is reached: a command that was cut off goes on where it stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from network.chain.calls import WHOLE_SHARE, Calls
from network.chain.contracts import UnbondingLock
from network.chain.model import Call
from network.errors import LimnerError
from network.identity import checksum
from network.units import Address, Wei, format_wei

_DIGITS: Final = 18
_NOBODY: Final = Address(bytes(20))


class NotPossibleError(LimnerError):
    """The contracts would refuse; the message tells why and, where there is one, what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """An orchestrator's account at one moment. LPT in its smallest unit, ether and fees in wei."""

    address: Address
    ether: Wei
    lpt: Wei
    #: LPT that the BondingManager may take.
    allowance: Wei
    bonded: Wei
    delegate: Address
    fees: Wei
    is_active: bool
    #: Of `WHOLE_SHARE`: what it keeps of rewards, and gives of fees to those who stake on it.
    reward_cut: int
    fee_share: int
    last_reward_round: int
    ai_service_uri: str
    service_uri: str
    current_round: int
    is_round_initialized: bool
    is_round_locked: bool
    is_paused: bool
    locks: dict[int, UnbondingLock] = field(default_factory=dict)

    @property
    def is_registered(self) -> bool:
        """Tell whether it stakes on itself, which is what makes an orchestrator."""
        return self.delegate == self.address and self.bonded > 0


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction. `name` is short and stays the same when the step is repeated."""

    name: str
    what: str
    contract: str
    build: Callable[[Calls], Call]


Goal = Callable[[Account], Step | None]


@dataclass(frozen=True, slots=True)
class Registration:
    """What an operator wants its orchestrator to be; None leaves a thing as it is."""

    stake: Wei | None = None
    reward_cut: int | None = None
    fee_share: int | None = None
    service_uri: str | None = None


def activation(wish: Registration) -> Goal:
    """Return the goal of an orchestrator as wished for, active from the next round on."""

    def next_step(account: Account) -> Step | None:
        return (
            _staking(account, wish.stake)
            or _announcing(account, wish.service_uri)
            # Last: at the end of a round it is refused, and the rest need not wait for that.
            or _sharing(account, wish.reward_cut, wish.fee_share)
        )

    return next_step


def bonding(total: Wei) -> Goal:
    """Return the goal of having `total` LPT staked on oneself."""
    return lambda account: _staking(account, total)


def announcing(uri: str) -> Goal:
    """Return the goal of being found at `uri` by gateways that look for images."""
    return lambda account: _announcing(account, uri)


def unbonding(amount: Wei, staked: Wei) -> Goal:
    """Return the goal of taking `amount` of `staked` LPT back."""

    def next_step(account: Account) -> Step | None:
        if account.bonded <= staked - amount:
            return None
        _check_round(account)
        if amount <= 0 or amount > account.bonded:
            raise NotPossibleError(
                f"{format_lpt(amount)} cannot be unbonded: {format_lpt(account.bonded)} are bonded"
            )
        rest = "; the orchestrator leaves the pool" if amount == account.bonded else ""
        return Step(
            "unbond",
            f"unbond {format_lpt(amount)}{rest}",
            "BondingManager",
            lambda calls: calls.unbond(amount),
        )

    return next_step


def withdrawing_stake(number: int) -> Goal:
    """Return the goal of having the LPT of an unbonding lock back."""

    def next_step(account: Account) -> Step | None:
        lock = account.locks.get(number)
        if lock is None:
            return None
        _check_round(account)
        if lock.withdraw_round > account.current_round:
            raise NotPossibleError(
                f"lock {number} opens in round {lock.withdraw_round}; this is round "
                f"{account.current_round}"
            )
        return Step(
            "withdraw-stake",
            f"withdraw {format_lpt(lock.amount)} of unbonding lock {number}",
            "BondingManager",
            lambda calls: calls.withdraw_stake(number),
        )

    return next_step


def withdrawing_fees(amount: Wei, recipient: Address, before: Wei) -> Goal:
    """Return the goal of `amount` wei of fees, of the `before` that there were, at `recipient`."""

    def next_step(account: Account) -> Step | None:
        if account.fees <= before - amount:
            return None
        _check_round(account)
        if amount <= 0 or amount > account.fees:
            raise NotPossibleError(
                f"{format_wei(amount)} cannot be withdrawn: redeemed fees are "
                f"{format_wei(account.fees)}"
            )
        if recipient == _NOBODY:
            raise NotPossibleError("fees sent to the null address are lost")
        return Step(
            "withdraw-fees",
            f"withdraw {format_wei(amount)} of fees to {checksum(recipient)}",
            "BondingManager",
            lambda calls: calls.withdraw_fees(recipient, amount),
        )

    return next_step


def rewarding(account: Account) -> Step | None:
    """Name the step to this round's reward; None if it was called already."""
    if account.last_reward_round == account.current_round:
        return None
    _check_round(account)
    if not account.is_active:
        raise NotPossibleError(
            f"only active orchestrators have rewards, and {checksum(account.address)} is not active "
            f"in round {account.current_round}"
        )
    return Step(
        f"reward:{account.current_round}",
        f"mint the LPT of round {account.current_round}",
        "BondingManager",
        lambda calls: calls.reward(),
    )


def check_ether(account: Account, cost: Wei) -> None:
    """Raise NotPossibleError where the account cannot pay for gas."""
    if cost > account.ether:
        raise NotPossibleError(
            f"not enough ether for gas: about {format_wei(cost)} are needed, "
            f"{checksum(account.address)} has {format_wei(account.ether)}"
        )


def parse_coins(text: str, unit: str) -> Wei:
    """Smallest units from "100" or "0.5" ether or LPT; raises ValueError for the operator."""
    whole, _, part = text.strip().partition(".")
    digits = whole + part
    if not digits.isdecimal() or not digits.isascii() or len(part) > _DIGITS:
        raise ValueError(f'{text[:40]!r} is no amount of {unit}; write "100" or "0.5"')
    return Wei(int(whole or "0") * 10**_DIGITS + int(part.ljust(_DIGITS, "0")))


def format_lpt(amount: Wei) -> str:
    """Return an amount for people, exact."""
    whole, part = divmod(amount, 10**_DIGITS)
    tail = f"{part:0{_DIGITS}d}".rstrip("0")
    return f"{whole}.{tail} LPT" if tail else f"{whole} LPT"


def _staking(account: Account, total: Wei | None) -> Step | None:
    if total is None or account.bonded >= total:
        if total is None and not account.is_registered:
            raise NotPossibleError("nothing is staked; say how much LPT to stake")
        return None
    _check_round(account)
    if account.delegate not in (_NOBODY, account.address):
        raise NotPossibleError(
            f"the account's stake is on {checksum(account.delegate)}; unbond it there first"
        )
    missing = Wei(total - account.bonded)
    if missing > account.lpt:
        raise NotPossibleError(
            f"not enough LPT: {format_lpt(missing)} are to be staked, the account has "
            f"{format_lpt(account.lpt)}"
        )
    if account.allowance < missing:
        return Step(
            "approve",
            f"let the BondingManager take {format_lpt(missing)}",
            "LivepeerToken",
            lambda calls: calls.approve(missing),
        )
    return Step(
        "bond",
        f"stake {format_lpt(missing)} on yourself",
        "BondingManager",
        lambda calls: calls.bond(missing, account.address),
    )


def _sharing(account: Account, reward_cut: int | None, fee_share: int | None) -> Step | None:
    cut = account.reward_cut if reward_cut is None else reward_cut
    share = account.fee_share if fee_share is None else fee_share
    if (cut, share) == (account.reward_cut, account.fee_share):
        return None
    _check_round(account)
    if not 0 <= cut <= WHOLE_SHARE or not 0 <= share <= WHOLE_SHARE:
        raise NotPossibleError("shares are between 0 and 100 percent")
    if account.is_round_locked:
        raise NotPossibleError(
            f"shares cannot be changed at the end of a round, and round {account.current_round} is "
            "locked; try again in the next one"
        )
    if account.is_active and account.last_reward_round != account.current_round:
        raise NotPossibleError(
            "active orchestrators change shares after this round's reward; call "
            "`limner-node reward` first"
        )
    return Step(
        "transcoder",
        f"keep {cut / 10_000:g} % of rewards, give {share / 10_000:g} % of fees to delegators",
        "BondingManager",
        lambda calls: calls.transcoder(cut, share),
    )


def _announcing(account: Account, uri: str | None) -> Step | None:
    if uri is None or account.ai_service_uri == uri:
        return None
    return Step(
        "service-uri",
        f"be found at {uri}",
        "AIServiceRegistry",
        lambda calls: calls.set_service_uri(uri),
    )


def _check_round(account: Account) -> None:
    if account.is_paused:
        raise NotPossibleError("the network's contracts are paused")
    if not account.is_round_initialized:
        raise NotPossibleError(
            f"round {account.current_round} is not initialised yet; somebody does that within "
            "minutes of its beginning"
        )
