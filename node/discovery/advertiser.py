"""The node's terms, put together anew for every question from what holds at this moment."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import structlog

from network.capabilities import (
    TEXT_TO_IMAGE,
    TEXT_TO_IMAGE_PIPELINE,
    Capabilities,
    ModelConstraint,
    node_capabilities,
)
from network.chain.model import ChainError
from network.errors import LimnerError, SignatureError
from network.identity import Signer, sign_hashed, verify_session_request
from network.prices import NoRateError
from network.runtime.clock import Clock
from network.units import Address, ModelId
from network.wire.codec import Hardware as HardwareEntry
from network.wire.codec import OrchestratorInfo, OrchestratorRequest, PriceInfo
from node.accounting.model import NOBODY
from node.accounting.pricing import PriceList
from node.discovery.hardware import Hardware
from node.discovery.sessions import Sessions
from node.payments.quoting import NoQuote

log = structlog.get_logger(__name__)

#: Ticket parameters, encoded, for a sender, a price in wei per pixel and the models that it wants.
Quoter = Callable[[Address, Fraction, Collection[ModelId]], Awaitable[bytes | NoQuote]]

#: No other message that this network signs is as short: a ticket's content has 168 bytes, an
#: account as text 42, a segment's identity at least 64. See `Advertiser.ping`.
MAX_PING_BYTES: Final = 32


class NoTermsError(LimnerError):
    """No work can be sold to whoever asks; the message tells it why."""


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """What can be had of a model now."""

    warm: bool
    free: int
    in_use: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who may have work done. An empty list: anybody, and unsigned gateways too."""

    allowed: frozenset[Address]

    @property
    def is_open(self) -> bool:
        """Whether gateways need not say who they are."""
        return not self.allowed


class Advertiser:
    """Answers the two questions of net.Orchestrator."""

    def __init__(
        self,
        *,
        signer: Signer,
        service_uri: str,
        version: str,
        prices: PriceList,
        access: Access,
        sessions: Sessions,
        hardware: Hardware,
        clock: Clock,
        offers: Callable[[], Mapping[ModelId, ModelOffer]],
        quote: Quoter | None = None,
    ) -> None:
        """`offers` tells every configured model's state, from memory.

        `quote` is None where nobody pays by ticket.
        """
        self._quote = quote
        self.service_uri = service_uri
        self._signer = signer
        self._version = version
        self._prices = prices
        self._access = access
        self._sessions = sessions
        self._hardware = hardware
        self._clock = clock
        self._offers = offers
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more work."""
        return self._closed

    def offers(self) -> Mapping[ModelId, ModelOffer]:
        """Return every configured model's state."""
        return self._offers()

    def price_for(self, model_id: ModelId, payer: Address) -> Fraction:
        """Return what a model costs an account, in wei per pixel. Raises NoRateError."""
        return self._prices.price(model_id, payer)

    def close(self) -> None:
        """Take no more work: gateways pass over a node whose service URI is empty."""
        self._closed = True

    def capabilities(self) -> Capabilities:
        """Return what the node can do now."""
        return node_capabilities(
            {
                model_id: ModelConstraint(
                    warm=offer.warm,
                    capacity=offer.free,
                    runner_version=self._version,
                    capacity_in_use=offer.in_use,
                )
                for model_id, offer in self._offers().items()
            },
            self._version,
        )

    def ping(self, value: bytes) -> bytes:
        """Prove the node's account over `value` (Livepeer wire, 1.4).

        Raises ValueError for more than 32 bytes: signing whatever a stranger sends would sign
        tickets, segments and session requests in the node's name.
        """
        if len(value) > MAX_PING_BYTES:
            raise ValueError(f"ping value of {len(value)} bytes; at most {MAX_PING_BYTES}")
        return sign_hashed(self._signer, value)

    async def info(self, request: OrchestratorRequest) -> OrchestratorInfo:
        """Return the node's terms for a gateway.

        Raises SignatureError for a wrong signature, or an account that may not work here; NoTermsError
        where it could not pay.
        """
        sender = self._sender(request)
        wanted = request.capabilities
        try:
            price = self._price(wanted, sender or NOBODY)
            prices = self._all_prices(sender or NOBODY) if wanted is None else ()
        except NoRateError as error:
            log.warning("no price can be told", why=str(error))
            raise NoTermsError(str(error)) from None
        quoted = None if sender is None else await self._ticket_params(sender, price, wanted)
        return OrchestratorInfo(
            transcoder="" if self._closed else self.service_uri,
            address=self._signer.address,
            price=price,
            ticket_params=quoted,
            prices=prices,
            capabilities=self.capabilities(),
            auth_token=self._sessions.issue(sender, self._clock.now()),
            hardware=self._devices() if wanted is None else (),
        )

    async def _ticket_params(
        self, sender: Address, price: Fraction, wanted: Capabilities | None
    ) -> bytes | None:
        if self._quote is None:
            return None
        try:
            found = await self._quote(sender, price, self._wanted_models(wanted))
        except ChainError as error:
            log.warning("nothing is quoted", why=str(error))
            raise NoTermsError("the orchestrator cannot read its chain just now") from None
        if isinstance(found, NoQuote):
            raise NoTermsError(found.reason)
        return found

    def _sender(self, request: OrchestratorRequest) -> Address | None:
        """Return the account that asks, proven; None where it does not matter who asks."""
        # Whoever asks without an account is told everything but ticket parameters.
        if not request.signature and self._access.is_open:
            return None
        sender = Address(request.address)
        if len(sender) != len(NOBODY):
            raise SignatureError("no account")
        verify_session_request(sender, request.signature)
        if not self._access.is_open and sender not in self._access.allowed:
            raise SignatureError("account not allowed")
        return sender

    def _price(self, wanted: Capabilities | None, payer: Address) -> Fraction:
        """Price what is in both `capacities` and the models asked for, as Livepeer does."""
        prices = [self._prices.price(model, payer) for model in self._wanted_models(wanted)]
        return sum(prices, Fraction(0)) if prices else self._prices.base()

    def _wanted_models(self, wanted: Capabilities | None) -> list[ModelId]:
        if wanted is None or TEXT_TO_IMAGE not in wanted.capacities:
            return []
        models = wanted.models.get(TEXT_TO_IMAGE, {})
        known = self._offers()
        return [ModelId(model) for model in models if ModelId(model) in known]

    def _all_prices(self, payer: Address) -> tuple[PriceInfo, ...]:
        return tuple(
            PriceInfo(self._prices.price(model_id, payer), TEXT_TO_IMAGE, model_id)
            for model_id in self._offers()
        )

    def _devices(self) -> tuple[HardwareEntry, ...]:
        gpus = {str(index): entry.gpu for index, entry in enumerate(self._hardware.latest)}
        return tuple(
            HardwareEntry(TEXT_TO_IMAGE_PIPELINE, model_id, gpus) for model_id in self._offers()
        )
