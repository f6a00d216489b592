"""What the operator's port shows."""

from asyncio import to_thread
from collections.abc import Mapping
from typing import Any

from gateway.api.explanations import Explanations
from gateway.api.metrics import Gauges, Metrics
from gateway.api.operator import PAGE, RecentRequests, operator_routes
from gateway.api.router import Route
from gateway.api.status import count_states, describe, describe_spending
from gateway.app.parts import VERSION, Parts
from gateway.app.terms import bounds_of
from gateway.config import GatewaySettings
from gateway.dispatch.allowing import spending_of
from network.prices import rate_facts
from network.runtime.certificates import ServedCertificate
from network.runtime.console import read_page


def spending_now(parts: Parts) -> list[dict[str, Any]]:
    grants = parts.access.grants()
    return describe_spending(spending_of(parts.allowances, grants, parts.clock.now()))


async def operator_routes_of(parts: Parts, recent: RecentRequests) -> Mapping[str, Route]:
    settings = parts.settings
    explanations = Explanations(
        parts.dispatcher,
        bounds_of(settings),
        parts.access.grant_of,
        repeats=None if parts.repeats is None else _repeats_of(settings),
    )
    return operator_routes(explanations, recent, await to_thread(read_page, PAGE))


def gauges_of(parts: Parts) -> Gauges:
    hedges = parts.dispatcher.hedges
    return Gauges(
        in_flight=lambda: parts.admission.in_flight,
        waiting=lambda: parts.dispatcher.waiting,
        live_keys=lambda: len(parts.keys),
        stored_images=lambda: parts.store.count,
        stored_bytes=lambda: parts.store.total_bytes,
        orchestrators=lambda: count_states(parts.directory.states()),
        payments=lambda: {} if parts.paying is None else parts.paying.figures(),
        spot_checks=lambda: {} if parts.checks is None else parts.checks.figures(),
        hedges=lambda: {} if hedges is None else hedges.figures(),
        repeats=lambda: {} if parts.repeats is None else parts.repeats.dispatcher.figures(),
    )


def status_of(
    parts: Parts,
    metrics: Metrics,
    url: str,
    address: str,
    served: ServedCertificate | None,
    *,
    started_at: float,
) -> dict[str, Any]:
    """The body of the admin port's `/status`; wei as text, for they outgrow JSON's numbers."""
    orchestrators = [describe(one) for one in parts.directory.states()]
    hedges = parts.dispatcher.hedges
    return {
        "version": VERSION,
        "url": url,
        "address": address,
        "uptime_seconds": round(parts.clock.now() - started_at, 1),
        "serving": any(one["state"] == "ready" for one in orchestrators),
        "default_model": parts.settings.default_model,
        "models": list(parts.directory.known_models()),
        "in_flight": parts.admission.in_flight,
        "waiting": parts.dispatcher.waiting,
        "live_keys": len(parts.keys),
        "access": parts.access.status(),
        "spent_wei": str(metrics.spent_wei),
        "images": {"count": parts.store.count, "bytes": parts.store.total_bytes},
        "network": parts.settings.chain.network,
        "rate": rate_facts(parts.eth_rates, parts.clock.now()),
        "certificate": None if served is None else served.status(),
        "payments": None if parts.paying is None else parts.paying.status(),
        "spot_checks": None if parts.checks is None else parts.checks.figures(),
        "hedges": None if hedges is None else hedges.figures(),
        "repeats": None if parts.repeats is None else parts.repeats.dispatcher.figures(),
        "sources": parts.discovery.describe(),
        "orchestrators": orchestrators,
        "links": parts.switchboard.states(),
    }


def _repeats_of(settings: GatewaySettings) -> dict[str, object]:
    """Of any request: which one was asked before, only `POST /quote` can tell."""
    own = settings.repeats
    return {
        "cache": own.cache,
        "coalesce": own.coalesce,
        "scope": own.scope,
        "share_of_fee": str(own.price),
    }
