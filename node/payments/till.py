"""Takes payments and quotes tickets: the rules of `receiver` and `quoting` on what the chain says now."""

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Protocol

from network.chain.model import ChainView, Head, SenderInfo
from network.errors import WireError
from network.payments.rand import SEED_BYTES
from network.payments.tickets import TicketParams
from network.runtime.inserting import Row
from network.units import Address, ModelId, Wei
from network.wire.session import Payment
from network.wire.tickets import decode_ticket_params, encode_ticket_params
from node.accounting.model import Credit
from node.accounting.tables import ticket_nonces, winning_tickets
from node.payments.quoting import NoQuote, Payer, QuotePolicy, quote, quote_call, unpayable
from node.payments.receiver import Circumstances, Offered, Receiver, Takings, Winner
from node.payments.standing import Standings
from node.payments.usual import UsualJobs


@dataclass(frozen=True, slots=True)
class NotPaid:
    """Why a payment was not even looked at; `reason` goes to the payer."""

    reason: str


class _Maker(Protocol):
    """Makes out a quote, what it is for being said already."""

    def __call__(
        self, *, payer: Payer, head: Head, recipient: Address, secret: bytes, seed: bytes
    ) -> TicketParams | NoQuote: ...


@dataclass(frozen=True, slots=True)
class Till:
    """One recipient's side of all payments.

    `pending` are a sender's face values that won and are not redeemed; `won` hears of new ones.
    `now` is in unix seconds.
    """

    view: ChainView
    standings: Standings
    receiver: Receiver
    policy: QuotePolicy
    usual: UsualJobs
    recipient: Address
    secret: bytes
    pending: Callable[[Address], Wei]
    won: Callable[[Winner], None]
    now: Callable[[], float]

    async def quote(
        self, sender: Address, price: Fraction, models: Collection[ModelId]
    ) -> bytes | NoQuote:
        """Ticket parameters for `sender` and work on `models`, encoded. Raises ChainError."""
        policy = replace(self.policy, usual_pixels=self.usual.pixels(models))
        return await self._quoted(sender, partial(quote, price=price, policy=policy))

    def unpayable(self, cost: Wei) -> str:
        """Why nobody could pay `cost` wei for one call; "" where it could be paid."""
        return unpayable(cost, self.policy)

    async def quote_call(self, sender: Address, cost: Wei) -> bytes | NoQuote:
        """Ticket parameters for `sender` and one call of `cost` wei, encoded. Raises ChainError."""
        return await self._quoted(sender, partial(quote_call, cost=cost, policy=self.policy))

    async def _quoted(self, sender: Address, make: "_Maker") -> bytes | NoQuote:
        closed = await self.standings.closed(self.view.head)
        if closed:
            return NoQuote(closed)
        standing = await self.standings.of(sender)
        found = make(
            payer=Payer(sender, standing.info, standing.claimed, self.pending(sender)),
            head=self.view.head,
            recipient=self.recipient,
            secret=self.secret,
            seed=secrets.token_bytes(SEED_BYTES),
        )
        return encode_ticket_params(found) if isinstance(found, TicketParams) else found

    async def take(self, payment: Payment, attempt_id: str) -> Credit | NotPaid:
        """What a payment brings; nothing if it has no tickets, and so pays out of the balance.

        Raises ChainError.
        """
        if not payment.tickets:
            return Credit(Address(payment.sender), Fraction(0), 0)
        offered = _offered(payment)
        if isinstance(offered, NotPaid):
            return offered
        closed = await self.standings.closed(self.view.head)
        if closed:
            return NotPaid(closed)
        standing = await self.standings.of(offered.sender)
        # No pause from here until the books have it: what was seen is to be on disk before anything else.
        takings = self.receiver.take(offered, _circumstances(self.view.head, standing.info))
        for winner in takings.winners:
            self.won(winner)
        return self._credit(takings, attempt_id)

    def _credit(self, takings: Takings, attempt_id: str) -> Credit:
        rows: list[Row] = [
            (
                ticket_nonces,
                {
                    "recipient_rand_hash": takings.rand_hash.hex(),
                    "nonce": nonce,
                    "expiration_block": takings.expiration_block,
                },
            )
            for nonce in takings.nonces
        ]
        now = self.now()
        rows += [(winning_tickets, _row(one, attempt_id, now)) for one in takings.winners]
        return Credit(
            payer=takings.sender,
            amount=takings.credit,
            tickets=len(takings.nonces),
            rows=tuple(rows),
            refusal=takings.refusal,
        )


def _offered(payment: Payment) -> Offered | NotPaid:
    if not payment.sender:
        return NotPaid("invalid payment: no sender")
    if payment.expected_price is None:
        return NotPaid("invalid expected price sent with payment err=expected price missing")
    if payment.ticket_params is None or payment.expiration_params is None:
        return NotPaid("invalid payment: tickets without their parameters")
    try:
        params = decode_ticket_params(payment.ticket_params, payment.expiration_params)
    except WireError as error:
        return NotPaid(f"invalid ticket params: {error}")
    return Offered(Address(payment.sender), params, payment.expected_price, payment.tickets)


def _circumstances(head: Head, info: SenderInfo) -> Circumstances:
    return Circumstances(
        l1_block=head.l1_block,
        last_initialized_round=head.last_initialized_round,
        withdraw_round=info.withdraw_round,
        oldest_creation=head.oldest_valid_round,
    )


def _row(winner: Winner, attempt_id: str, now: float) -> dict[str, object]:
    ticket = winner.signed.ticket
    return {
        "ticket_hash": winner.ticket_hash.hex(),
        "sender": ticket.sender.hex(),
        "recipient": ticket.recipient.hex(),
        "face_value": ticket.face_value,
        "win_prob": Wei(ticket.win_prob),
        "sender_nonce": ticket.sender_nonce,
        "recipient_rand": Wei(winner.signed.recipient_rand),
        "recipient_rand_hash": ticket.recipient_rand_hash.hex(),
        "creation_round": ticket.creation.number,
        "creation_block_hash": ticket.creation.block_hash.hex(),
        "signature": winner.signed.signature.hex(),
        "params_expiration_block": winner.params_expiration_block,
        "attempt_id": attempt_id,
        "won_at": now,
    }
