"""Tickets made with a key on this machine."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from gateway.payments.payer import Quote, SignedTickets, StaleQuoteError
from network.identity import Signer
from network.payments.signing import TicketSeries
from network.payments.tickets import TicketParams
from network.units import Address
from network.wire.session import TicketSenderParams

#: Orchestrators of this network take no more tickets for one quote.
MOST_NONCES: Final = 600
#: Signing more takes longer than the event loop should be held up.
_INLINE: Final = 16
#: Quotes live for minutes. An orchestrator that quotes one again after that gets tickets it has.
_KEPT: Final = 16_384


@dataclass(slots=True)
class _Session:
    """The tickets of one quote."""

    series: TicketSeries
    next_nonce: int = 1


class TicketSender:
    """Implements `TicketMaker`. Nonces begin at 1 for each quote and are never used twice."""

    #: The gateway has the key that made them, too.
    signs_jobs: Final = True

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        #: By the hash of the recipient's number, which is all that nonces hang on: a quote that
        #: repeats a hash with other values goes on with the nonces.
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    @property
    def address(self) -> Address:
        return self._signer.address

    async def make(self, quote: Quote, count: int) -> SignedTickets:
        """Raises StaleQuoteError where the quote has no nonces left."""
        if not count:
            return SignedTickets(())
        series, first = self._take(quote.params, count)
        if count <= _INLINE:
            return SignedTickets(self._sign(series, first, count))
        return SignedTickets(await asyncio.to_thread(self._sign, series, first, count))

    def _take(self, params: TicketParams, count: int) -> tuple[TicketSeries, int]:
        session = self._sessions.get(params.recipient_rand_hash)
        if session is None:
            session = _Session(TicketSeries(params, self.address))
            self._sessions[params.recipient_rand_hash] = session
            if len(self._sessions) > _KEPT:
                self._sessions.popitem(last=False)
        first = session.next_nonce
        if first + count - 1 > MOST_NONCES:
            raise StaleQuoteError(
                f"{first - 1} tickets were made for its quote, and no more are taken"
            )
        session.next_nonce = first + count
        if session.series.params != params:
            session.series = TicketSeries(params, self.address)
        return session.series, first

    def _sign(
        self, series: TicketSeries, first: int, count: int
    ) -> tuple[TicketSenderParams, ...]:
        return tuple(
            TicketSenderParams(nonce, series.sign(self._signer, nonce))
            for nonce in range(first, first + count)
        )
