"""Whether those may ask whom the operator lets, beside the holders of keys."""

import secrets
from time import perf_counter
from typing import Final

from gateway.access.opening import open_service_of
from gateway.access.verdict import Denied, UnreachableError, UnreadableError
from gateway.api.exposure import is_local
from gateway.config import GatewaySettings
from network.findings import Finding, fail, ok, skip, warn
from network.units import format_wei

_TIER: Final = "anonymous tier"
_SERVICE: Final = "auth webhook"


async def look_at_access(settings: GatewaySettings) -> tuple[Finding, ...]:
    """The anonymous tier, and the service that knows keys, which is asked about one that is none."""
    return (_judge_tier(settings), await _ask_service(settings))


def _judge_tier(settings: GatewaySettings) -> Finding:
    tier = settings.anonymous
    if not tier.enabled:
        return skip(_TIER, "off: whoever asks needs a key")
    allowed = (
        f"{tier.requests_per_minute} requests and {tier.pixels_per_minute} pixels a minute for an "
        f"address, {format_wei(tier.wei_per_day)} a day for all of them"
    )
    if is_local(settings.listen) and not settings.server.trusted_proxies:
        return warn(
            _TIER,
            f"{allowed}; but on {settings.listen} all clients of a proxy have its address",
            'name the proxy in server.trusted_proxies, such as ["127.0.0.1"]',
        )
    return ok(_TIER, allowed)


async def _ask_service(settings: GatewaySettings) -> Finding:
    if not settings.auth_webhook.url.get_secret_value():
        return skip(_SERVICE, "none is set")
    began = perf_counter()
    try:
        async with open_service_of(settings) as service:
            answer = await service.ask(f"limner-doctor-{secrets.token_hex(16)}")
    except UnreachableError as error:
        advice = (
            "see auth_webhook.url, and that the service runs; known keys go on working for a while"
        )
        return fail(_SERVICE, f"it cannot be asked: {error}", advice)
    except UnreadableError as error:
        return fail(_SERVICE, str(error), "docs/running-a-gateway.md tells what it must answer")
    if isinstance(answer, Denied):
        milliseconds = (perf_counter() - began) * 1000
        said = f'says "{answer.reason}" of a made-up key, within {milliseconds:.0f} ms'
        return ok(_SERVICE, said)
    detail = f"lets a made-up key in, as {answer.grant.name}"
    return warn(_SERVICE, detail, "let it refuse what it does not know, or use [anonymous]")
