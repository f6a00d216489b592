"""Those who show no key: one tenant of the gateway, limited together and address by address."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Final

from gateway.access.addresses import Proxies
from gateway.access.crowd import Crowd
from gateway.keys import ANONYMOUS, Client, KeyGrant, UseLimits
from network.dollars import AttoUsd
from network.errors import ProblemError
from network.prices import Price
from network.runtime.clock import Clock
from network.units import ModelId, Wei
from network.wire import problems

_CONTEXT: Final = b"limner anonymous client"
_ID_BYTES: Final = 12
#: Of any kind, also such as cost nothing: each may read the database.
_CALLS_PER_MINUTE: Final = 600
_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Terms:
    """What the tier may do. Prices are for a pixel."""

    #: Of one address.
    requests_per_minute: int
    pixels_per_minute: int
    max_in_flight: int
    #: Of all of them together.
    total_in_flight: int
    wei_per_day: Wei
    usd_per_day: AttoUsd | None = None
    max_price: Price | None = None
    #: None allows every model.
    models: frozenset[ModelId] | None = None
    max_steps: int | None = None
    proxies: Proxies = field(default_factory=Proxies)


class AnonymousTier:
    """One per gateway; there is none where everybody needs a key."""

    def __init__(self, terms: Terms, crowd: Crowd, clock: Clock, secret: bytes) -> None:
        """`secret` lasts: after a restart an address is the same client."""
        self._terms = terms
        self._crowd = crowd
        self._clock = clock
        self._client_id = lru_cache(_REMEMBERED)(partial(_client_id, secret))
        #: What the tier is charged and limited under, whoever asks.
        self.tenant: Final = KeyGrant(
            ANONYMOUS,
            ANONYMOUS,
            models=terms.models,
            max_price=terms.max_price,
            max_in_flight=terms.total_in_flight,
            limits=UseLimits(wei_per_day=terms.wei_per_day, usd_per_day=terms.usd_per_day),
            max_steps=terms.max_steps,
        )

    @property
    def crowd(self) -> Crowd:
        return self._crowd

    def grant(self, peer: str | None, forwarded: Sequence[str]) -> KeyGrant:
        """Of whoever asks from this address. Raises ProblemError 429 for too many calls."""
        client_id = self._client_id(self._terms.proxies.block(peer, forwarded))
        now = self._clock.monotonic()
        calls = self._crowd.bucket(client_id, "calls", _CALLS_PER_MINUTE, now)
        wait = calls.wait(1, now)
        if wait > 0:
            message = f"Your address may ask {_CALLS_PER_MINUTE} things a minute without a key."
            raise ProblemError(problems.rate_limited(wait, message, calls.left(now).headers()))
        calls.take(1, now)
        return self._of(client_id)

    def grant_of(self, owner: str) -> KeyGrant | None:
        """Of the owner of a request that is kept (`KeyGrant.owner`)."""
        key_id, _, client_id = owner.partition(" ")
        return self._of(client_id) if key_id == ANONYMOUS and client_id else None

    def _of(self, client_id: str) -> KeyGrant:
        terms = self._terms
        client = Client(
            client_id,
            max_in_flight=terms.max_in_flight,
            requests_per_minute=terms.requests_per_minute,
            pixels_per_minute=terms.pixels_per_minute,
        )
        return replace(self.tenant, client=client)


def _client_id(secret: bytes, block: str) -> str:
    """Keyed: what is kept of a request must not tell the address to whoever reads the database."""
    return hmac.digest(secret, _CONTEXT + block.encode(), hashlib.sha256)[:_ID_BYTES].hex()
