"""Everybody who may ask, put together from the settings."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from gateway.access.access import Access
from gateway.access.addresses import Proxies, networks_of
from gateway.access.anonymous import AnonymousTier, Terms
from gateway.access.crowd import Crowd
from gateway.access.memory import Keeping
from gateway.access.service import AuthService, open_service
from gateway.access.webhook import MOST_AT_ONCE, AuthWebhook
from gateway.config import GatewaySettings
from gateway.keys import KeyRing
from network.runtime.clock import Clock
from network.runtime.supervisor import supervise
from network.units import ModelId


@asynccontextmanager
async def open_access(
    settings: GatewaySettings, ring: KeyRing, clock: Clock, secret: bytes
) -> AsyncIterator[Access]:
    """`secret` is the gateway's own, and lasts. Nobody is asked about keys after the block."""
    tier = new_tier(settings, clock, secret)
    hook = settings.auth_webhook
    if not hook.url.get_secret_value():
        yield Access(ring, tier=tier)
        return
    keeping = Keeping(
        grants=hook.cache_seconds,
        refusals=min(hook.refusal_seconds, hook.cache_seconds),
        stale=hook.stale_seconds,
        most=hook.max_cached,
    )
    async with open_service_of(settings) as service, supervise(clock) as supervisor:
        webhook = AuthWebhook(service, keeping, clock, supervisor)
        has_own_keys = hook.asked == "unknown"
        yield Access(ring, tier=tier, webhook=webhook, has_own_keys=has_own_keys)


def open_service_of(settings: GatewaySettings) -> AbstractAsyncContextManager[AuthService]:
    """The service that `[auth_webhook]` names."""
    hook = settings.auth_webhook
    return open_service(
        hook.url.get_secret_value(),
        secret=hook.secret.get_secret_value(),
        patience=hook.timeout_seconds,
        most_at_once=MOST_AT_ONCE,
    )


def new_tier(settings: GatewaySettings, clock: Clock, secret: bytes) -> AnonymousTier | None:
    """The anonymous tier; None where everybody needs a key."""
    own = settings.anonymous
    if not own.enabled:
        return None
    terms = Terms(
        requests_per_minute=own.requests_per_minute,
        pixels_per_minute=own.pixels_per_minute,
        max_in_flight=own.max_in_flight,
        total_in_flight=own.total_in_flight,
        wei_per_day=own.wei_per_day,
        usd_per_day=own.usd_per_day,
        max_price=own.max_price,
        models=frozenset(map(ModelId, own.models)) or None,
        max_steps=own.max_steps,
        proxies=Proxies(networks_of(settings.server.trusted_proxies)),
    )
    return AnonymousTier(terms, Crowd(own.max_addresses), clock, secret)
