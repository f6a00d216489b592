"""How much a key, and the team it belongs to, may still spend in this day and month. Pure.

Spending is counted when a request is settled, and held from the choice of an orchestrator until then:
what is spent and held together never exceeds a limit, however many requests come at once.

In dollars a request is held and settled by one rate, that of the moment at which it was held. So it
never settles for more than it held, whatever the rate does meanwhile, and what was spent stays as it is.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from network.dollars import NO_DOLLARS, AttoUsd, charged_usd
from network.units import Wei

_DAY: Final = 86_400


class Period(Enum):
    """Calendar periods of UTC, after which spending is counted anew."""

    DAY = "day"
    MONTH = "month"

    def begin(self, now: float) -> float:
        """When the period of `now` began; both unix seconds."""
        return _bounds(self, int(now // _DAY))[0]

    def end(self, now: float) -> float:
        """When the next one begins."""
        return _bounds(self, int(now // _DAY))[1]


class Unit(Enum):
    """What a limit is counted in."""

    WEI = "wei"
    #: 10**-18 dollars each.
    USD = "usd"

    @property
    def called(self) -> str:
        return "wei" if self is Unit.WEI else "USD"


@lru_cache(maxsize=16)
def _bounds(period: Period, day: int) -> tuple[float, float]:
    """`day` counts from 1970."""
    if period is Period.DAY:
        return float(day * _DAY), float((day + 1) * _DAY)
    first = datetime.fromtimestamp(day * _DAY, UTC).replace(day=1)
    # No month has more than 31 days, and the next one has more than a few.
    return first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp()


class Limit(NamedTuple):
    """The most that may be spent in a period, in its unit."""

    period: Period
    unit: Unit
    amount: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one holder, a key or a team, may spend; None is no limit."""

    #: Unique over keys and teams.
    holder: str
    #: How to call it in an error.
    called: str
    wei_per_day: Wei | None = None
    wei_per_month: Wei | None = None
    usd_per_day: AttoUsd | None = None
    usd_per_month: AttoUsd | None = None

    def limits(self) -> tuple[Limit, ...]:
        """Those there are; of a day first."""
        found = (
            (Period.DAY, Unit.WEI, self.wei_per_day),
            (Period.DAY, Unit.USD, self.usd_per_day),
            (Period.MONTH, Unit.WEI, self.wei_per_month),
            (Period.MONTH, Unit.USD, self.usd_per_month),
        )
        return tuple(
            [Limit(period, unit, most) for period, unit, most in found if most is not None]
        )


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Why nothing was held; nothing changed. Amounts in the limit's unit."""

    allowance: Allowance
    limit: Limit
    #: Spent in this period, and held by requests under way.
    spent: int
    held: int
    #: What the request would have held.
    cost: int
    resets_at: float


@dataclass(frozen=True, slots=True)
class Unvalued:
    """Nothing was held: a limit is in dollars, and nobody knows what the request costs in them."""

    allowance: Allowance


@dataclass(frozen=True, slots=True)
class Spent:
    """What a holder spent at some time of a day."""

    holder: str
    #: Unix seconds.
    at: float
    amount: Wei
    usd: AttoUsd = NO_DOLLARS


@dataclass(slots=True)
class _Hold:
    holders: tuple[str, ...]
    amount: Wei
    #: None: no rate was known, and no limit needed one.
    usd_per_eth: Fraction | None
    #: What `amount` is in dollars; 0 without a rate.
    usd: AttoUsd


@dataclass(slots=True)
class _Running:
    """What was spent in the latest period in which anything was: no earlier one is ever asked for."""

    began: float = -math.inf
    amount: int = 0

    def add(self, amount: int, began: float) -> None:
        if began > self.began:
            self.began, self.amount = began, amount
        elif began == self.began:
            self.amount += amount

    def since(self, began: float) -> int:
        return self.amount if began == self.began else 0


@dataclass(slots=True)
class _Tally:
    """In one unit."""

    day: _Running = field(default_factory=_Running)
    month: _Running = field(default_factory=_Running)
    held: int = 0

    def spent(self, period: Period, now: float) -> int:
        running = self.day if period is Period.DAY else self.month
        return running.since(period.begin(now))


@dataclass(slots=True)
class _Account:
    wei: _Tally = field(default_factory=_Tally)
    usd: _Tally = field(default_factory=_Tally)

    def tally(self, unit: Unit) -> _Tally:
        return self.wei if unit is Unit.WEI else self.usd


