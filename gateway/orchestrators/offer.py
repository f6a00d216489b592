"""What one orchestrator last said about itself: models, places, price and credentials."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from urllib.parse import urlsplit

from gateway.orchestrators.connecting import linked_account
from network.capabilities import TEXT_TO_IMAGE, Capabilities
from network.units import Address, ModelId
from network.wire.codec import AuthToken, OrchestratorInfo


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """One model of one orchestrator."""

    warm: bool
    #: Places the orchestrator said are free; our own jobs since then are not subtracted.
    free: int
    #: Wei per pixel. None where the orchestrator names no price: it asks for nothing if that is
    #: `exact`, and is not known yet otherwise.
    price: Fraction | None
    #: False where only the floored list of `capabilities_prices` was seen: `price` is then the
    #: smallest whole price that cannot be below the true one.
    exact: bool = True
    #: The whole answer about this model, with its ticket parameters; None where there was none.
    reply: OrchestratorInfo | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One orchestrator as of `refreshed_at` (Livepeer wire, OrchestratorInfo)."""

    #: As configured; names the orchestrator everywhere in the gateway.
    uri: str
    #: Where jobs are posted. Empty when the orchestrator takes no work.
    transcoder: str
    address: Address | None
    models: Mapping[ModelId, ModelOffer]
    capabilities: Capabilities
    auth_token: AuthToken | None
    version: str
    #: Seconds of the monotonic clock.
    refreshed_at: float
    #: Seconds one information call took.
    round_trip: float
    #: Why the orchestrator's word is not taken although it answered; empty otherwise.
    problem: str = ""
    #: It was told to an earlier process. Whoever wants to use it asks the orchestrator first.
    is_remembered: bool = False


def read_offer(
    uri: str,
    info: OrchestratorInfo,
    *,
    replies: Mapping[ModelId, OrchestratorInfo],
    floors: Mapping[str, Fraction],
    refreshed_at: float,
    round_trip: float,
) -> Offer:
    """What an orchestrator says of itself, as far as it can be used.

    `replies` are for one model each, with its exact price. Other models have only the list of floored
    prices, where the next whole number is the least that cannot be too low, or no price yet.
    """
    linked = linked_account(uri)
    # Where a linked node can be called is nothing to us: it cannot.
    transcoder = uri if linked is not None and info.transcoder else info.transcoder
    problem = _unusable(uri, transcoder) if linked is None else _unlinked(linked, info)
    models: dict[ModelId, ModelOffer] = {}
    if not problem:
        for name, state in info.capabilities.models.get(TEXT_TO_IMAGE, {}).items():
            model_id = ModelId(name)
            reply = replies.get(model_id)
            price = None if reply is None else reply.price
            if reply is None and name in floors:
                price = floors[name] + 1
            models[model_id] = ModelOffer(
                state.warm, state.capacity, price, reply is not None, reply
            )
    return Offer(
        uri=uri,
        transcoder=transcoder,
        address=Address(info.address) if any(info.address) else None,
        models=MappingProxyType(models),
        capabilities=info.capabilities,
        auth_token=info.auth_token,
        version=info.capabilities.version,
        refreshed_at=refreshed_at,
        round_trip=round_trip,
        problem=problem,
    )


def floored_prices(info: OrchestratorInfo) -> dict[str, Fraction]:
    """By model; only a reply about all models carries them (Livepeer wire, capabilities_prices)."""
    return {one.constraint: one.price for one in info.prices if one.capability == TEXT_TO_IMAGE}


def _unusable(uri: str, transcoder: str) -> str:
    """Jobs go where the orchestrator says, but not into our own network at a stranger's word."""
    if not transcoder:
        return "it takes no work at the moment"
    try:
        parts = urlsplit(transcoder)
        own, host, _ = urlsplit(uri).hostname, parts.hostname, parts.port
    except ValueError:
        return "its service URI is malformed"
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
        return "its service URI is no plain http or https URL"
    if parts.query or parts.fragment or not transcoder.isascii():
        return "its service URI is more than host and path"
    if host != own and is_internal(host) and not is_internal(own or ""):
        return f"its service URI leads to {host}, a private address"
    return ""


def _unlinked(account: Address, info: OrchestratorInfo) -> str:
    """Jobs go over the link, but for no other account than the one that was proven on it."""
    if not info.transcoder:
        return "it takes no work at the moment"
    if info.address != account:
        return "it gives another account as its own than it has proven on its link"
    return ""


def is_internal(host: str) -> bool:
    """Whether a host is written as one of this machine or of a private network."""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False
