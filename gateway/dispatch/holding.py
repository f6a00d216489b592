"""Holds what a request may cost within the budgets of those who are charged."""

from collections.abc import Sequence
from typing import Final

import structlog

from gateway.dispatch.allowing import budget_problem, unvalued_problem
from gateway.dispatch.journey import Routing
from gateway.payments.allowance import Allowance, Allowances, Unvalued
from gateway.payments.exchange import why_unknown
from network.errors import ProblemError
from network.units import Wei

_log: Final = structlog.get_logger(__name__)


def hold_within_budgets(
    book: Allowances,
    routing: Routing,
    request_id: str,
    holders: Sequence[Allowance],
    *,
    amount: Wei,
    now: float,
) -> None:
    """Raise ProblemError naming the budget that forbids it; `now` in unix seconds."""
    refusal = book.hold(request_id, holders, amount, now, routing.usd_per_eth(now))
    if isinstance(refusal, Unvalued):
        reason = why_unknown(routing.rates, routing.max_rate_age, now)
        _log.warning("no_rate_for_a_budget", holder=refusal.allowance.holder, problem=reason)
        raise ProblemError(unvalued_problem(refusal))
    if refusal is not None:
        raise ProblemError(budget_problem(refusal, now))
