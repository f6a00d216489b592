"""What a gateway and an orchestrator tell each other, as values.

`network.wire.codec` turns them into Livepeer's protobuf messages and back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from network.capabilities import Capabilities


@dataclass(frozen=True, slots=True)
class PriceInfo:
    """Wei per unit, of one model if `constraint` names it."""

    price: Fraction
    capability: int = 0
    constraint: str = ""


@dataclass(frozen=True, slots=True)
class AuthToken:
    """A session's token, opaque to the gateway; `expiration` in unix seconds."""

    token: bytes
    session_id: str
    expiration: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device; memory in bytes, compute capability as major and minor."""

    id: str
    name: str
    major: int
    minor: int
    memory_free: int
    memory_total: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """Devices behind one model; keys of `gpus` are ordinals as text."""

    pipeline: str
    model_id: str
    gpus: Mapping[str, Gpu]


@dataclass(frozen=True, slots=True)
class OrchestratorInfo:
    """What an orchestrator answers to GetOrchestrator."""

    #: Where to post work; "" means that it takes none.
    transcoder: str
    address: bytes
    #: For the capabilities asked for; absent off-chain at go-livepeer's nodes.
    price: Fraction | None
    prices: tuple[PriceInfo, ...]
    capabilities: Capabilities
    auth_token: AuthToken | None
    hardware: tuple[Hardware, ...] = ()
    nodes: tuple[str, ...] = ()
    #: TicketParams as received.
    ticket_params: bytes | None = None


@dataclass(frozen=True, slots=True)
class OrchestratorRequest:
    """What a gateway asks with; off-chain its address and signature may be empty."""

    address: bytes
    signature: bytes
    capabilities: Capabilities | None = None
    ignore_capacity_check: bool = False


@dataclass(frozen=True, slots=True)
class SegmentCredentials:
    """SegData, the credentials that go with a job."""

    manifest_id: bytes
    hash: bytes
    profiles: bytes
    signature: bytes
    capabilities: Capabilities | None
    auth_token: AuthToken | None
    #: Milliseconds.
    duration: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class TicketSenderParams:
    """What distinguishes one ticket of a payment."""

    nonce: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Payment:
    """Who pays, at which price, and with which tickets."""

    sender: bytes = b""
    expected_price: Fraction | None = None
    #: TicketParams and TicketExpirationParams as received.
    ticket_params: bytes | None = None
    expiration_params: bytes | None = None
    tickets: tuple[TicketSenderParams, ...] = ()

    @property
    def has_tickets(self) -> bool:
        return bool(self.tickets)
