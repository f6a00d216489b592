"""A recipient of tickets that quotes real parameters and believes nothing that it has not checked.

It behaves as our node does, or as go-livepeer: one account for each sender, or one for each sender and model;
the fee held before work, or one ticket's value asked for; a word about the credit in each answer, or none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

from network.errors import SignatureError
from network.identity import KeySigner
from network.payments.pricing import win_probability
from network.payments.rand import recipient_rand
from network.payments.signing import TicketSeries
from network.payments.tickets import CreationRound, TicketParams, expected_value, rand_hash
from network.units import Address, Wei
from network.wire.session import Payment
from network.wire.tickets import decode_ticket_params, encode_ticket_params
from tests.network.chain.fake_chain import FakeChain

Style = Literal["limner", "livepeer"]


@dataclass
class Receipt:
    """What an attempt brought and cost."""

    credited: Fraction = Fraction(0)
    charged: int = 0
    state: str = "refused"


@dataclass
class StubTill:
    chain: FakeChain
    style: Style = "limner"
    key: KeySigner = field(default_factory=lambda: KeySigner(b"\x77" * 32))
    #: What one ticket is worth and pays, in wei.
    value: int = 3000
    face_value: int = 1_000_000
    lifetime: int = 40
    #: Changes what is quoted, for the malicious.
    spoil: Callable[[TicketParams], TicketParams] | None = None
    #: Whether it can be asked for receipts just now.
    tells: bool = True
    #: So often it says that it never saw an attempt: its request is still on the way.
    unseen: int = 0
    credited: dict[tuple[Address, str], Fraction] = field(default_factory=dict)
    charged: dict[tuple[Address, str], Fraction] = field(default_factory=dict)
    held: dict[tuple[Address, str], Fraction] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    nonces: set[tuple[bytes, int]] = field(default_factory=set)
    tickets: int = 0
    quotes: int = 0
    winners: int = 0

    @property
    def address(self) -> Address:
        return self.key.address

    def balance(self, sender: Address, model: str) -> Fraction:
        account = self._account(sender, model)
        nothing = Fraction(0)
        return (
            self.credited.get(account, nothing)
            - self.charged.get(account, nothing)
            - self.held.get(account, nothing)
        )

    def quote(self, sender: Address, price: Fraction) -> bytes:
        """Encoded TicketParams for work at `price`; free work has tickets that are worth nothing."""
        self.quotes += 1
        value, face = (Wei(0), Wei(0)) if not price else (Wei(self.value), Wei(self.face_value))
        head_round = self.chain.last_initialized
        params = TicketParams(
            recipient=self.address,
            face_value=face,
            win_prob=win_probability(face, value),
            recipient_rand_hash=bytes(32),
            seed=self.quotes.to_bytes(32, "big"),
            expiration_block=self.chain.l1_block + self.lifetime,
            creation=self._creation(head_round),
        )
        rand = self._rand(params, sender, price)
        params = replace(params, recipient_rand_hash=rand_hash(rand))
        return encode_ticket_params(params if self.spoil is None else self.spoil(params))

    def take(self, payment: Payment, attempt_id: str, model: str) -> str:
        """Credit what a payment brings; answers why it does not do, "" where it does."""
        receipt = self.receipts.setdefault(attempt_id, Receipt())
        if not payment.tickets:
            return ""
        sender, price = Address(payment.sender), payment.expected_price
        assert payment.ticket_params is not None
        assert payment.expiration_params is not None
        assert price is not None
        params = decode_ticket_params(payment.ticket_params, payment.expiration_params)
        rand = self._rand(params, sender, price)
        if rand_hash(rand) != params.recipient_rand_hash:
            return "invalid recipientRand for ticket recipientRandHash"
        series = TicketSeries(params, sender)
        for ticket in payment.tickets:
            try:
                series.check(ticket.nonce, ticket.signature)
            except SignatureError:
                return "invalid ticket signature"
            seen = (params.recipient_rand_hash, ticket.nonce)
            if seen in self.nonces:
                return f"invalid ticket senderNonce: already seen nonce={ticket.nonce}"
            self.nonces.add(seen)
            self.tickets += 1
            self.winners += series.is_winner(ticket.signature, rand)
            if params.expiration_block <= self.chain.l1_block:
                return "TicketParams expired"
            receipt.credited += params.expected_value
            self._add(self.credited, sender, model, params.expected_value)
        return ""

    def reserve(self, sender: Address, model: str, fee: int) -> bool:
        """Whether work may begin; our node holds the fee, go-livepeer looks for one ticket's value."""
        if self.style == "livepeer":
            return self.balance(sender, model) >= win_value(self.face_value, self.value)
        if self.balance(sender, model) < fee:
            return False
        self._add(self.held, sender, model, Fraction(fee))
        return True

    def end(self, attempt_id: str, sender: Address, model: str, fee: int, *, charge: bool) -> None:
        receipt = self.receipts[attempt_id]
        if receipt.state != "open":
            return
        if self.style == "limner":
            self._add(self.held, sender, model, Fraction(-fee))
        receipt.state = "delivered" if charge else "failed"
        if charge:
            receipt.charged = fee
            self._add(self.charged, sender, model, Fraction(fee))

    def forget(self) -> None:
        """As go-livepeer does when it starts again or a sender was idle for a while."""
        self.credited.clear()
        self.charged.clear()

    def _account(self, sender: Address, model: str) -> tuple[Address, str]:
        return sender, "" if self.style == "limner" else model

    def _add(
        self,
        sums: dict[tuple[Address, str], Fraction],
        sender: Address,
        model: str,
        amount: Fraction,
    ) -> None:
        account = self._account(sender, model)
        sums[account] = sums.get(account, Fraction(0)) + amount

    def _creation(self, number: int) -> CreationRound:
        return CreationRound(number, self.chain.hashes[number])

    def _rand(self, params: TicketParams, sender: Address, price: Fraction) -> int:
        return recipient_rand(
            b"\x05" * 32,
            seed=params.seed,
            sender=sender,
            face_value=params.face_value,
            win_prob=params.win_prob,
            expiration_block=params.expiration_block,
            price=price,
            creation=params.creation,
        )


def win_value(face_value: int, value: int) -> Fraction:
    """What a ticket is worth exactly: a little more than `value`, by rounding."""
    return expected_value(Wei(face_value), win_probability(Wei(face_value), Wei(value)))
