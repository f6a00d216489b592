"""An app, what is told of it, and one call of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from aiohttp import web

from network.units import Address, Wei
from network.wire.session import Gpu
from node.accounting.model import Credit


@dataclass(frozen=True, slots=True)
class Price:
    """What a call costs at most. `wei` is for one `unit`, at least 1."""

    wei: Wei
    unit: Literal["fixed", "seconds", "720p-pixel-seconds"] = "fixed"


@dataclass(frozen=True, slots=True)
class Listing:
    """An app as `GET /discovery` tells it. `price` None: nobody pays by ticket here."""

    #: What clients ask for, by convention "pipeline/model".
    app: str
    #: Its place: `/apps/{route}/app`.
    route: str
    capacity: int
    in_use: int
    price: Price | None
    mode: Literal["single-shot", "persistent"] = "single-shot"
    version: str = ""
    #: At most 1024 bytes of UTF-8.
    metadata: str = ""
    gpu: Gpu | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an app: what is left of its path behind `/app`, and its whole body."""

    request: web.Request
    tail: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Sale:
    """Who pays how much, in wei, for a call. `attempt_id` is the payer's name for it.

    `fee` is the offer's, or what an earlier offer for the same request promised this payer.
    """

    attempt_id: str
    payer: Address
    fee: Wei
    #: Looks at the payment, once a place is certain; None where nobody pays by ticket. Raises
    #: PaymentRefusedError, ChainError. What it brought is told to the payer for the app: with a Refusal,
    #: and with an answer that is not sent yet (`web.StreamResponse.prepared`).
    pay: Callable[[], Awaitable[Credit | None]] | None


@dataclass(frozen=True, slots=True)
class Offer:
    """What one call costs exactly, and how it is served.

    `fulfil` reserves the fee, works, and settles; it charges only what was delivered. Raises
    Refusal (`node.apps.refusal`).
    """

    fee: Wei
    fulfil: Callable[[Sale], Awaitable[web.StreamResponse]]


class App(Protocol):
    """Something that is sold by the call."""

    def listing(self) -> Listing:
        """Return what holds now, from memory."""
        ...

    def offer(self, call: Call, payer: Address) -> Offer:
        """Price a call before anything is paid: it does no work, and waits for nothing.

        Raises Refusal or ProblemError for a call that could not be served now. It is asked once more
        for a call that is paid for.
        """
        ...
