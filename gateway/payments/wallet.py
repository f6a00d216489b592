"""What the gateway's account can do with its money in the TicketBroker, and why not. Pure.

Only an account of its own funds itself here. Money from a third party does not cancel an unlock, so that a
sender who once withdrew would be funded and refused by everybody at the same time.
"""

from dataclasses import dataclass

from network.chain.model import SenderInfo
from network.errors import LimnerError
from network.units import Address, Wei, format_wei


class WalletRefusedError(LimnerError):
    """The contract would refuse the call, or the account cannot pay for it; the message says why."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """The account and its funds at one moment. Amounts in wei."""

    account: Address
    ether: Wei
    funds: SenderInfo
    current_round: int
    #: Rounds between unlock and withdraw.
    unlock_period: int
    is_paused: bool

    @property
    def is_unlocking(self) -> bool:
        return self.funds.withdraw_round != 0

    @property
    def is_unlocked(self) -> bool:
        """Whether the funds may be withdrawn now, and no ticket is redeemed any more."""
        return self.is_unlocking and self.current_round >= self.funds.withdraw_round

    @property
    def is_empty(self) -> bool:
        return self.funds.deposit == 0 and self.funds.reserve_remaining == 0

    @property
    def lock_state(self) -> str:
        """In words, for the operator."""
        if not self.is_unlocking:
            return "locked: tickets can be redeemed"
        if self.is_unlocked:
            return f"unlocked since round {self.funds.withdraw_round}: tickets are refused"
        return (
            f"unlocking: can be withdrawn from round {self.funds.withdraw_round} on "
            f"(now {self.current_round})"
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the TicketBroker that would succeed, in words for whoever has to confirm it."""

    what: str
    value: Wei
    consequences: tuple[str, ...] = ()


def plan_funding(wallet: Wallet, deposit: Wei, reserve: Wei) -> Step:
    """Pay so much of the account's own ether in. Raises WalletRefusedError."""
    _not_paused(wallet)
    if deposit <= 0 and reserve <= 0:
        raise WalletRefusedError("nothing to fund: give --deposit, --reserve or both")
    value = Wei(deposit + reserve)
    if value > wallet.ether:
        raise WalletRefusedError(
            f"not enough ether: {format_wei(value)} are to be sent, the account has "
            f"{format_wei(wallet.ether)}"
        )
    consequences = []
    if wallet.is_unlocking:
        consequences.append("The unlock under way is cancelled: funding locks the account again.")
    if not wallet.funds.reserve_remaining and not reserve:
        consequences.append("The reserve stays 0: orchestrators quote no tickets without one.")
    if not wallet.funds.deposit and not deposit:
        consequences.append("The deposit stays 0: tickets are refused without one.")
    return Step(
        f"fund deposit with {format_wei(deposit)} and reserve with {format_wei(reserve)}",
        value,
        tuple(consequences),
    )


def plan_unlock(wallet: Wallet) -> Step:
    """Begin to leave. Raises WalletRefusedError."""
    _not_paused(wallet)
    if wallet.is_empty:
        raise WalletRefusedError("sender deposit and reserve are zero: there is nothing to unlock")
    if wallet.is_unlocking:
        raise WalletRefusedError(f"unlock already initiated; {wallet.lock_state}")
    first = wallet.current_round + wallet.unlock_period
    return Step(
        "unlock deposit and reserve",
        Wei(0),
        (
            f"They can be withdrawn from round {first} on (now {wallet.current_round}).",
            "Orchestrators take no more tickets from this account; redeem what is out until then.",
        ),
    )


def plan_cancel_unlock(wallet: Wallet) -> Step:
    """Stay after all. Raises WalletRefusedError."""
    _not_paused(wallet)
    if not wallet.is_unlocking:
        raise WalletRefusedError("no unlock request in progress: there is nothing to cancel")
    return Step("cancel the unlock", Wei(0), ("Tickets are taken and redeemed again.",))


def plan_withdrawal(wallet: Wallet) -> Step:
    """Take everything out. Raises WalletRefusedError."""
    _not_paused(wallet)
    if wallet.is_empty:
        raise WalletRefusedError(
            "sender deposit and reserve are zero: there is nothing to withdraw"
        )
    if not wallet.is_unlocking:
        raise WalletRefusedError(
            "no unlock request in progress: run `limner-gateway unlock` first, and wait "
            f"{wallet.unlock_period} rounds"
        )
    if not wallet.is_unlocked:
        raise WalletRefusedError(
            f"account is locked until round {wallet.funds.withdraw_round} "
            f"(now {wallet.current_round})"
        )
    total = Wei(wallet.funds.deposit + wallet.funds.reserve_remaining)
    return Step(
        f"withdraw {format_wei(total)}: deposit {format_wei(wallet.funds.deposit)} and reserve "
        f"{format_wei(wallet.funds.reserve_remaining)}",
        Wei(0),
        ("Tickets that were given out and not redeemed are worth nothing afterwards.",),
    )


def check_gas(wallet: Wallet, step: Step, gas: int, gas_price: Wei) -> Wei:
    """Wei that `gas` costs at most at `gas_price`. Raises WalletRefusedError beyond the account."""
    cost = Wei(gas * gas_price)
    if step.value + cost > wallet.ether:
        raise WalletRefusedError(
            f"not enough ether: {format_wei(step.value)} are to be sent and gas may cost "
            f"{format_wei(cost)}, the account has {format_wei(wallet.ether)}"
        )
    return cost


def _not_paused(wallet: Wallet) -> None:
    if wallet.is_paused:
        raise WalletRefusedError("system is paused: the TicketBroker takes no calls; try later")
