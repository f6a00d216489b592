"""Whose money a request spends: its key's, and that of the key's team."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.accounting.events import DailySpending
from gateway.dispatch.journey import Buyer
from gateway.keys import KeyGrant, KeyRecord, Team, UseLimits
from gateway.payments.allowance import Allowance, Allowances, Exceeded, Period, Spent
from network.errors import Problem
from network.units import Wei
from network.wire import problems


def allowances_of(buyer: Buyer) -> tuple[Allowance, ...]:
    """Who is charged, limited or not: a limit may be set later, and counts from the period's start."""
    own = _allowance(_key(buyer.key_id), "This key", buyer.limits)
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
        found.append(Spent(_key(one.key_id), one.day_began, one.fee))
        if one.key_id in teams:
            found.append(Spent(_team(teams[one.key_id]), one.day_began, one.fee))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class KeySpending:
    """What a key spent in this day and month of UTC, in wei."""

    grant: KeyGrant
    today: Wei
    month: Wei


def spending_of(
    allowances: Allowances, grants: Iterable[KeyGrant], now: float
) -> tuple[KeySpending, ...]:
    """Those who spent the most in this month first; `now` in Unix seconds."""
    found = [
        KeySpending(
            grant,
            allowances.spent(_key(grant.key_id), Period.DAY, now),
            allowances.spent(_key(grant.key_id), Period.MONTH, now),
        )
        for grant in grants
    ]
    return tuple(sorted(found, key=lambda one: (-one.month, one.grant.name, one.grant.key_id)))


def budget_problem(exceeded: Exceeded, fee: Wei, now: float) -> Problem:
    """402 with what was exceeded, and when it resets."""
    again = datetime.fromtimestamp(exceeded.resets_at, UTC)
    message = (
        f"{exceeded.allowance.called} may spend {exceeded.limit} wei in a {exceeded.period.value}: "
        f"{exceeded.spent} are spent, {exceeded.held} are held by requests under way, and this "
        f"request costs {fee}. The next {exceeded.period.value} begins at {again:%Y-%m-%d %H:%M} UTC."
    )
    return problems.budget_exceeded(message, exceeded.resets_at - now)


def _allowance(holder: str, called: str, limits: UseLimits) -> Allowance:
    return Allowance(holder, called, limits.wei_per_day, limits.wei_per_month)


def _key(key_id: str) -> str:
    return f"key {key_id}"


def _team(team: Team) -> str:
    return f"team {team.name}"
