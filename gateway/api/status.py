"""What the operator's `/status` and `limner-gateway orchestrators` say of each orchestrator."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.dispatch.allowing import KeySpending
from gateway.orchestrators.offer import Offer
from gateway.orchestrators.peer import OrchestratorState
from network.dollars import AttoUsd, format_usd
from network.identity import checksum
from network.units import ModelId, format_price

#: Keys that are listed: the page is for looking at, `limner-gateway usage` has everybody.
MOST_KEYS = 100
#: Every state, so that a metric falls to 0 instead of vanishing.
STATES = ("ready", "paused", "stale", "unreachable", "excluded")


def state_of(one: OrchestratorState) -> str:
    """One word: ready, paused (after failures), stale (knew it once), unreachable or excluded (by us)."""
    if one.offer is None:
        return "unreachable"
    if one.passed_over:
        return "excluded"
    if one.paused_for > 0:
        return "paused"
    return "stale" if one.problem or one.offer.is_remembered else "ready"


def count_states(all_of_them: Iterable[OrchestratorState]) -> Mapping[str, int]:
    counted = Counter(state_of(one) for one in all_of_them)
    return {state: counted[state] for state in STATES}


def describe(one: OrchestratorState) -> dict[str, Any]:
    """One orchestrator as JSON; prices as exact text in wei per pixel."""
    offer = one.offer
    address = None if offer is None or offer.address is None else checksum(offer.address)
    return {
        "uri": one.uri,
        "state": state_of(one),
        "address": address,
        "version": "" if offer is None else offer.version,
        "models": [] if offer is None else describe_models(offer, one.objections),
        "sources": list(one.sources),
        "is_remembered": offer is not None and offer.is_remembered,
        "age_seconds": None if one.age is None else round(one.age, 3),
        "in_flight": one.in_flight,
        "failures": one.failures,
        "paused_for_seconds": round(one.paused_for, 3),
        "problem": one.problem or one.passed_over,
        "fault": one.fault,
        "jobs_allowed": one.allowance,
        "last_fault": one.last_fault,
    }


def describe_spending(spending: Sequence[KeySpending]) -> list[dict[str, Any]]:
    """What keys spent, those who spent most; wei and dollars as text. A key's secret is nowhere near."""
    return [
        {
            "key_id": one.grant.key_id,
            "name": one.grant.name,
            "team": None if one.grant.team is None else one.grant.team.name,
            "today_wei": str(one.today),
            "month_wei": str(one.month),
            "today_usd": format_usd(one.today_usd),
            "month_usd": format_usd(one.month_usd),
            "wei_per_day": _text(one.grant.limits.wei_per_day),
            "wei_per_month": _text(one.grant.limits.wei_per_month),
            "usd_per_day": _dollars(one.grant.limits.usd_per_day),
            "usd_per_month": _dollars(one.grant.limits.usd_per_month),
        }
        for one in spending[:MOST_KEYS]
    ]


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)


def _dollars(amount: AttoUsd | None) -> str | None:
    return None if amount is None else format_usd(amount)


def describe_models(offer: Offer, objections: Mapping[ModelId, str]) -> list[dict[str, Any]]:
    """The models of one offer, by name; `objections` are why some cannot be paid for."""
    return [
        {
            "id": name,
            "warm": model.warm,
            "free": model.free,
            "price": None if model.price is None else format_price(model.price),
            **({"objection": objections[name]} if name in objections else {}),
        }
        for name, model in sorted(offer.models.items())
    ]
