"""Whose money a request spends: its key's, and that of the key's team."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from gateway.accounting.events import DailySpending
from gateway.dispatch.journey import Buyer
from gateway.keys import KeyGrant, KeyRecord, Team, UseLimits, called
from gateway.payments.allowance import (
    Allowance,
    Allowances,
    Exceeded,
    Period,
    Spent,
    Unit,
    Unvalued,
)
from network.dollars import AttoUsd, format_usd
from network.errors import Problem
from network.units import Wei
from network.wire import problems

#: Seconds; a price feed is asked again about so soon.
NO_RATE_RETRY: Final = 30.0


def allowances_of(buyer: Buyer) -> tuple[Allowance, ...]:
    """Who is charged, limited or not: a limit may be set later, and counts from the period's start."""
    own = _allowance(_key(buyer.key_id), called(buyer.key_id), buyer.limits)
    team = buyer.team
    if team is None:
        return (own,)
    return own, _allowance(_team(team), f"The team {team.name!r} of this key", team.limits)


def spent_before(
    spending: Iterable[DailySpending], records: Iterable[KeyRecord]
) -> tuple[Spent, ...]:
    """What the journal tells, for those who are charged now."""
    teams: Mapping[str, Team] = {
        record.grant.key_id: record.grant.team
        for record in records
        if record.grant.team is not None
    }
    found: list[Spent] = []
    for one in spending:
        found.append(Spent(_key(one.key_id), one.day_began, one.fee, one.usd))
        if one.key_id in teams:
            found.append(Spent(_team(teams[one.key_id]), one.day_began, one.fee, one.usd))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class KeySpending:
    """What a key spent in this day and month of UTC, in wei and dollars."""

    grant: KeyGrant
    today: Wei
    month: Wei
    today_usd: AttoUsd
    month_usd: AttoUsd


def spending_of(
    allowances: Allowances, grants: Iterable[KeyGrant], now: float
) -> tuple[KeySpending, ...]:
    """Those who spent the most in this month first; `now` in Unix seconds."""

    def spent(grant: KeyGrant, period: Period, unit: Unit) -> int:
        return allowances.spent(_key(grant.key_id), period, now, unit)

    found = [
        KeySpending(
            grant,
            Wei(spent(grant, Period.DAY, Unit.WEI)),
            Wei(spent(grant, Period.MONTH, Unit.WEI)),
            AttoUsd(spent(grant, Period.DAY, Unit.USD)),
            AttoUsd(spent(grant, Period.MONTH, Unit.USD)),
        )
        for grant in grants
    ]
    return tuple(sorted(found, key=lambda one: (-one.month, one.grant.name, one.grant.key_id)))


def budget_problem(exceeded: Exceeded, now: float) -> Problem:
    """402 with what was exceeded, in the unit of the budget, and when it resets."""
    again = datetime.fromtimestamp(exceeded.resets_at, UTC)
    limit, allowance = exceeded.limit, exceeded.allowance
    period, amount = limit.period.value, partial(_amount, limit.unit)
    if exceeded.cost > limit.amount:
        # Whoever waits for the next one would be told the same again.
        outlook = f"This is more than any {period} allows: ask for less, or for a larger budget."
    else:
        outlook = f"The next {period} begins at {again:%Y-%m-%d %H:%M} UTC."
    message = (
        f"{allowance.called} may spend {amount(limit.amount)} {limit.unit.called} in a {period}: "
        f"{amount(exceeded.spent)} are spent, {amount(exceeded.held)} are held by requests under way, "
        f"and this request costs {amount(exceeded.cost)}. {outlook}"
    )
    return problems.budget_exceeded(message, exceeded.resets_at - now)


def unvalued_problem(unvalued: Unvalued) -> Problem:
    """503, for what a request costs in dollars is not known; the operator's log says why."""
    return problems.payments_unavailable(
        NO_RATE_RETRY,
        f"{unvalued.allowance.called} has a budget in US dollars, and what an ETH costs is not known "
        "at the moment. Nothing was charged; the gateway's operator has been told.",
    )


def _allowance(holder: str, who: str, limits: UseLimits) -> Allowance:
    return Allowance(
        holder,
        who,
        limits.wei_per_day,
        limits.wei_per_month,
        limits.usd_per_day,
        limits.usd_per_month,
    )


def _amount(unit: Unit, amount: int) -> str:
    return str(amount) if unit is Unit.WEI else format_usd(AttoUsd(amount))


def _key(key_id: str) -> str:
    return f"key {key_id}"


def _team(team: Team) -> str:
    return f"team {team.name}"
