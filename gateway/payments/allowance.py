"""How much a key, and the team it belongs to, may still spend in this day and month. Pure.

Spending is counted when a request is settled, and held from the choice of an orchestrator until then:
what is spent and held together never exceeds a limit, however many requests come at once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Final

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


@lru_cache(maxsize=16)
def _bounds(period: Period, day: int) -> tuple[float, float]:
    """`day` counts from 1970."""
    if period is Period.DAY:
        return float(day * _DAY), float((day + 1) * _DAY)
    first = datetime.fromtimestamp(day * _DAY, UTC).replace(day=1)
    # No month has more than 31 days, and the next one has more than a few.
    return first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp()


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one holder, a key or a team, may spend; None is no limit."""

    #: Unique over keys and teams.
    holder: str
    #: How to call it in an error.
    called: str
    wei_per_day: Wei | None = None
    wei_per_month: Wei | None = None

    def limits(self) -> tuple[tuple[Period, Wei], ...]:
        pairs = ((Period.DAY, self.wei_per_day), (Period.MONTH, self.wei_per_month))
        return tuple((period, limit) for period, limit in pairs if limit is not None)


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Why nothing was held; nothing changed."""

    allowance: Allowance
    period: Period
    limit: Wei
    #: Spent in this period, and held by requests under way.
    spent: Wei
    held: Wei
    resets_at: float


@dataclass(frozen=True, slots=True)
class Spent:
    """What a holder spent at some time of a day."""

    holder: str
    #: Unix seconds.
    at: float
    amount: Wei


@dataclass(slots=True)
class _Hold:
    holders: tuple[str, ...]
    amount: Wei


@dataclass(slots=True)
class _Account:
    #: By the beginning of the period.
    spent: Counter[tuple[Period, float]] = field(default_factory=Counter)
    held: int = 0


class Allowances:
    """Of all holders that ever spent or held something in this or an earlier period."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._holds: dict[str, _Hold] = {}

    def restore(self, spending: Iterable[Spent]) -> None:
        """Take in what an earlier process settled."""
        for one in spending:
            self._spend(one.holder, one.amount, one.at)

    def hold(
        self, request_id: str, allowances: Sequence[Allowance], amount: Wei, now: float
    ) -> Exceeded | None:
        """Hold `amount` for a request, in place of what it held. All of the holders allow it, or none.

        `now` is in unix seconds.
        """
        before = self._holds.get(request_id)
        held_before = 0 if before is None else before.amount
        for allowance in allowances:
            account = self._accounts.setdefault(allowance.holder, _Account())
            mine = held_before if before and allowance.holder in before.holders else 0
            held = account.held - mine
            for period, limit in allowance.limits():
                spent = account.spent[period, period.begin(now)]
                if spent + held + amount > limit:
                    return Exceeded(
                        allowance, period, limit, Wei(spent), Wei(held), period.end(now)
                    )
        self.release(request_id)
        hold = _Hold(tuple(one.holder for one in allowances), amount)
        self._holds[request_id] = hold
        for holder in hold.holders:
            self._accounts[holder].held += amount
        return None

    def settle(self, request_id: str, amount: Wei, now: float) -> None:
        """Count what a request cost, and hold nothing for it any more."""
        hold = self._holds.get(request_id)
        self.release(request_id)
        for holder in () if hold is None else hold.holders:
            self._spend(holder, amount, now)

    def release(self, request_id: str) -> None:
        """Hold nothing for a request any more. May be repeated."""
        hold = self._holds.pop(request_id, None)
        for holder in () if hold is None else hold.holders:
            self._accounts[holder].held -= hold.amount if hold else 0

    def spent(self, holder: str, period: Period, now: float) -> Wei:
        account = self._accounts.get(holder, _Account())
        return Wei(account.spent[period, period.begin(now)])

    def held(self, holder: str) -> Wei:
        """What its requests under way may come to."""
        return Wei(self._accounts.get(holder, _Account()).held)

    def _spend(self, holder: str, amount: Wei, at: float) -> None:
        spent = self._accounts.setdefault(holder, _Account()).spent
        for period in Period:
            begin = period.begin(at)
            spent[period, begin] += amount
            # Only the running period is ever asked for.
            for key in [key for key in spent if key[0] is period and key[1] < begin]:
                del spent[key]

    def validate(self) -> None:
        """Raise AssertionError unless what is held is the sum of what requests hold."""
        held = Counter[str]()
        for hold in self._holds.values():
            for holder in hold.holders:
                held[holder] += hold.amount
        for holder, account in self._accounts.items():
            if account.held != held[holder]:
                raise AssertionError(f"{holder} holds {account.held}, its requests {held[holder]}")
