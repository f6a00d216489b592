"""What a client's key grants."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from network.dollars import AttoUsd, format_usd
from network.prices import Price, written
from network.units import ModelId, Wei

#: The key id of those who show no key, and what they may write in place of one.
ANONYMOUS: Final = "anonymous"


@dataclass(frozen=True, slots=True)
class UseLimits:
    """What a key or a team may use; None is no limit."""

    wei_per_day: Wei | None = None
    wei_per_month: Wei | None = None
    usd_per_day: AttoUsd | None = None
    usd_per_month: AttoUsd | None = None
    requests_per_minute: int | None = None
    pixels_per_minute: int | None = None

    @property
    def are_in_dollars(self) -> bool:
        """Whether any of them needs to know what an ETH costs."""
        return self.usd_per_day is not None or self.usd_per_month is not None


@dataclass(frozen=True, slots=True)
class Team:
    """Keys that share limits, beside their own."""

    name: str
    limits: UseLimits


@dataclass(frozen=True, slots=True)
class Client:
    """One of many that share a grant: an address that shows no key."""

    #: Says nothing of the address to whoever does not know our secret.
    client_id: str
    #: Requests at a time.
    max_in_flight: int
    requests_per_minute: int
    pixels_per_minute: int


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What the holder of one key may do; prices are for a pixel, times in unix seconds."""

    key_id: str
    name: str
    #: None allows every model.
    models: frozenset[ModelId] | None = None
    max_price: Price | None = None
    expires_at: float | None = None
    #: Requests at a time; None leaves it to the gateway's own setting.
    max_in_flight: int | None = None
    limits: UseLimits = field(default_factory=UseLimits)
    team: Team | None = None
    #: The operator's own notes; the gateway never looks at them.
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: None where whoever has the key is one client.
    client: Client | None = None
    #: Of one request; None leaves it to the gateway's bounds.
    max_steps: int | None = None

    @property
    def owner(self) -> str:
        """Whose a request is: nobody else may see it, end it, or be given its answer."""
        return self.key_id if self.client is None else f"{self.key_id} {self.client.client_id}"

    def allows(self, model: ModelId) -> bool:
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One row: a grant, what proves it, and its history."""

    grant: KeyGrant
    digest: bytes
    created_at: float
    revoked_at: float | None

    def is_live(self, now: float) -> bool:
        expires = self.grant.expires_at
        return self.revoked_at is None and (expires is None or now < expires)


def mint_bearer() -> tuple[str, str]:
    """A new key id and the key to hand out once."""
    key_id = secrets.token_hex(6)
    return key_id, f"limner_{key_id}_{secrets.token_urlsafe(32)}"


def called(key_id: str) -> str:
    """How an error begins that is about a key's limits."""
    return "The anonymous tier" if key_id == ANONYMOUS else "This key"


def price_text(price: Price) -> str:
    """A key's maximum price as it is stored and shown: "7/2" is wei."""
    return str(price) if isinstance(price, Fraction) else written(price)


def limit_text(name: str, value: int) -> str:
    """A limit of UseLimits as it is shown: dollars as a decimal, everything else as it is counted."""
    return format_usd(AttoUsd(value)) if name.startswith("usd_") else str(value)


def digest_of(bearer: str) -> bytes:
    """What is stored of a key, 32 bytes."""
    return hashlib.sha256(bearer.encode()).digest()
