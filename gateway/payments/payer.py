"""The seam between knowing how many tickets are due and making them.

A key on this machine makes tickets (`gateway.payments.sender`), or a remote signer does.
"""

from dataclasses import dataclass
from typing import Protocol, Self

from network.errors import LimnerError, WireError
from network.payments.tickets import TicketParams
from network.units import Address, ModelId
from network.wire.session import OrchestratorInfo, TicketSenderParams
from network.wire.tickets import decode_ticket_params


class CannotPayError(LimnerError):
    """Nobody can be paid at the moment; the message is for the operator, not for clients."""


class UnpayableError(LimnerError):
    """This orchestrator cannot be paid; the message says why, for the operator. Nothing was signed."""


class StaleQuoteError(UnpayableError):
    """The quote has expired or is used up: ask the orchestrator anew, then try again."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What one orchestrator asks for work on one model: its price and its ticket parameters."""

    model_id: ModelId
    #: The whole answer to GetOrchestrator about that model; `info.price` in wei per pixel.
    info: OrchestratorInfo
    params: TicketParams

    @classmethod
    def of(cls, model_id: ModelId, info: OrchestratorInfo) -> Self:
        """Raises UnpayableError for an answer without a price or without usable ticket parameters."""
        if info.price is None:
            raise UnpayableError("it names no price")
        if info.ticket_params is None:
            raise UnpayableError("it quotes no ticket parameters")
        try:
            return cls(model_id, info, decode_ticket_params(info.ticket_params))
        except WireError as error:
            raise UnpayableError(f"its ticket parameters are no such: {error}") from None


@dataclass(frozen=True, slots=True)
class SignedTickets:
    """Tickets with consecutive nonces for one quote."""

    tickets: tuple[TicketSenderParams, ...]
    #: The header `Livepeer-Segment` that goes with them, where the key is elsewhere; "" where the
    #: gateway signs its jobs itself.
    credentials: str = ""


class TicketMaker(Protocol):
    """Whoever holds the account's key. What it is asked to sign has been checked."""

    @property
    def address(self) -> Address:
        """The account that pays."""

    @property
    def signs_jobs(self) -> bool:
        """Whether work that costs nothing can be asked for: its credentials need no ticket."""

    async def make(self, quote: Quote, count: int) -> SignedTickets:
        """`count` tickets, none of which was made before; 0 asks for the credentials alone.

        Raises StaleQuoteError where another quote would do, UnpayableError where none of this
        orchestrator would, CannotPayError where nothing can be signed at all.
        """
