"""What the settings mean to each part."""

import random
from collections.abc import Mapping

from gateway.api.bounds import Bounds
from gateway.app.parts import VERSION
from gateway.config import GatewaySettings
from gateway.discovery.addresses import orchestrator_uri
from gateway.discovery.opening import (
    terms_of,
)
from gateway.dispatch import Routing
from gateway.dispatch.hedging import Hedging
from gateway.dispatch.spot_checks import Checking
from gateway.orchestrators.client import OrchestratorClient
from gateway.orchestrators.directory import Directory, Refreshing
from gateway.orchestrators.selection import Policy
from gateway.orchestrators.standing import Pausing
from gateway.payments.appraisal import Appraiser
from gateway.payments.budget import Limits as BudgetLimits
from network.prices import EthRates, Price
from network.runtime.clock import Clock
from network.units import ModelId
from network.wire.limits import Limits


def policy_of(settings: GatewaySettings) -> Policy:
    routing = settings.routing
    return Policy(time_value=routing.time_value, max_age=routing.stale_seconds)


def routing_of(
    settings: GatewaySettings, rates: EthRates, max_prices: Mapping[str | None, Price]
) -> Routing:
    routing = settings.routing
    return Routing(
        max_price=routing.max_price,
        max_prices=max_prices,
        rates=rates,
        max_rate_age=settings.budgets.max_rate_age_seconds,
        deadline=routing.deadline_seconds,
        attempt_timeout=routing.attempt_seconds,
        max_wait=routing.max_wait_seconds,
        max_waiting=routing.max_waiting,
        max_failures=routing.max_failures,
        retry_share=routing.retry_share,
        retry_spare=routing.retry_spare,
    )


def hedging_of(settings: GatewaySettings) -> Hedging | None:
    """None where it is switched off."""
    hedging = settings.routing.hedging
    if not hedging.share:
        return None
    return Hedging(
        share=hedging.share,
        spare=hedging.spare,
        max_fee=hedging.max_fee,
        quantile=hedging.quantile,
    )


def checking_of(settings: GatewaySettings) -> Checking:
    checks = settings.spot_checks
    return Checking(
        share=checks.share,
        wei_per_day=checks.wei_per_day,
        trusted=orchestrator_uri(checks.trusted) if checks.trusted else "",
        least_likeness=checks.least_likeness,
    )


def budget_limits_of(settings: GatewaySettings) -> BudgetLimits:
    return BudgetLimits(max_wei_in_flight=settings.payments.max_wei_in_flight)


def bounds_of(settings: GatewaySettings) -> Bounds:
    limits = settings.limits.model_dump()
    overrides = {
        ModelId(model.id): Limits(
            **{**limits, **model.model_dump(exclude={"id", "loras"}, exclude_none=True)}
        )
        for model in settings.models
    }
    return Bounds(settings.default_model, Limits(**limits), overrides)


def new_directory(
    settings: GatewaySettings,
    client: OrchestratorClient,
    policy: Policy,
    clock: Clock,
    randomness: random.Random,
    *,
    appraiser: Appraiser | None = None,
) -> Directory:
    return Directory(
        client=client,
        policy=policy,
        refreshing=Refreshing(interval=settings.routing.refresh_seconds),
        pausing=Pausing(),
        version=VERSION,
        clock=clock,
        randomness=randomness,
        models=[settings.default_model, *(ModelId(model.id) for model in settings.models)],
        appraiser=appraiser,
        terms=terms_of(settings),
    )