class Allowances:
    """Of all holders that ever spent or held something in this or an earlier period."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._holds: dict[str, _Hold] = {}

    def restore(self, spending: Iterable[Spent]) -> None:
        """Take in what an earlier process settled."""
        for one in spending:
            self._spend((one.holder,), one.amount, one.usd, one.at)

    def hold(
        self,
        request_id: str,
        allowances: Sequence[Allowance],
        amount: Wei,
        now: float,
        usd_per_eth: Fraction | None = None,
    ) -> Exceeded | Unvalued | None:
        """Hold `amount` for a request, in place of what it held. All of the holders allow it, or none.

        `now` is in unix seconds. By `usd_per_eth` the amount is held, and settled, in dollars; None is an
        unknown rate. What costs nothing needs none.
        """
        usd = NO_DOLLARS if usd_per_eth is None else charged_usd(amount, usd_per_eth)
        before = self._holds.get(request_id)
        for allowance in allowances:
            account = self._account(allowance.holder)
            mine = before if before and allowance.holder in before.holders else None
            for limit in allowance.limits():
                tally = account.tally(limit.unit)
                if limit.unit is Unit.WEI:
                    cost, returned = int(amount), 0 if mine is None else mine.amount
                elif usd_per_eth is None and amount:
                    return Unvalued(allowance)
                else:
                    cost, returned = usd, 0 if mine is None else mine.usd
                held = tally.held - returned
                spent = tally.spent(limit.period, now)
                if spent + held + cost > limit.amount:
                    resets_at = limit.period.end(now)
                    return Exceeded(allowance, limit, spent, held, cost, resets_at)
        self.release(request_id)
        holders = tuple([one.holder for one in allowances])
        self._holds[request_id] = _Hold(holders, amount, usd_per_eth, usd)
        for holder in holders:
            account = self._accounts[holder]
            account.wei.held += amount
            account.usd.held += usd
        return None

    def settle(self, request_id: str, amount: Wei, now: float) -> AttoUsd | None:
        """Count what a request cost, no more than it held, and hold nothing for it any more.

        Answers what that is in dollars, for the journal; None where no rate was known.
        """
        hold = self._holds.get(request_id)
        self.release(request_id)
        if hold is None:
            return None
        rate = hold.usd_per_eth
        usd = None if rate is None else charged_usd(amount, rate)
        self._spend(hold.holders, amount, usd, now)
        return usd

    def release(self, request_id: str) -> None:
        """Hold nothing for a request any more. May be repeated."""
        hold = self._holds.pop(request_id, None)
        if hold is None:
            return
        for holder in hold.holders:
            account = self._accounts[holder]
            account.wei.held -= hold.amount
            account.usd.held -= hold.usd

    def spent(self, holder: str, period: Period, now: float, unit: Unit = Unit.WEI) -> int:
        account = self._accounts.get(holder, _Account())
        return account.tally(unit).spent(period, now)

    def held(self, holder: str, unit: Unit = Unit.WEI) -> int:
        """What its requests under way may come to."""
        return self._accounts.get(holder, _Account()).tally(unit).held

    def _account(self, holder: str) -> _Account:
        """Made for whoever has none yet."""
        account = self._accounts.get(holder)
        if account is None:
            account = self._accounts[holder] = _Account()
        return account

    def _spend(self, holders: Iterable[str], amount: Wei, usd: AttoUsd | None, at: float) -> None:
        day, month = Period.DAY.begin(at), Period.MONTH.begin(at)
        for holder in holders:
            account = self._account(holder)
            account.wei.day.add(amount, day)
            account.wei.month.add(amount, month)
            if usd:
                account.usd.day.add(usd, day)
                account.usd.month.add(usd, month)

    def validate(self) -> None:
        """Raise AssertionError unless what is held is the sum of what requests hold."""
        held = Counter[str]()
        dollars = Counter[str]()
        for hold in self._holds.values():
            for holder in hold.holders:
                held[holder] += hold.amount
                dollars[holder] += hold.usd
        for holder, account in self._accounts.items():
            holds = (account.wei.held, account.usd.held)
            if holds != (held[holder], dollars[holder]):
                raise AssertionError(
                    f"{holder} holds {holds}, its requests {held[holder]} and {dollars[holder]}"
                )
