"""Takes payments and quotes tickets: the rules of `receiver` and `quoting` on what the chain says now."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from network.chain.model import ChainView, Head, SenderInfo
from network.errors import WireError
from network.identity import checksum
from network.payments.rand import SEED_BYTES
from network.payments.tickets import TicketParams
from network.runtime.inserting import Row
from network.units import Address, Wei
from network.wire.session import Payment
from network.wire.tickets import decode_ticket_params, encode_ticket_params
from node.accounting.model import Credit
from node.accounting.tables import ticket_nonces, winning_tickets
from node.payments.quoting import NoQuote, Payer, QuotePolicy, quote
from node.payments.receiver import Circumstances, Offered, Receiver, Takings, Winner


@dataclass(frozen=True, slots=True)
class NotPaid:
    """Why a payment was not even looked at; `reason` goes to the payer."""

    reason: str


class Till:
    """One recipient's side of all payments."""

    def __init__(
        self,
        *,
        view: ChainView,
        receiver: Receiver,
        policy: QuotePolicy,
        recipient: Address,
        secret: bytes,
        pending: Callable[[Address], Wei],
        won: Callable[[Winner], None],
        now: Callable[[], float],
    ) -> None:
        """`pending` are a sender's face values that won and are not redeemed; `won` hears of new ones.

        `now` is in unix seconds.
        """
        self._view = view
        self._receiver = receiver
        self._policy = policy
        self._recipient = recipient
        self._secret = secret
        self._pending = pending
        self._won = won
        self._now = now

    async def quote(self, sender: Address, price: Fraction) -> bytes | NoQuote:
        """Ticket parameters for `sender`, encoded. Raises ChainUnavailableError."""
        head = self._view.head
        if not await self._view.is_active(self._recipient):
            return NoQuote(self._inactive(head))
        info = await self._view.sender_info(sender)
        claimed = await self._view.claimed_reserve(sender, self._recipient)
        payer = Payer(sender, info, claimed, self._pending(sender))
        found = quote(
            payer,
            price,
            head,
            self._policy,
            recipient=self._recipient,
            secret=self._secret,
            seed=secrets.token_bytes(SEED_BYTES),
        )
        return encode_ticket_params(found) if isinstance(found, TicketParams) else found

    async def take(self, payment: Payment, attempt_id: str) -> Credit | NotPaid | None:
        """What a payment brings; None for one without tickets, which pays out of the balance.

        Raises ChainUnavailableError.
        """
        if not payment.tickets:
            return None
        offered = _offered(payment)
        if isinstance(offered, NotPaid):
            return offered
        head = self._view.head
        if not await self._view.is_active(self._recipient):
            return NotPaid(self._inactive(head))
        info = await self._view.sender_info(offered.sender)
        self._receiver.forget(head.l1_block)
        takings = self._receiver.take(offered, _circumstances(head, info))
        for winner in takings.winners:
            self._won(winner)
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
        now = self._now()
        rows += [(winning_tickets, _row(one, attempt_id, now)) for one in takings.winners]
        return Credit(
            payer=takings.sender,
            amount=takings.credit,
            tickets=len(takings.nonces),
            rows=tuple(rows),
            refusal=takings.refusal,
        )

    def _inactive(self, head: Head) -> str:
        who = checksum(self._recipient)
        return f"orchestrator {who} is inactive in round {head.current_round}, cannot process payments"


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
    return Circumstances(head.l1_block, head.last_initialized_round, info.withdraw_round)


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
