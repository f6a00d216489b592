"""Whether a gateway runs here, whether one could, and whether clients reach it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from gateway.api.exposure import check_tls, is_local
from gateway.config import GatewaySettings
from network.doctor.machine import judge_certificate_file, judge_port, look_at_port
from network.errors import ConfigError
from network.findings import Finding, fail, ok, skip, warn
from network.reachability.calls import CallError, get, words_of
from network.reachability.certificates import shake_hands

_SECONDS: Final = 4.0
_OK: Final = 200
_HTTPS_PORT: Final = 443
_PUBLIC: Final = "public_url"
#: Says what the gateway allows, and is the same wherever it is reached.
_CONTRACT: Final = "/openapi.json"


@dataclass(frozen=True, slots=True)
class Standing:
    """A gateway that answers on the settings' admin port."""

    url: str
    version: str
    address: str


async def look_for_gateway(settings: GatewaySettings) -> Standing | None:
    """Ask the admin port who it is; None where none answers as a gateway does."""
    if not settings.admin_listen:
        return None
    try:
        page = await get(f"http://{settings.admin_listen}", "/status", _SECONDS)
        told: Mapping[str, Any] = orjson.loads(page.body)
        return Standing(str(told["url"]), str(told["version"]), str(told["address"]))
    except (CallError, ValueError, KeyError, TypeError):
        return None


async def look_at_ports(
    settings: GatewaySettings, standing: Standing | None, own: str
) -> tuple[Finding, ...]:
    """Judge the ports: held by this gateway, or free for it. `own` is our account, "" if unknown."""
    if standing is not None and own in ("", standing.address):
        return (ok("running gateway", f"limner-gateway {standing.version} at {standing.url}"),)
    named = [("listen", settings.listen), ("admin_listen", settings.admin_listen)]
    looks = []
    for setting, where in named:
        if where:
            host, _, port = where.rpartition(":")
            looks.append(look_at_port(setting, host.strip("[]"), int(port)))
    judged = tuple(judge_port(one) for one in await asyncio.gather(*looks))
    if standing is None:
        return judged
    other = f"another gateway answers on {settings.admin_listen}, of account {standing.address}"
    return (*judged, warn("running gateway", other, "give each ports and a data_dir of its own"))


def look_at_tls(settings: GatewaySettings, now: float) -> tuple[Finding, ...]:
    """Judge the certificate that the settings name. Blocks."""
    certificate: Path | None = settings.tls.certificate
    if certificate is None:
        if is_local(settings.listen):
            return (ok("TLS", "none, for this machine only"),)
        return (
            warn(
                "TLS",
                f"none, and {settings.listen} can be reached by others: keys travel readable",
                "set [tls], or put a proxy with TLS before the gateway",
            ),
        )
    try:
        check_tls(settings.tls)
    except ConfigError as error:
        return (fail("TLS", str(error), "correct tls.certificate and tls.key"),)
    return (judge_certificate_file(certificate, now),)


async def look_at_public_url(
    settings: GatewaySettings, standing: Standing | None
) -> tuple[Finding, ...]:
    """See whether public_url leads to this gateway, as links in answers need it."""
    if not settings.public_url:
        return (skip(_PUBLIC, "not set: image URLs name the host by which each client called"),)
    if standing is None:
        return (skip(_PUBLIC, "not tried: no gateway runs here", "start it, and try again"),)
    try:
        here = await get(standing.url, _CONTRACT, _SECONDS)
    except CallError as error:
        detail = f"the gateway does not answer at {standing.url}: {error}"
        return (fail(_PUBLIC, detail, "its log says why"),)
    try:
        there = await get(settings.public_url, _CONTRACT, _SECONDS)
    except CallError as error:
        return (
            warn(
                _PUBLIC,
                f"{settings.public_url} does not answer this machine: {error}",
                "try it from elsewhere: a router without hairpin refuses its own network",
            ),
        )
    is_same = there.status == _OK and there.body == here.body
    reached = judge_public(settings.public_url, is_same=is_same, status=there.status)
    return (reached, *await _verified(settings.public_url))


def judge_public(url: str, *, is_same: bool, status: int) -> Finding:
    """Say whether what answers at `url` is this gateway."""
    if is_same:
        return ok(_PUBLIC, f"{url} leads here")
    return fail(
        _PUBLIC,
        f"{url} leads to something else than this gateway ({_CONTRACT} answers {status})",
        "correct public_url, or what the proxy forwards to",
    )


async def _verified(public_url: str) -> tuple[Finding, ...]:
    url = urlsplit(public_url)
    if url.scheme != "https":
        return ()
    what = f"certificate of {_PUBLIC}"
    try:
        async with asyncio.timeout(_SECONDS):
            shown = await shake_hands(url.hostname or "", url.port or _HTTPS_PORT)
    except OSError as error:
        return (warn(what, f"no handshake: {words_of(error)}", "look at the proxy"),)
    if shown.objection:
        advice = "clients verify: use a certificate of a public authority"
        return (warn(what, f"clients refuse it: {shown.objection}", advice),)
    return (ok(what, "verified by the usual authorities"),)
