"""What each orchestrator owes us: paid with tickets and not yet worked off. Pure.

Tickets are whole and fees are not, so most jobs pay a little too much. The orchestrator keeps the rest as
credit, by model, and the next job uses it. Every operation is keyed by the attempt, so that repeating one
changes nothing, and an attempt holds its part of the balance alone while it is under way.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

from network.payments.pricing import tickets_needed
from network.units import Address, ModelId, Wei

_NOTHING: Final = Fraction(0)


class Account(NamedTuple):
    """Where a balance is kept: by node, since nodes that are paid to one account have books of their

    own; and by model, as nodes of go-livepeer have.
    """

    recipient: Address
    #: URI.
    node: str
    model_id: ModelId


@dataclass(frozen=True, slots=True)
class Stake:
    """What one attempt has at its orchestrator. Amounts in wei."""

    account: Account
    #: Part of the balance; negative where an earlier job cost more than was paid.
    taken: Fraction
    tickets: int
    #: What its own tickets are worth.
    credit: Fraction


class Balances:
    """The balances of all orchestrators, and the attempts that hold a part of one."""

    def __init__(self) -> None:
        self._available: dict[Account, Fraction] = {}
        self._stakes: dict[str, Stake] = {}

    @property
    def total(self) -> Fraction:
        """Wei of credit at all orchestrators, what attempts under way took of it included."""
        taken = sum((stake.taken for stake in self._stakes.values()), _NOTHING)
        return sum(self._available.values(), taken)

    @property
    def under_way(self) -> Collection[str]:
        """Attempts whose end is not known."""
        return self._stakes.keys()

    def available(self, account: Account) -> Fraction:
        """Wei that the next attempt may use."""
        return self._available.get(account, _NOTHING)

    def stake(self, attempt_id: str) -> Stake | None:
        return self._stakes.get(attempt_id)

    def take(self, attempt_id: str, account: Account, fee: Wei, value: Fraction) -> Stake:
        """What an attempt for `fee` uses of the balance, and the tickets worth `value` that it adds.

        A debt is taken whole, so that it is paid once.
        """
        known = self._stakes.get(attempt_id)
        if known is not None:
            return known
        available = self.available(account)
        taken = min(available, max(Fraction(fee), value))
        tickets = tickets_needed(taken, fee, value)
        stake = Stake(account, taken, tickets, tickets * value)
        self._stakes[attempt_id] = stake
        self._set(account, available - taken)
        return stake

    def undo(self, attempt_id: str) -> bool:
        """Nothing was sent: the balance is as if the attempt had never been."""
        return self._close(attempt_id, lambda stake: stake.taken)

    def confirm(
        self, attempt_id: str, credited: Fraction, charged: Wei, *, is_balance_known: bool = True
    ) -> Fraction | None:
        """The orchestrator told: `credited` for the attempt's tickets, `charged` for its work.

        Where it denies the balance that the attempt counted on (`is_balance_known` False), that part
        is given up. Answers how much was, in wei; None where the attempt was closed before.
        """
        if credited < 0 or charged < 0:
            raise ValueError(f"credited {credited} and charged {charged} wei; neither is below 0")
        stake = self._stakes.get(attempt_id)
        if stake is None:
            return None
        given_up = _NOTHING if is_balance_known else max(stake.taken, _NOTHING)
        self._close(attempt_id, lambda stake: stake.taken - given_up + credited - charged)
        return given_up

    def lose(self, attempt_id: str) -> Fraction | None:
        """Nobody can tell: all that the attempt had at the orchestrator is given up.

        Answers how much of the balance that was, in wei, without the attempt's own tickets; None
        where it was closed before. A debt stays one: the orchestrator would ask for it again.
        """
        return self.confirm(attempt_id, _NOTHING, Wei(0), is_balance_known=False)

    def distrust(self, account: Account) -> Fraction:
        """The orchestrator says that the balance is not there; answers what was given up, in wei."""
        available = self.available(account)
        if available <= 0:
            return _NOTHING
        self._set(account, _NOTHING)
        return available

    def restore(self, account: Account, available: Fraction) -> None:
        """Begin with a balance that an earlier process had."""
        self._set(account, self.available(account) + available)

    def restore_stake(self, attempt_id: str, stake: Stake) -> None:
        """Take up an attempt of an earlier process whose end is not known."""
        self._stakes[attempt_id] = stake

    def _close(self, attempt_id: str, left: Callable[[Stake], Fraction]) -> bool:
        stake = self._stakes.pop(attempt_id, None)
        if stake is None:
            return False
        self._set(stake.account, self.available(stake.account) + left(stake))
        return True

    def _set(self, account: Account, amount: Fraction) -> None:
        if amount:
            self._available[account] = amount
        else:
            self._available.pop(account, None)
