"""Who owes what: credit, reserve, settle, release. Pure, and idempotent by job id.

A payer's balance is what they paid in, less what they were charged and what open jobs hold. How
far it may go below zero is the ledger's `overdraft`: without bound where no payment is made
beforehand (off-chain), zero where tickets pay first. Credit is a fraction of a wei where tickets
brought it; what jobs hold and cost are whole wei.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from network.units import Address, JobId, Wei

_NOTHING: Final = Wei(0)


class HoldState(StrEnum):
    """What became of a reservation."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Hold:
    """A job's reservation: `amount` while open, then `charged` of it."""

    payer: Address
    amount: Wei
    state: HoldState = HoldState.OPEN
    charged: Wei = _NOTHING


@dataclass(frozen=True, slots=True)
class Account:
    """A payer's sums over their whole history."""

    credited: Fraction = Fraction(0)
    held: Wei = _NOTHING
    charged: Wei = _NOTHING

    @property
    def available(self) -> Fraction:
        """What is left to spend; negative for those who run up a debt."""
        return self.credited - self.held - self.charged


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ledger changed."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """This was done before, or its job is closed the other way: nothing changed."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Insufficient:
    """The payer lacks `shortfall`."""

    shortfall: Wei


class Ledger:
    """Every account and every job's hold.

    Closed holds are kept so that a repeated call stays harmless; `forget` drops those that
    nobody can repeat any more.
    """

    def __init__(self, overdraft: Wei | None) -> None:
        self._overdraft = overdraft
        self._accounts: dict[Address, Account] = {}
        self._holds: dict[JobId, Hold] = {}

    @property
    def accounts(self) -> Mapping[Address, Account]:
        """Return the accounts by payer, read-only."""
        return MappingProxyType(self._accounts)

    def hold(self, job_id: JobId) -> Hold | None:
        """Return what is known of a job's reservation."""
        return self._holds.get(job_id)

    def credit(self, payer: Address, amount: Fraction) -> None:
        """Add a payment. Raises ValueError for a negative one."""
        _check(amount)
        account = self._account(payer)
        self._accounts[payer] = replace(account, credited=account.credited + amount)

    def retract(self, payer: Address, amount: Fraction) -> None:
        """Take back a payment that could not be written down.

        What was spent of it meanwhile is a debt then, which the next payments make good.
        """
        account = self._account(payer)
        self._accounts[payer] = replace(account, credited=account.credited - amount)

    def restore(self, payer: Address, account: Account) -> None:
        """Begin with what an earlier process had written down."""
        self._accounts[payer] = account

    def reserve(
        self, job_id: JobId, payer: Address, amount: Wei
    ) -> Accepted | Repeated | Insufficient:
        """Hold the most a job may cost its payer."""
        _check(amount)
        known = self._holds.get(job_id)
        if known is not None:
            return Repeated(known)
        account = self._account(payer)
        if self._overdraft is not None:
            shortfall = amount - account.available - self._overdraft
            if shortfall > 0:
                return Insufficient(Wei(math.ceil(shortfall)))
        self._holds[job_id] = Hold(payer, amount)
        self._accounts[payer] = replace(account, held=Wei(account.held + amount))
        return Accepted()

    def settle(self, job_id: JobId, charged: Wei) -> Accepted | Repeated:
        """Charge a delivered job; what was held beyond that is free again.

        Raises ValueError for a charge above the reservation and KeyError for an unknown job.
        """
        _check(charged)
        hold = self._holds[job_id]
        if hold.state is not HoldState.OPEN:
            return Repeated(hold)
        if charged > hold.amount:
            raise ValueError(f"job {job_id}: {charged} wei is more than the {hold.amount} held")
        self._close(job_id, hold, HoldState.SETTLED, charged)
        return Accepted()

    def release(self, job_id: JobId) -> Accepted | Repeated:
        """Free what a failed or cancelled job held. Raises KeyError for an unknown job."""
        hold = self._holds[job_id]
        if hold.state is not HoldState.OPEN:
            return Repeated(hold)
        self._close(job_id, hold, HoldState.RELEASED, Wei(0))
        return Accepted()

    def forget(self, job_id: JobId) -> None:
        """Drop a closed hold; its effect on the account stays. An open one is kept."""
        hold = self._holds.get(job_id)
        if hold is not None and hold.state is not HoldState.OPEN:
            del self._holds[job_id]

    def validate(self) -> None:
        """Check what must always hold. For tests."""
        held: dict[Address, int] = {}
        for hold in self._holds.values():
            if hold.charged > hold.amount:
                raise AssertionError("a job was charged more than it held")
            if hold.state is HoldState.OPEN:
                held[hold.payer] = held.get(hold.payer, 0) + hold.amount
        for payer, account in self._accounts.items():
            if account.held != held.get(payer, 0):
                raise AssertionError("an account's held sum is not the sum of its open holds")
            if account.credited < 0 or account.held < 0 or account.charged < 0:
                raise AssertionError("a sum is negative")
            if self._overdraft is not None and account.available < -self._overdraft:
                raise AssertionError("an account is overdrawn")

    def _account(self, payer: Address) -> Account:
        return self._accounts.get(payer, Account())

    def _close(self, job_id: JobId, hold: Hold, state: HoldState, charged: Wei) -> None:
        account = self._accounts[hold.payer]
        self._accounts[hold.payer] = replace(
            account,
            held=Wei(account.held - hold.amount),
            charged=Wei(account.charged + charged),
        )
        self._holds[job_id] = replace(hold, state=state, charged=charged)


def _check(amount: Wei | Fraction) -> None:
    if amount < 0:
        raise ValueError(f"an amount of {amount} wei is negative")
